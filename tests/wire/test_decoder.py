"""Cutting a stream: packets, lines, limits, and everything that is wrong with either."""

from __future__ import annotations

from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.effort import EFFORT
from tests.wire.streams import (
    any_messages,
    any_packet,
    byte_by_byte,
    cut,
    run,
    stream_of,
    whole_bytes_and_halves,
)
from txgearman.errors import BadPacket, BrokenStream
from txgearman.wire import codec
from txgearman.wire.codec import LARGE, REFUSED, UNFINISHED, Decoder, encode, frame
from txgearman.wire.limits import HEADER_SIZE, MAX_LINE, MAX_PACKET
from txgearman.wire.packets import (
    BY_NUMBER,
    CAN_DO,
    CAN_DO_TIMEOUT,
    ECHO_REQ,
    GET_STATUS,
    GRAB_JOB,
    PACKETS,
    PRE_SLEEP,
    REQUEST,
    RESPONSE,
    SUBMIT_JOB,
    TEXT,
    WORK_COMPLETE,
    WORK_FAIL,
    WORK_STATUS,
)

places = st.lists(st.integers(min_value=0, max_value=2**16), max_size=12)


def header(magic: bytes, number: int, size: int) -> bytes:
    return pack(">4sII", magic, number, size)


class RoundTripTests(SynchronousTestCase):
    def test_every_type_whole_byte_by_byte_and_with_trailing_data(self) -> None:
        for packet in PACKETS:
            fields = [b"%s%d" % (name.encode(), index) for index, name in enumerate(packet.fields)]
            if packet.binary:
                fields[-1] += b"\0\0RES\xff\n\0"
            expected = [(packet.number, fields)]
            stream = encode(REQUEST, packet.number, fields)
            for pieces in whole_bytes_and_halves(stream):
                self.assertEqual(run(Decoder(), pieces), (expected, None))
            for trailing in (b"v", b"\0", b"\0REQ\0\0\0\x09\0\0\0"):
                self.assertEqual(run(Decoder(), [stream + trailing]), (expected, None))

    def test_empty_fields(self) -> None:
        for packet in PACKETS:
            fields = [b""] * len(packet.fields)
            stream = encode(REQUEST, packet.number, fields)
            for pieces in whole_bytes_and_halves(stream):
                self.assertEqual(run(Decoder(), pieces), ([(packet.number, fields)], None))

    @EFFORT
    @given(any_messages, places)
    def test_messages_survive_any_cutting(self, messages: list[Any], where: list[int]) -> None:
        stream = stream_of(messages)
        expected = ([message for message, _ in messages], None)
        self.assertEqual(run(Decoder(), [stream]), expected)
        self.assertEqual(run(Decoder(), byte_by_byte(stream)), expected)
        self.assertEqual(run(Decoder(), cut(stream, where)), expected)

    @EFFORT
    @given(st.lists(any_packet, max_size=5), places)
    def test_responses_of_a_server(self, packets: list[Any], where: list[int]) -> None:
        stream = stream_of([(packet, False) for packet in packets], RESPONSE)
        decoder = Decoder(RESPONSE, text=False)
        self.assertEqual(run(decoder, cut(stream, where)), (packets, None))

    @EFFORT
    @given(any_messages, any_packet)
    def test_an_unfinished_message_is_awaited(self, messages: list[Any], last: Any) -> None:
        stream = stream_of(messages)
        tail = encode(REQUEST, *last)
        decoder = Decoder()
        self.assertEqual(run(decoder, [stream + tail[:-1]]).packets, [message for message, _ in messages])
        self.assertEqual(list(decoder.feed(tail[-1:])), [last])

    def test_nothing_fed_is_nothing_found(self) -> None:
        decoder = Decoder()
        self.assertEqual(list(decoder.feed(b"")), [])
        self.assertEqual(list(decoder.feed(b"vers")), [])
        self.assertEqual(list(decoder.feed(b"")), [])
        self.assertEqual(list(decoder.feed(b"ion\n")), [(TEXT, [b"version"])])


class BodyTests(SynchronousTestCase):
    def decode(self, number: int, body: bytes) -> Any:
        """The one packet that a body gives, however it arrives."""
        stream = frame(REQUEST, number, body)
        outcomes = [run(Decoder(), pieces) for pieces in whole_bytes_and_halves(stream)]
        self.assertEqual(len({repr(outcome.comparable()) for outcome in outcomes}), 1)
        ((found, fields),), broken = outcomes[0]
        self.assertIsNone(broken)
        return found, fields

    def assert_refused(self, number: int, body: bytes, text: str) -> None:
        found, (error,) = self.decode(number, body)
        self.assertEqual(found, REFUSED)
        self.assertIsInstance(error, BadPacket)
        self.assertEqual((error.code, error.text), (b"INVALID_PACKET", text))

    def test_payload_of_a_type_without_fields_is_ignored(self) -> None:
        self.assertEqual(self.decode(GRAB_JOB, b"junk\0junk"), (GRAB_JOB, []))

    def test_too_few_nuls(self) -> None:
        self.assert_refused(SUBMIT_JOB, b"", "SUBMIT_JOB needs 3 fields, this has 1")
        self.assert_refused(SUBMIT_JOB, b"f\0u", "SUBMIT_JOB needs 3 fields, this has 2")
        self.assert_refused(WORK_STATUS, b"h", "WORK_STATUS needs 3 fields, this has 1")
        self.assert_refused(CAN_DO_TIMEOUT, b"f", "CAN_DO_TIMEOUT needs 2 fields, this has 1")

    def test_too_few_nuls_in_every_type(self) -> None:
        for packet in PACKETS:
            if len(packet.fields) > 1:
                fields = [b"x"] * (len(packet.fields) - 1)
                number, found = self.decode(packet.number, b"\0".join(fields))
                if packet.missing is None:
                    self.assertEqual(number, REFUSED, packet.name)
                else:
                    self.assertEqual((number, found), (packet.number, [*fields, packet.missing]))

    def test_trailing_nul_of_a_text_field_is_dropped(self) -> None:
        self.assertEqual(self.decode(CAN_DO, b"fn\0"), (CAN_DO, [b"fn"]))
        self.assertEqual(self.decode(WORK_FAIL, b"H:x:1\0"), (WORK_FAIL, [b"H:x:1"]))
        self.assertEqual(self.decode(GET_STATUS, b"\0"), (GET_STATUS, [b""]))
        self.assertEqual(self.decode(WORK_STATUS, b"h\x001\x002\0"), (WORK_STATUS, [b"h", b"1", b"2"]))

    def test_two_trailing_nuls_or_one_inside(self) -> None:
        self.assert_refused(CAN_DO, b"fn\0\0", "CAN_DO has a NUL in its last field")
        self.assert_refused(CAN_DO, b"f\0n", "CAN_DO has a NUL in its last field")
        self.assert_refused(WORK_STATUS, b"h\x001\x002\x003", "WORK_STATUS has a NUL in its last field")

    def test_nuls_of_a_binary_field_stay(self) -> None:
        self.assertEqual(self.decode(ECHO_REQ, b"\0a\0"), (ECHO_REQ, [b"\0a\0"]))
        self.assertEqual(self.decode(SUBMIT_JOB, b"f\0u\0\0d\0"), (SUBMIT_JOB, [b"f", b"u", b"\0d\0"]))

    def test_the_packets_around_a_bad_one_are_read_in_order(self) -> None:
        stream = encode(REQUEST, PRE_SLEEP) + frame(REQUEST, SUBMIT_JOB, b"f") + b"version\n"
        for pieces in whole_bytes_and_halves(stream):
            numbers = [number for number, _ in run(Decoder(), pieces).packets]
            self.assertEqual(numbers, [PRE_SLEEP, REFUSED, TEXT])


class HeaderTests(SynchronousTestCase):
    def test_the_other_sides_magic(self) -> None:
        for ours, theirs, text in (
            (REQUEST, RESPONSE, "Request magic expected"),
            (RESPONSE, REQUEST, "Response magic expected"),
        ):
            stream = encode(theirs, CAN_DO, [b"f"]) + encode(ours, CAN_DO, [b"g"])
            for pieces in whole_bytes_and_halves(stream):
                first, second = run(Decoder(ours), pieces).packets
                self.assertEqual(
                    (first[0], first[1][0].code, first[1][0].text), (REFUSED, b"INVALID_MAGIC", text)
                )
                self.assertEqual(second, (CAN_DO, [b"g"]))

    def test_bad_magic(self) -> None:
        for magic in (b"\0REX", b"\0\0\0\0", b"\0req"):
            stream = b"version\n" + header(magic, CAN_DO, 1)
            for pieces in whole_bytes_and_halves(stream):
                packets, broken = run(Decoder(), pieces)
                # What was ahead of the break was read.
                self.assertEqual(packets, [(TEXT, [b"version"])])
                assert broken is not None
                self.assertEqual(broken.code, b"")
                self.assertIn(repr(magic), broken.text)

    def test_bad_magic_is_seen_before_the_body(self) -> None:
        self.assertIsNotNone(run(Decoder(), [header(b"\0REX", CAN_DO, 100)]).broken)

    def test_unknown_types(self) -> None:
        for number in (0, 43, 44, 2**31, 2**32 - 1):
            stream = frame(REQUEST, number, b"a\0b") + encode(REQUEST, GRAB_JOB)
            for pieces in whole_bytes_and_halves(stream):
                (first, (error,)), second = run(Decoder(), pieces).packets
                self.assertEqual((first, error.code), (REFUSED, b"INVALID_COMMAND"))
                self.assertEqual(error.text, f"Unknown packet type {number}")
                self.assertEqual(second, (GRAB_JOB, []))

    def test_a_type_between_the_known_ones_has_no_fields(self) -> None:
        self.assertEqual(run(Decoder(), [frame(REQUEST, 5, b"")]).packets, [(5, [])])

    def test_header_cut_at_every_place(self) -> None:
        stream = encode(REQUEST, CAN_DO, [b"f"])
        for place in range(len(stream) + 1):
            self.assertEqual(run(Decoder(), cut(stream, [place])).packets, [(CAN_DO, [b"f"])])


class PacketLimitTests(SynchronousTestCase):
    def test_default(self) -> None:
        self.assertEqual(MAX_PACKET, 64 * 1024 * 1024)
        self.assertIsNone(run(Decoder(), [header(REQUEST, ECHO_REQ, MAX_PACKET)]).broken)
        self.assertIsNotNone(run(Decoder(), [header(REQUEST, ECHO_REQ, MAX_PACKET + 1)]).broken)

    def test_at_the_limit_and_one_past_it(self) -> None:
        for size in (0, 1, 19, 20):
            stream = frame(REQUEST, ECHO_REQ, b"x" * size)
            for pieces in whole_bytes_and_halves(stream):
                self.assertEqual(run(Decoder(max_packet=20), pieces).packets, [(ECHO_REQ, [b"x" * size])])
        for pieces in whole_bytes_and_halves(b"version\n" + frame(REQUEST, ECHO_REQ, b"x" * 21)):
            packets, broken = run(Decoder(max_packet=20), pieces)
            self.assertEqual(packets, [(TEXT, [b"version"])])
            assert broken is not None
            self.assertEqual(broken.code, b"ARGUMENT_TOO_LARGE")
            self.assertEqual(broken.text, "ECHO_REQ of 21 bytes exceeds the limit of 20")

    def test_the_header_alone_is_enough(self) -> None:
        for magic in (REQUEST, RESPONSE):
            decoder = Decoder(max_packet=20)
            self.assertEqual(list(decoder.feed(header(magic, 99, 2**32 - 1)[:-1])), [])
            with self.assertRaisesRegex(BrokenStream, "type 99 of 4294967295 bytes"):
                list(decoder.feed(b"\xff"))

    def test_nothing_of_the_body_is_kept_past_the_limit(self) -> None:
        decoder = Decoder(max_packet=20)
        self.assertIsNotNone(run(decoder, [header(REQUEST, ECHO_REQ, 21) + b"x" * 21]).broken)
        self.assertEqual(decoder.kept, 0)

    def test_only_the_unfinished_packet_is_kept(self) -> None:
        decoder = Decoder()
        finished = encode(REQUEST, ECHO_REQ, [b"x" * 1000])
        list(decoder.feed(finished * 5 + finished[:-1]))
        self.assertEqual(decoder.kept, len(finished) - 1)
        list(decoder.feed(finished[-1:]))
        self.assertEqual(decoder.kept, 0)

    def test_a_large_packet_in_small_reads_is_looked_at_twice(self) -> None:
        # Once for its header, once when it is whole: not again for each read.
        looked: list[int] = []
        unpack = codec._unpack_header

        def counting(data: bytes, start: int) -> Any:
            looked.append(len(data))
            return unpack(data, start)

        self.patch(codec, "_unpack_header", counting)
        size = 1024 * 1024
        stream = frame(REQUEST, ECHO_REQ, b"x" * size)
        pieces = [stream[start : start + 512] for start in range(0, len(stream), 512)]
        self.assertEqual(run(Decoder(), pieces).packets, [(ECHO_REQ, [b"x" * size])])
        self.assertEqual(2, len(looked))

    def test_a_large_packet_cut_anywhere_in_its_names(self) -> None:
        data = b"\0" * 2 * LARGE
        for packet, fields in (
            (encode(REQUEST, SUBMIT_JOB, [b"name", b"unique", data]), [b"name", b"unique", data]),
            (frame(REQUEST, ECHO_REQ, data), [data]),
            (frame(REQUEST, GRAB_JOB, data), []),
            (frame(REQUEST, WORK_COMPLETE, b"x" * 2 * LARGE), [b"x" * 2 * LARGE, b""]),
        ):
            for place in (*range(40), LARGE, len(packet) - 1):
                for behind in (b"", packet):
                    found = run(Decoder(), [packet[:place], packet[place:] + behind]).packets
                    self.assertEqual([(packet[7], fields)] * (2 if behind else 1), found)
            small = encode(REQUEST, ECHO_REQ, [b"small"])
            found = run(Decoder(), [small + packet + small]).packets
            self.assertEqual([(ECHO_REQ, [b"small"]), (packet[7], fields), (ECHO_REQ, [b"small"])], found)

    def test_a_large_packet_of_the_wrong_side(self) -> None:
        packet = encode(RESPONSE, WORK_COMPLETE, [b"handle", b"x" * LARGE])
        for place in (0, 15, LARGE):
            ((number, (error,)),) = run(Decoder(), [packet[:place], packet[place:]]).packets
            self.assertEqual((REFUSED, b"INVALID_MAGIC"), (number, error.code))

    def test_a_large_packet_with_too_few_fields(self) -> None:
        packet = frame(REQUEST, SUBMIT_JOB, b"name\0" + b"x" * LARGE)
        for place in (0, 5, 15, 20, LARGE):
            (found,) = run(Decoder(), [packet[:place], packet[place:]]).packets
            self.assertEqual(REFUSED, found[0])
            self.assertIn("needs 3 fields, this has 2", found[1][0].text)

    def test_small_pieces_of_a_large_packet_are_put_together(self) -> None:
        # Each by itself takes some fifty bytes beside its own.
        decoder = Decoder()
        for piece in byte_by_byte(frame(REQUEST, ECHO_REQ, b"x" * LARGE)[:-1]):
            list(decoder.feed(piece))
        self.assertEqual(1, len(decoder._pieces))
        self.assertEqual(HEADER_SIZE + LARGE - 1, decoder.kept)


class UnfinishedTests(SynchronousTestCase):
    """A decoder that tells of what has not come whole."""

    PACKET = frame(REQUEST, ECHO_REQ, b"x" * (4 * LARGE))

    def setUp(self) -> None:
        self.decoder = Decoder(tell_from=LARGE)

    def feed(self, *pieces: bytes) -> list[Any]:
        """What is told, with the sizes of bodies in the place of these."""
        outcome = run(self.decoder, pieces)
        self.assertIsNone(outcome.broken)
        return [
            (number, len(field) if isinstance(field, bytes) else field)
            for number, (field,) in outcome.packets
        ]

    def test_at_the_limit_and_one_below(self) -> None:
        self.assertEqual(self.feed(self.PACKET[: LARGE - 1]), [])
        self.assertEqual(self.feed(self.PACKET[LARGE - 1 : LARGE]), [(UNFINISHED, LARGE)])

    def test_with_each_read_until_it_is_whole(self) -> None:
        pieces = [self.PACKET[:LARGE], self.PACKET[LARGE:-1], self.PACKET[-1:]]
        told = [(UNFINISHED, LARGE), (UNFINISHED, len(self.PACKET) - 1), (UNFINISHED, 0)]
        self.assertEqual(self.feed(*pieces), [*told, (ECHO_REQ, 4 * LARGE)])

    def test_with_trailing_data(self) -> None:
        found = self.feed(self.PACKET[:LARGE], self.PACKET[LARGE:] + self.PACKET[: 2 * LARGE])
        told = [(UNFINISHED, LARGE), (UNFINISHED, 0), (ECHO_REQ, 4 * LARGE), (UNFINISHED, 2 * LARGE)]
        self.assertEqual(found, told)

    def test_whole_and_small_packets_are_none_of_it(self) -> None:
        small = frame(REQUEST, ECHO_REQ, b"x" * 100)
        self.assertEqual(
            self.feed(self.PACKET, small * 9, small[:50], small[50:]),
            [
                (ECHO_REQ, 4 * LARGE),
                *[(ECHO_REQ, 100)] * 10,
            ],
        )

    def test_what_is_forgotten_is_not_kept(self) -> None:
        self.feed(self.PACKET[:LARGE])
        self.decoder.forget()
        self.assertEqual(self.decoder.kept, 0)

    def test_without_a_limit_nothing_is_told(self) -> None:
        self.assertEqual(run(Decoder(), byte_by_byte(self.PACKET)).packets, [(ECHO_REQ, [b"x" * 4 * LARGE])])


class LargePacketTests(SynchronousTestCase):
    """Packets that come in pieces and are taken apart in a way of their own."""

    SIZE = codec.LARGE + 1

    def assert_read(self, packet: bytes, *expected: Any) -> None:
        stream = packet + encode(REQUEST, PRE_SLEEP) + b"version\n"
        for at in (1, 5, HEADER_SIZE, HEADER_SIZE + 3, len(packet) - 1):
            found = run(Decoder(), [stream[:at], stream[at:]])
            self.assertEqual(found.packets, [*expected, (PRE_SLEEP, []), (TEXT, [b"version"])])

    def test_fields_and_data(self) -> None:
        data = b"\0x" * self.SIZE
        self.assert_read(encode(REQUEST, SUBMIT_JOB, [b"f", b"", data]), (SUBMIT_JOB, [b"f", b"", data]))
        self.assert_read(encode(REQUEST, ECHO_REQ, [data]), (ECHO_REQ, [data]))

    def test_a_long_argument(self) -> None:
        name = b"f" * self.SIZE
        self.assert_read(encode(REQUEST, SUBMIT_JOB, [name, b"u", b""]), (SUBMIT_JOB, [name, b"u", b""]))
        self.assert_read(encode(REQUEST, CAN_DO, [name]), (CAN_DO, [name]))

    def test_a_payload_where_there_are_no_fields(self) -> None:
        self.assert_read(frame(REQUEST, PRE_SLEEP, bytes(self.SIZE)), (PRE_SLEEP, []))

    def test_data_left_out(self) -> None:
        handle = b"h" * self.SIZE
        self.assert_read(frame(REQUEST, WORK_COMPLETE, handle), (WORK_COMPLETE, [handle, b""]))

    def test_bad_ones(self) -> None:
        for packet, code in (
            (frame(REQUEST, SUBMIT_JOB, b"f\0" + b"u" * self.SIZE), b"INVALID_PACKET"),
            (frame(REQUEST, 99, bytes(self.SIZE)), b"INVALID_COMMAND"),
            (frame(RESPONSE, ECHO_REQ, bytes(self.SIZE)), b"INVALID_MAGIC"),
        ):
            ((number, (error,)),) = run(Decoder(), [packet[:100], packet[100:]]).packets
            self.assertEqual((number, error.code), (REFUSED, code))


class LineTests(SynchronousTestCase):
    def test_line_ends(self) -> None:
        stream = b"status\nversion\r\n\n\r\nshow  jobs \n"
        expected = [(TEXT, [line]) for line in (b"status", b"version", b"", b"", b"show  jobs ")]
        for pieces in whole_bytes_and_halves(stream):
            self.assertEqual(run(Decoder(), pieces), (expected, None))

    def test_only_one_cr_belongs_to_the_line_end(self) -> None:
        self.assertEqual(list(Decoder().feed(b"a\rb\r\r\n")), [(TEXT, [b"a\rb\r"])])

    def test_nul_inside_a_line_stays(self) -> None:
        self.assertEqual(list(Decoder().feed(b"a\0b\n")), [(TEXT, [b"a\0b"])])

    def test_lines_and_packets_mixed(self) -> None:
        stream = b"status\n" + encode(REQUEST, GRAB_JOB) + b"version\r\n" + encode(REQUEST, CAN_DO, [b"\nf"])
        expected = [(TEXT, [b"status"]), (GRAB_JOB, []), (TEXT, [b"version"]), (CAN_DO, [b"\nf"])]
        for pieces in whole_bytes_and_halves(stream):
            self.assertEqual(run(Decoder(), pieces), (expected, None))

    def test_a_line_at_the_limit(self) -> None:
        line = b"x" * MAX_LINE
        for line_end in (b"\n", b"\r\n"):
            for pieces in whole_bytes_and_halves(line + line_end):
                self.assertEqual(run(Decoder(), pieces), ([(TEXT, [line])], None))

    def test_a_line_one_past_the_limit_ended_by_cr_lf(self) -> None:
        for pieces in whole_bytes_and_halves(b"a\n" + b"x" * (MAX_LINE + 1) + b"\r\n"):
            packets, broken = run(Decoder(), pieces)
            self.assertEqual(packets, [(TEXT, [b"a"])])
            assert broken is not None
            self.assertEqual((broken.code, broken.text), (b"", "a text line has more than 8192 bytes"))

    def test_a_line_one_past_the_limit_ended_by_lf(self) -> None:
        for pieces in whole_bytes_and_halves(b"x" * (MAX_LINE + 1) + b"\n"):
            packets, broken = run(Decoder(), pieces)
            self.assertEqual([len(fields[0]) for _, fields in packets], [])
            self.assertIsNotNone(broken)

    def test_a_line_without_an_end(self) -> None:
        decoder = Decoder()
        self.assertEqual(list(decoder.feed(b"x" * MAX_LINE)), [])
        with self.assertRaises(BrokenStream):
            list(decoder.feed(b"xx"))

    def test_the_begin_of_tls_breaks_the_stream(self) -> None:
        for stream in (b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\nstatus\n"):
            for pieces in whole_bytes_and_halves(stream):
                packets, broken = run(Decoder(), pieces)
                self.assertEqual(packets, [])
                assert broken is not None
                self.assertEqual(
                    (broken.code, broken.text), (b"", "the peer speaks TLS, which is not spoken here")
                )
        self.assertEqual(
            run(Decoder(), [b"\x16\n\x16\x04\n"]), ([(TEXT, [b"\x16"]), (TEXT, [b"\x16\x04"])], None)
        )

    def test_without_text_a_line_breaks_the_stream(self) -> None:
        stream = encode(RESPONSE, 6) + b"OK\n"
        for pieces in whole_bytes_and_halves(stream):
            packets, broken = run(Decoder(RESPONSE, text=False), pieces)
            self.assertEqual(packets, [(6, [])])
            assert broken is not None
            self.assertEqual(broken.code, b"")

    def test_without_text_one_byte_is_enough(self) -> None:
        with self.assertRaises(BrokenStream):
            list(Decoder(RESPONSE, text=False).feed(b"H"))


# Bytes that come close to packets, so that the garbage gets past the first header.
_near_header = st.builds(
    header,
    st.sampled_from([REQUEST, RESPONSE, b"\0REX"]),
    st.integers(0, 50) | st.integers(0, 2**32 - 1),
    st.integers(0, 30) | st.integers(0, 2**32 - 1),
)
_near_packet = st.builds(
    frame,
    st.just(REQUEST),
    st.integers(0, 50),
    st.lists(st.sampled_from([b"\0", b"\0", b"a", b"\n"]), max_size=12).map(b"".join),
)
_packet = any_packet.map(lambda packet: encode(REQUEST, *packet))
garbage = st.lists(st.binary(max_size=30) | _near_header | _near_packet | _packet, max_size=8).map(b"".join)


class GarbageTests(SynchronousTestCase):
    def check(self, number: int, fields: list[Any]) -> None:
        """A packet is one that the documentation of `Decoder.feed` announces."""
        if number == TEXT:
            (line,) = fields
            self.assertNotIn(b"\n", line)
            self.assertNotEqual(line[:1], b"\0")
        elif number == REFUSED:
            (error,) = fields
            self.assertIsInstance(error, BadPacket)
            self.assertIn(error.code, (b"INVALID_MAGIC", b"INVALID_COMMAND", b"INVALID_PACKET"))
        else:
            packet = BY_NUMBER[number]
            self.assertEqual(len(fields), len(packet.fields))
            for field in fields[:-1] if packet.binary else fields:
                self.assertNotIn(b"\0", field)

    @EFFORT
    @given(garbage, places, st.booleans())
    def test_garbage_gives_what_is_documented(self, stream: bytes, where: list[int], text: bool) -> None:
        outcomes = []
        for pieces in ([stream], byte_by_byte(stream), cut(stream, where)):
            outcome = run(Decoder(max_packet=60, text=text), pieces)
            for number, fields in outcome.packets:
                self.check(number, fields)
            outcomes.append(outcome.comparable())
        # How the bytes arrive makes no difference.
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(outcomes[0], outcomes[2])

    @EFFORT
    @given(garbage)
    def test_no_more_is_kept_than_one_packet_or_line(self, stream: bytes) -> None:
        decoder = Decoder(max_packet=60)
        run(decoder, [stream])
        self.assertLessEqual(decoder.kept, max(HEADER_SIZE + 60, MAX_LINE + 1))
