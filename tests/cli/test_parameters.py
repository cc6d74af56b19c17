"""What people write on the command line, as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.effort import EFFORT
from txgearman.cli.parameters import duration_seconds, endpoint_string, point_in_time

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


class ServerTest(SynchronousTestCase):
    def test_every_way_to_name_a_server(self) -> None:
        for text, endpoint in [
            ("localhost", "tcp:localhost:4730"),
            ("localhost:4731", "tcp:localhost:4731"),
            (" 10.0.0.1:04731 ", "tcp:10.0.0.1:4731"),
            ("::1", r"tcp:\:\:1:4730"),
            ("[::1]", r"tcp:\:\:1:4730"),
            ("[fe80::1]:80", r"tcp:fe80\:\:1:80"),
            ("tcp:example.org:4730:timeout=3", "tcp:example.org:4730:timeout=3"),
            ("unix:/run/gearmand.sock", "unix:/run/gearmand.sock"),
            ("tls:example.org:4730", "tls:example.org:4730"),
            ("onion:abc.onion:4730", "onion:abc.onion:4730"),
        ]:
            self.assertEqual(endpoint_string(text), endpoint)

    def test_what_is_no_server(self) -> None:
        for text in ("", "  ", "localhost:0", "localhost:65536", "localhost:http", ":4730", "[x]:1", "host:"):
            with self.assertRaises(ValueError, msg=text):
                endpoint_string(text)

    @EFFORT
    @given(st.text())
    def test_any_text_is_an_address_or_refused(self, text: str) -> None:
        try:
            self.assertIn(":", endpoint_string(text))
        except ValueError as error:
            self.assertTrue(str(error))


class DurationTest(SynchronousTestCase):
    def test_every_form(self) -> None:
        for text, value in [
            ("90", 90),
            ("1.5", 1.5),
            ("90s", 90),
            ("1h30m", 5400),
            ("200ms", 0.2),
            ("2d", 172800),
        ]:
            self.assertAlmostEqual(duration_seconds(text), value)

    def test_what_is_none(self) -> None:
        for text in ("", "x", "5x", "-1", "nan", "inf", "1e300", "5 m", "m", "99999999d"):
            with self.assertRaises(ValueError, msg=text):
                duration_seconds(text)


class MomentTest(SynchronousTestCase):
    def test_from_now(self) -> None:
        self.assertEqual(point_in_time("+5m", NOW), NOW + timedelta(minutes=5))
        self.assertEqual(point_in_time("+90", NOW), NOW + timedelta(seconds=90))

    def test_iso(self) -> None:
        self.assertEqual(point_in_time("2030-12-24T18:00+01:00", NOW), datetime(2030, 12, 24, 17, tzinfo=UTC))
        self.assertEqual(point_in_time("2030-12-24T18:00Z", NOW), datetime(2030, 12, 24, 18, tzinfo=UTC))

    def test_without_a_zone_it_is_this_machine_s(self) -> None:
        moment = point_in_time("2030-12-24T18:00", NOW)
        self.assertIsNotNone(moment.tzinfo)
        self.assertEqual(moment.replace(tzinfo=None), datetime(2030, 12, 24, 18))

    def test_what_is_none(self) -> None:
        for text in ("", "soon", "+", "+-5m", "2030-13-01", "+5y"):
            with self.assertRaises(ValueError, msg=text):
                point_in_time(text, NOW)
