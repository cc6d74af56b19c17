"""The field of attributes: what goes in comes out, and what is wrong is refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgearman.errors import ArgumentTooLarge, InvalidArgument
from txgearman.wire.attributes import MAX_COUNT, MAX_SIZE, format_attributes, parse_attributes


class ParseTests(SynchronousTestCase):
    def test_lines_are_values_by_name(self) -> None:
        for field, values in (
            (b"", {}),
            (b"a=1", {"a": "1"}),
            (b"run_at=1.5\nexpires=60\nnote=", {"run_at": "1.5", "expires": "60", "note": ""}),
            ("a=b=c\nb2=\u00fc \t".encode(), {"a": "b=c", "b2": "\u00fc \t"}),
        ):
            with self.subTest(field):
                self.assertEqual(parse_attributes(field), values)
                self.assertEqual(format_attributes(values), field)

    def test_the_order_stays(self) -> None:
        self.assertEqual(list(parse_attributes(b"b=1\na=2\nc=3")), ["b", "a", "c"])

    def test_what_is_no_line_is_refused(self) -> None:
        for field in (
            b"a",
            b"=1",
            b"a=1\n",
            b"\na=1",
            b"a=1\n\nb=2",
            b"A=1",
            b"a b=1",
            b"1a=1",
            b"a-b=1",
            b"a\n=1",
            "\u00e4=1".encode(),
            b"a" * 65 + b"=1",
            b"a=\xff",
            b"a=\0",
        ):
            with self.subTest(field), self.assertRaises(InvalidArgument):
                parse_attributes(field)

    def test_a_name_comes_once(self) -> None:
        with self.assertRaisesRegex(InvalidArgument, "twice: a$"):
            parse_attributes(b"a=1\nb=1\na=1")

    def test_a_text_of_an_error_is_one_short_line(self) -> None:
        with self.assertRaises(InvalidArgument) as raised:
            parse_attributes("\u2028".encode() * 1000)
        self.assertTrue(raised.exception.text.isascii() and raised.exception.text.isprintable())
        self.assertLess(len(raised.exception.text), 600)

    def test_bytes_and_lines_are_limited(self) -> None:
        longest = b"a=" + b"x" * (MAX_SIZE - 2)
        self.assertEqual(parse_attributes(longest), {"a": "x" * (MAX_SIZE - 2)})
        most = b"\n".join([b"a%d=" % number for number in range(MAX_COUNT)])
        self.assertEqual(len(parse_attributes(most)), MAX_COUNT)
        for field in (longest + b"x", most + b"\nb=", b"\n" * MAX_SIZE):
            with self.subTest(field[:10]), self.assertRaises(ArgumentTooLarge):
                parse_attributes(field)


class FormatTests(SynchronousTestCase):
    def test_what_could_not_be_read_is_not_written(self) -> None:
        for values in (
            {"": "1"},
            {"a=b": "1"},
            {"a\n": "1"},
            {"a": "1\nb=2"},
            {"a": "\0"},
            {"a": "x" * (MAX_SIZE - 1)},
            {f"a{number}": "" for number in range(MAX_COUNT + 1)},
        ):
            with self.subTest(values), self.assertRaises(ValueError):
                format_attributes(values)

    def test_the_most_that_can_be_read_can_be_written(self) -> None:
        for values in ({"a": "x" * (MAX_SIZE - 2)}, {f"a{number}": "" for number in range(MAX_COUNT)}):
            self.assertEqual(parse_attributes(format_attributes(values)), values)
