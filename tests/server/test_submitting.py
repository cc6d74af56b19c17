"""What a client's packets are answered with, byte for byte."""

from __future__ import annotations

from tests.server.peers import ServerTestCase, error, req, res

H1, H2, H3 = b"H:test:1", b"H:test:2", b"H:test:3"

FOREGROUND = {"SUBMIT_JOB": 7, "SUBMIT_JOB_HIGH": 21, "SUBMIT_JOB_LOW": 33}
BACKGROUND = {"SUBMIT_JOB_BG": 18, "SUBMIT_JOB_HIGH_BG": 32, "SUBMIT_JOB_LOW_BG": 34}
SUBMITS = {**FOREGROUND, **BACKGROUND}


class SubmitTest(ServerTestCase):
    """Submitting."""

    def test_each_kind_of_job_is_created(self) -> None:
        peer = self.peer()
        for count, (name, number) in enumerate(SUBMITS.items(), 1):
            with self.subTest(name):
                created = peer.ask(req(number, b"f", b"", b"some\0data"))
                self.assertEqual(created, res(8, b"H:test:%d" % count))

    def test_priorities_decide_who_is_first(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        client.ask(*(req(number, b"f", b"", name.encode()) for name, number in SUBMITS.items()))
        served = [worker.ask(req(9)).split(b"\0")[-1].decode() for _ in SUBMITS]
        self.assertEqual(
            served,
            [
                "SUBMIT_JOB_HIGH",
                "SUBMIT_JOB_HIGH_BG",
                "SUBMIT_JOB",
                "SUBMIT_JOB_BG",
                "SUBMIT_JOB_LOW",
                "SUBMIT_JOB_LOW_BG",
            ],
        )

    def test_a_foreground_job_s_client_hears_everything_as_it_was_said(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        for name, number in FOREGROUND.items():
            with self.subTest(name):
                handle = client.ask(req(number, b"f", b"", b"x"))[12:]
                worker.ask(req(9))
                worker.say(req(28, handle, b"part\0one"), req(29, handle, b""))
                worker.say(req(12, handle, b"007", b"1e3"), req(13, handle, b"end\0"))
                self.assertEqual(worker.heard(), b"")
                self.assertEqual(
                    client.heard(),
                    res(28, handle, b"part\0one")
                    + res(29, handle, b"")
                    + res(12, handle, b"007", b"1e3")
                    + res(13, handle, b"end\0"),
                )

    def test_a_background_job_s_client_hears_nothing(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        for name, number in BACKGROUND.items():
            with self.subTest(name):
                handle = client.ask(req(number, b"f", b"", b"x"))[12:]
                worker.ask(req(9))
                worker.say(req(28, handle, b"d"), req(29, handle, b"w"), req(12, handle, b"1", b"2"))
                self.assertEqual(worker.ask(req(13, handle, b"result")), b"")
                self.assertEqual(client.heard(), b"")

    def test_a_long_unique_is_refused_and_the_next_job_is_not(self) -> None:
        peer = self.peer()
        self.assertEqual(
            peer.ask(req(7, b"f", b"u" * 65, b""), req(7, b"f", b"u" * 64, b"")),
            error(b"ARGUMENT_TOO_LARGE", b"Unique value too large") + res(8, H1),
        )

    def test_a_long_function_name_is_refused(self) -> None:
        peer = self.peer()
        self.assertEqual(
            peer.ask(req(18, b"f" * 513, b"", b""), req(18, b"f" * 512, b"", b"")),
            error(b"ARGUMENT_TOO_LARGE", b"Function name too large") + res(8, H1),
        )

    def test_a_full_queue(self) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(b"maxqueue f 1\n"), b"OK\r\n")
        self.assertEqual(
            peer.ask(req(18, b"f", b"", b""), req(18, b"f", b"", b"")),
            res(8, H1) + error(b"QUEUE_ERROR", b"Job queue is full"),
        )

    def test_two_clients_of_one_unique_share_a_job(self) -> None:
        one, two, worker = self.peer(), self.peer(), self.worker(b"f")
        self.assertEqual(one.ask(req(7, b"f", b"u", b"first")), res(8, H1))
        self.assertEqual(two.ask(req(7, b"f", b"u", b"second")), res(8, H1))
        self.assertEqual(worker.ask(req(30)), res(31, H1, b"f", b"u", b"first"))
        worker.ask(req(13, H1, b"both"))
        self.assertEqual(one.heard(), res(13, H1, b"both"))
        self.assertEqual(two.heard(), res(13, H1, b"both"))


class EpochTest(ServerTestCase):
    """SUBMIT_JOB_EPOCH; the wall clock of the server in memory begins at 0."""

    def test_a_job_waits_for_its_time(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        self.assertEqual(client.ask(req(36, b"f", b"", b"100", b"x")), res(8, H1))
        self.assertEqual(worker.ask(req(9), req(4)), res(10))
        self.assertEqual(client.ask(req(15, H1)), res(20, H1, b"1", b"0", b"0", b"0"))
        self.gearman.turn(99)
        self.assertEqual(worker.heard(), b"")
        self.gearman.turn(1)
        self.assertEqual(worker.heard(), res(6))
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b"x"))

    def test_what_is_past_runs_now(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        for number, epoch in enumerate((b"0", b"-1", b"-99999"), 1):
            with self.subTest(epoch):
                handle = b"H:test:%d" % number
                self.assertEqual(client.ask(req(36, b"f", b"", epoch, b"x")), res(8, handle))
                self.assertEqual(worker.ask(req(9)), res(11, handle, b"f", b"x"))

    def test_what_is_no_number_is_refused(self) -> None:
        peer = self.peer()
        refused = error(b"INVALID_ARGUMENT", b"Epoch time is not a decimal number of at most 20 digits")
        for epoch in (b"abc", b"", b"-", b"--1", b"1.5", b" 1", b"1_0", b"+1", b"0x1", b"1" * 21):
            with self.subTest(epoch):
                self.assertEqual(peer.ask(req(36, b"f", b"", epoch, b"x")), refused)
        self.assertEqual(peer.ask(b"status\n"), b".\n")

    def test_the_last_possible_date_and_one_second_more(self) -> None:
        peer = self.peer()
        self.assertEqual(
            peer.ask(req(36, b"f", b"", b"253402300799", b"x"), req(36, b"f", b"", b"253402300800", b"x")),
            res(8, H1) + error(b"INVALID_ARGUMENT", b"Epoch time must not exceed 253402300799"),
        )

    def test_a_long_unique_is_refused(self) -> None:
        self.assertEqual(
            self.peer().ask(req(36, b"f", b"u" * 65, b"1", b"x")),
            error(b"ARGUMENT_TOO_LARGE", b"Unique value too large"),
        )


class ReduceTest(ServerTestCase):
    """SUBMIT_REDUCE_JOB and its background duplicate."""

    def test_the_worker_is_told_the_reducer(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        for count, number in enumerate((37, 38), 1):
            with self.subTest(number):
                handle = b"H:test:%d" % count
                self.assertEqual(client.ask(req(number, b"f", b"u", b"r", b"", b"a\0b")), res(8, handle))
                self.assertEqual(worker.ask(req(39)), res(40, handle, b"f", b"u", b"r", b"a\0b"))
                worker.ask(req(13, handle, b"done"))
                self.assertEqual(client.heard(), res(13, handle, b"done") if number == 37 else b"")

    def test_three_fields_are_refused_and_the_connection_stays(self) -> None:
        for name, number in ((b"SUBMIT_REDUCE_JOB", 37), (b"SUBMIT_REDUCE_JOB_BACKGROUND", 38)):
            with self.subTest(name):
                peer = self.peer()
                self.assertEqual(
                    peer.ask(req(number, b"f", b"u", b"r", b"data"), req(16, b"here")),
                    error(b"INVALID_PACKET", name + b" needs 5 fields, this has 4") + res(17, b"here"),
                )
                self.assertIsNone(peer.lost)

    def test_long_names_are_refused(self) -> None:
        peer = self.peer()
        self.assertEqual(
            peer.ask(req(37, b"f", b"u" * 65, b"r", b"", b""), req(37, b"f", b"u", b"r" * 513, b"", b"")),
            error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
            + error(b"ARGUMENT_TOO_LARGE", b"Reducer name too large"),
        )
        self.assertEqual(peer.ask(req(37, b"f", b"u", b"r" * 512, b"", b"")), res(8, H1))


class StatusTest(ServerTestCase):
    """GET_STATUS and GET_STATUS_UNIQUE."""

    def test_through_a_job_s_life(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        asks = req(15, H1), req(41, b"u")
        self.assertEqual(
            client.ask(*asks),
            res(20, H1, b"0", b"0", b"0", b"0") + res(42, b"u", b"0", b"0", b"0", b"0", b"0"),
        )
        client.ask(req(7, b"f", b"u", b"x"))
        self.assertEqual(
            client.ask(*asks),
            res(20, H1, b"1", b"0", b"0", b"0") + res(42, b"u", b"1", b"0", b"0", b"0", b"1"),
        )
        worker.ask(req(9))
        worker.ask(req(12, H1, b"3", b"12"))
        self.assertEqual(client.heard(), res(12, H1, b"3", b"12"))
        self.assertEqual(
            client.ask(*asks),
            res(20, H1, b"1", b"1", b"3", b"12") + res(42, b"u", b"1", b"1", b"3", b"12", b"1"),
        )
        worker.ask(req(13, H1, b""))
        client.heard()
        self.assertEqual(
            client.ask(*asks),
            res(20, H1, b"0", b"0", b"0", b"0") + res(42, b"u", b"0", b"0", b"0", b"0", b"0"),
        )

    def test_clients_are_counted(self) -> None:
        one, two = self.peer(), self.peer()
        one.ask(req(18, b"f", b"u", b"x"))
        self.assertEqual(two.ask(req(41, b"u")), res(42, b"u", b"1", b"0", b"0", b"0", b"0"))
        two.ask(req(7, b"f", b"u", b"x"))
        self.assertEqual(one.ask(req(41, b"u")), res(42, b"u", b"1", b"0", b"0", b"0", b"1"))

    def test_a_nul_behind_the_handle_is_forgiven(self) -> None:
        peer = self.peer()
        peer.ask(req(18, b"f", b"", b"x"))
        self.assertEqual(peer.ask(req(15, H1, b"")), res(20, H1, b"1", b"0", b"0", b"0"))

    def test_names_at_the_limit_and_one_past_it(self) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(req(15, b"h" * 63)), res(20, b"h" * 63, b"0", b"0", b"0", b"0"))
        self.assertEqual(peer.ask(req(15, b"h" * 64)), error(b"ARGUMENT_TOO_LARGE", b"Job handle too large"))
        self.assertEqual(peer.ask(req(41, b"u" * 64)), res(42, b"u" * 64, *[b"0"] * 5))
        self.assertEqual(
            peer.ask(req(41, b"u" * 65)), error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
        )


class ConnectionTest(ServerTestCase):
    """What any connection may say."""

    def test_echo(self) -> None:
        peer = self.peer()
        for data in (b"", b"x", b"a\0b\n\0", bytes(range(256)) * 300):
            self.assertEqual(peer.ask(req(16, data)), res(17, data))

    def test_the_option_exceptions_in_any_spelling(self) -> None:
        for option in (b"exceptions", b"EXCEPTIONS", b"Exceptions"):
            with self.subTest(option):
                self.assertEqual(self.peer().ask(req(26, option)), res(27, option))

    def test_other_options_are_refused(self) -> None:
        peer = self.peer()
        refused = error(b"UNKNOWN_OPTION", b"Server does not recognize given option")
        for option in (b"", b"exception", b"exceptions ", b"x" * 64):
            with self.subTest(option):
                self.assertEqual(peer.ask(req(26, option)), refused)
        self.assertIsNone(peer.lost)

    def test_an_exception_for_those_who_asked_and_a_failure_for_the_others(self) -> None:
        asked, other, worker = self.peer(), self.peer(), self.worker(b"f")
        asked.ask(req(26, b"exceptions"))
        for client in (asked, other):
            client.ask(req(7, b"f", b"u", b"x"))
        worker.ask(req(9))
        self.assertEqual(worker.ask(req(25, H1, b"oh\0no")), b"")
        self.assertEqual(asked.heard(), res(25, H1, b"oh\0no"))
        # Without the NUL that gearmand puts behind the handle.
        self.assertEqual(other.heard(), res(14, H1))

    def test_exceptions_for_all_by_the_server_s_setting(self) -> None:
        self.gearman = self.serve(exceptions=True)
        client, worker = self.peer(), self.worker(b"f")
        client.ask(req(7, b"f", b"u", b"x"))
        worker.ask(req(9))
        worker.ask(req(25, H1, b"oh"))
        self.assertEqual(client.heard(), res(25, H1, b"oh"))

    def test_a_client_id_is_cut(self) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(req(22, b"i" * 128)), b"")
        self.assertEqual(peer.ask(b"workers\n"), b"1 127.0.0.1 %b :\n.\n" % (b"i" * 127))

    def test_a_client_that_leaves_takes_its_waiting_job_along(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        client.ask(req(7, b"f", b"", b"x"))
        client.hang_up()
        self.assertEqual(worker.ask(req(9), b"status\n"), res(10) + b"f\t0\t0\t1\n.\n")

    def test_the_job_of_a_client_that_left_ends_quietly(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        client.ask(req(7, b"f", b"", b"x"))
        worker.ask(req(9))
        client.hang_up()
        self.assertEqual(worker.ask(req(28, H1, b"d"), req(13, H1, b"r")), b"")


class UnexpectedTest(ServerTestCase):
    """Packets that are none of a client's or worker's."""

    def test_packets_that_no_client_sends(self) -> None:
        peer = self.peer()
        fields = {8: 1, 11: 3, 17: 1, 19: 2, 20: 5, 27: 1, 31: 4, 40: 5, 42: 6}
        for number in (5, 6, 8, 10, 11, 17, 19, 20, 24, 27, 31, 40, 42):
            with self.subTest(number):
                self.assertEqual(
                    peer.ask(req(number, *[b"x"] * fields.get(number, 0))),
                    error(b"INVALID_COMMAND", b"Command not expected"),
                )
        self.assertEqual(peer.ask(req(16, b"here")), res(17, b"here"))

    def test_types_that_do_not_exist(self) -> None:
        peer = self.peer()
        for number in (0, 43, 99, 0xFFFFFFFF):
            with self.subTest(number):
                self.assertEqual(
                    peer.ask(req(number, b"body")),
                    error(b"INVALID_COMMAND", b"Unknown packet type %d" % number),
                )
        self.assertIsNone(peer.lost)

    def test_a_response_instead_of_a_request(self) -> None:
        peer = self.peer()
        self.assertEqual(
            peer.ask(res(16, b"x"), req(16, b"y")),
            error(b"INVALID_MAGIC", b"Request magic expected") + res(17, b"y"),
        )

    def test_too_few_fields(self) -> None:
        peer = self.peer()
        self.assertEqual(
            peer.ask(req(7, b"f", b"u"), req(16, b"y")),
            error(b"INVALID_PACKET", b"SUBMIT_JOB needs 3 fields, this has 2") + res(17, b"y"),
        )

    def test_a_nul_in_a_name(self) -> None:
        peer = self.peer()
        self.assertEqual(
            peer.ask(req(1, b"f\0g")), error(b"INVALID_PACKET", b"CAN_DO has a NUL in its last field")
        )

    def test_a_payload_where_there_is_none_is_ignored(self) -> None:
        self.assertEqual(self.peer().ask(req(9, b"junk")), res(10))
