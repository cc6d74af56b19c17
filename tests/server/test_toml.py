"""TOML with numbers of lines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgearman.server.config.toml import Document

TEXT = '''\
# A comment = 1
one = 1

list = [
  1,  # two = 2
  2,
]
text = """
three = 3
"""
[table]
four = 4
"five 5" = 5
inline = { six = 6, seven = { eight = 8 } }

[table.below]
[other]
dotted.nine = 9
[[many]]
ten = 10
[[many]]

# another comment
ten = 10
last = 1'''


class LineTests(SynchronousTestCase):
    def test_each_value(self) -> None:
        document = Document(TEXT)
        for path, line in (
            (("one",), 2),
            (("list",), 4),
            (("list", 1), 4),
            (("text",), 8),
            (("table",), 11),
            (("table", "four"), 12),
            (("table", "five 5"), 13),
            (("table", "inline"), 14),
            (("table", "inline", "seven", "eight"), 14),
            (("table", "below"), 16),
            (("other", "dotted", "nine"), 18),
            (("many", 0, "ten"), 20),
            (("many", 1), 21),
            (("many", 1, "ten"), 24),
            (("many", 1, "last"), 25),
        ):
            with self.subTest(path):
                self.assertEqual(document.line(path), line)

    def test_windows_line_ends(self) -> None:
        document = Document(TEXT.replace("\n", "\r\n"))
        self.assertEqual(document.line(("table", "four")), 12)

    def test_line_ends_of_unicode_are_none(self) -> None:
        document = Document('one = "\u2028\x85"  # \u2029\ntwo = 2\n')
        self.assertEqual(document.line(("two",)), 2)

    def test_no_toml(self) -> None:
        for text, line, said in (
            ("one = 1\ntwo = \n", 2, "value"),
            ("one = 1\none = 2\n", 2, "verwrite"),
            ("one = 1\n[two\n", 2, "]"),
            ("one = 1\n\nlist = [1,\n", 3, ""),
            ('text = """', 1, ""),
            ("=", 1, ""),
        ):
            with self.subTest(text):
                with self.assertRaises(ValueError) as caught:
                    Document(text)
                self.assertEqual(caught.exception.args[0], line)
                self.assertIn(said, caught.exception.args[1])
                self.assertNotIn("(at ", caught.exception.args[1])

    def test_what_the_reader_itself_gives_up_at(self) -> None:
        deep = "[" * 5000
        for text, line, said in (
            (f"one = 1\n\ntwo = {deep}\nthree = 3\n", 3, "nested too deeply"),
            (f"one = {deep}{']' * 5000}", 1, "nested too deeply"),
            (f"one = 1\ntwo = [\n1,\n{deep}{']' * 5000}\n]\n", 4, "nested too deeply"),
            (f"one = {'{a=' * 5000}1", 1, "nested too deeply"),
            (f"one = 1\ntwo = {'9' * 5000}\nthree = 3\n", 2, "too many digits"),
        ):
            with self.subTest(text[:30]):
                with self.assertRaises(ValueError) as caught:
                    Document(text)
                self.assertEqual(caught.exception.args, (line, caught.exception.args[1]))
                self.assertIn(said, caught.exception.args[1])

    def test_empty(self) -> None:
        self.assertEqual(Document("").data, {})
