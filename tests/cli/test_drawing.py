"""Tables, the picture of top and the progress bar, drawn on consoles that record it."""

from __future__ import annotations

import io
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.effort import EFFORT
from txgearman.cli.progress_bar import ProgressBar
from txgearman.cli.tables import duration_text, print_table
from txgearman.cli.top_view import SORT_ORDERS, ServerState, render
from txgearman.cli.trend import HISTORY_LENGTH, RATE_SECONDS, FunctionCounts, FunctionRow, Trend

BY_NAME = SORT_ORDERS[-1]


def console(width: int = 80, height: int = 24, terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        color_system=None,
        legacy_windows=False,
        _environ={},
    )


def written(on: Console) -> str:
    file = on.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


class TableTest(SynchronousTestCase):
    ROWS = [["resize", 12345, None, True], ["a\x1b[2J", 1, 2, False]]
    SHOWN = [
        "Function  Queued  Running  Local",
        "resize     12345        -  yes",
        r"a\x1b[2J       1        2  no",
    ]
    COLUMNS = ["Function", "Queued", "Running", "Local"]

    def test_the_same_in_a_terminal_and_a_pipe(self) -> None:
        for terminal in (True, False):
            on = console(terminal=terminal)
            print_table(self.COLUMNS, self.ROWS, on)
            self.assertEqual(lines(written(on)), self.SHOWN)

    def test_a_pipe_cuts_nothing_off(self) -> None:
        on = console(width=20, terminal=False)
        print_table(["Name"], [["x" * 200]], on)
        self.assertEqual(lines(written(on)), ["Name", "x" * 200])

    def test_names_are_not_markup(self) -> None:
        for terminal in (True, False):
            on = console(terminal=terminal)
            print_table(["Name"], [["[red]x[/red]"]], on)
            self.assertEqual(lines(written(on)), ["Name", "[red]x[/red]"])

    def test_no_rows(self) -> None:
        for terminal in (True, False):
            on = console(terminal=terminal)
            print_table(["One", "Two"], [], on)
            self.assertEqual(written(on).split(), ["One", "Two"])


class DurationTest(SynchronousTestCase):
    def test_the_two_largest_units(self) -> None:
        for seconds, shown in (
            (0, "0s"),
            (0.9, "0s"),
            (59.9, "59s"),
            (60, "1m"),
            (200, "3m 20s"),
            (3600, "1h"),
            (7199, "1h 59m"),
            (86400, "1d"),
            (86400 + 3599, "1d"),
            (400 * 86400 + 7200, "400d 2h"),
        ):
            self.assertEqual(duration_text(seconds), shown)


class TrendTest(SynchronousTestCase):
    def newest(self, trend: Trend) -> FunctionRow:
        (line,) = trend.rows(BY_NAME.key)
        return line

    def test_a_rate_needs_two_looks(self) -> None:
        trend = Trend()
        trend.add(0, [FunctionCounts("f", 5, 0, 1)])
        self.assertEqual(self.newest(trend), FunctionRow("f", 5, 0, 1, None, None, (5,)))
        trend.add(2, [FunctionCounts("f", 8, 3, 1)])
        self.assertEqual(self.newest(trend), FunctionRow("f", 8, 3, 1, None, 3.0, (5, 8)))

    def test_the_rate_is_of_the_last_seconds(self) -> None:
        trend = Trend()
        for second in range(100):
            trend.add(second, [FunctionCounts("f", 1000 - 10 * second if second < 50 else 500, 0, 1)])
        self.assertEqual(self.newest(trend).growth, 0)
        trend.add(100, [FunctionCounts("f", 600, 0, 1)])
        self.assertEqual(self.newest(trend).growth, 100 / RATE_SECONDS)

    def test_how_many_jobs_end_in_a_second(self) -> None:
        trend = Trend()
        for second in range(30):
            trend.add(
                second, [FunctionCounts("f", 7, 0, 1, 4 * second), FunctionCounts("f", 0, 0, 1, second)]
            )
        self.assertEqual((self.newest(trend).ended_rate, self.newest(trend).growth), (5, 0))
        # A server that began anew counts from 0.
        trend.add(30, [FunctionCounts("f", 7, 0, 1, 0), FunctionCounts("f", 0, 0, 1, 30)])
        self.assertIsNone(self.newest(trend).ended_rate)
        for second in range(31, 45):
            trend.add(second, [FunctionCounts("f", 7, 0, 1, second), FunctionCounts("f", 0, 0, 1, 30)])
        self.assertEqual(self.newest(trend).ended_rate, 1)

    def test_a_server_that_does_not_count_ended_jobs(self) -> None:
        trend = Trend()
        for second in range(3):
            trend.add(second, [FunctionCounts("f", 7, 0, 1, second), FunctionCounts("f", 1, 0, 1)])
        self.assertIsNone(self.newest(trend).ended_rate)
        self.assertEqual(self.newest(trend).growth, 0)

    def test_servers_are_added_up(self) -> None:
        trend = Trend()
        trend.add(0, [FunctionCounts("f", 1, 2, 3), FunctionCounts("f", 10, 20, 30)])
        self.assertEqual(self.newest(trend), FunctionRow("f", 11, 22, 33, None, None, (11,)))

    def test_what_is_gone_is_forgotten(self) -> None:
        trend = Trend()
        trend.add(0, [FunctionCounts("f", 7, 0, 0)])
        trend.add(1, [])
        self.assertEqual(trend.rows(BY_NAME.key), [])
        trend.add(2, [FunctionCounts("f", 1, 0, 0)])
        self.assertEqual(self.newest(trend).history, (1,))

    def test_a_look_at_the_same_time_gives_no_rate(self) -> None:
        trend = Trend()
        trend.add(1, [FunctionCounts("f", 1, 0, 0)])
        trend.add(1, [FunctionCounts("f", 2, 0, 0)])
        self.assertIsNone(self.newest(trend).growth)

    @EFFORT
    @given(st.lists(st.integers(0, 1000), min_size=1, max_size=60))
    def test_little_is_kept(self, queued: list[int]) -> None:
        trend = Trend()
        for second, number in enumerate(queued):
            trend.add(second, [FunctionCounts("f", number, 0, 0)])
        self.assertEqual(self.newest(trend).history, tuple(queued[-HISTORY_LENGTH:]))
        self.assertLessEqual(len(trend._functions["f"].samples), RATE_SECONDS + 2)


class TopViewTest(SynchronousTestCase):
    LINES = [
        FunctionRow("resize", 120, 4, 2, 12.34, 3.04, (0, 60, 120)),
        FunctionRow("mail", 0, 1, 8, 1250.4, -250.0, (9, 3, 0)),
        FunctionRow("[b]odd\x1b[0m", 1, 0, 0, None, None, (1,)),
    ]
    SERVERS = [ServerState("tcp:a:4730", "1.1.20"), ServerState("tcp:b:4730", "", "no connection")]

    def drawn(self, width: int = 82, height: int = 24, plain: bool = False, lines_: Any = None) -> list[str]:
        on = console(width, height)
        shown = self.LINES if lines_ is None else lines_
        on.print(render(self.SERVERS, shown, SORT_ORDERS[0], "12:00:00", (width, height), plain))
        return lines(written(on))

    def test_the_picture(self) -> None:
        self.assertEqual(
            self.drawn(),
            [
                "tcp:a:4730  1.1.20",
                "tcp:b:4730  no connection",
                "12:00:00   3 functions   121 queued   5 running",
                "",
                "Function         Queued  Running  Workers  Ended/s  Growth/s  Queue",
                "resize              120        4        2     12.3      +3.0  ▁▄█",
                "mail                  0        1        8     1250      -250  █▃▁",
                r"[b]odd\x1b[0m         1        0        0        -         -  █",
                "q quit   s sort (by queued)",
            ],
        )

    def test_without_unicode(self) -> None:
        drawn = self.drawn(plain=True)
        self.assertTrue(drawn[5].endswith("  _=@"), drawn)
        self.assertTrue("".join(drawn).isascii())

    def test_more_functions_than_lines(self) -> None:
        many = [FunctionRow(f"f{number}", 1, 0, 0, None, None, (1,)) for number in range(100)]
        drawn = self.drawn(height=20, lines_=many)
        self.assertLessEqual(len(drawn), 20)
        shown = sum(line.startswith("f") for line in drawn)
        self.assertGreater(shown, 10)
        self.assertIn(f"{100 - shown} more functions", drawn[-1])

    def test_a_tiny_terminal(self) -> None:
        self.assertTrue(self.drawn(width=40, height=4)[5].startswith("res"))

    def test_the_orders(self) -> None:
        trend = Trend()
        trend.add(
            0,
            [
                FunctionCounts("a", 1, 2, 3, 0),
                FunctionCounts("b", 3, 1, 2, 0),
                FunctionCounts("c", 2, 3, 1, 0),
            ],
        )
        trend.add(
            1,
            [
                FunctionCounts("a", 1, 2, 3, 5),
                FunctionCounts("b", 3, 1, 9, 7),
                FunctionCounts("c", 1, 0, 1, 6),
            ],
        )
        found = {
            order.name: "".join(line.function for line in trend.rows(order.key)) for order in SORT_ORDERS
        }
        self.assertEqual(
            found,
            {
                "queued": "bac",
                "running": "abc",
                "workers": "bac",
                "ended": "bca",
                "growth": "cab",
                "function": "abc",
            },
        )


class Terminal(io.TextIOWrapper):
    """Standard output in memory, that says it is a terminal if that is asked for."""

    def __init__(self, terminal: bool) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class ProgressBarTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def output(self, terminal: bool) -> io.BytesIO:
        out = Terminal(terminal)
        self.patch(sys, "stdout", out)
        buffer = out.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer

    def test_it_shows_how_far_it_is(self) -> None:
        self.output(terminal=False)
        on = console()
        with ProgressBar(self.clock, "resize", on) as bar:
            self.assertEqual(written(on), "")
            bar.set(1, 4)
            self.clock.advance(1)
            bar.set(3, 4, "1 failed")
            self.clock.advance(1)
        self.assertIn(" 25%", written(on))
        self.assertIn(" 75%", written(on))
        self.assertIn("1 failed", written(on))
        self.assertIn("resize", written(on))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # It is wiped out at the end, and the cursor is there again.
        self.assertTrue(written(on).endswith("\x1b[2K"), written(on)[-40:])

    def test_there_is_none_where_standard_error_is_no_terminal(self) -> None:
        output = self.output(terminal=True)
        on = console(terminal=False)
        with ProgressBar(self.clock, "resize", on) as bar:
            bar.set(1, 4)
            bar.write(b"data\n")
            self.clock.advance(1)
        self.assertEqual((written(on), output.getvalue()), ("", b"data\n"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_is_not_drawn_into_a_line_of_output_that_has_begun(self) -> None:
        output = self.output(terminal=True)
        on = console()
        with ProgressBar(self.clock, "resize", on) as bar:
            bar.write(b"half ")
            bar.set(1, 4)
            self.clock.advance(1)
            self.assertEqual(written(on), "")
            bar.write(b"a line\n")
            self.clock.advance(1)
            self.assertIn(" 25%", written(on))
        self.assertEqual(output.getvalue(), b"half a line\n")

    def test_the_last_line_is_ended_on_a_terminal_alone(self) -> None:
        for terminal, parts, expected in (
            (True, [b"one\n", b"two"], b"one\ntwo\n"),
            (True, [b"one\n"], b"one\n"),
            (True, [], b""),
            (False, [b"one\n", b"two"], b"one\ntwo"),
        ):
            output = self.output(terminal)
            with ProgressBar(self.clock, "resize", console(terminal=False)) as bar:
                for part in parts:
                    bar.write(part)
            self.assertEqual(output.getvalue(), expected)

    def test_output_that_goes_elsewhere_does_not_touch_it(self) -> None:
        self.output(terminal=False)
        on = console()
        with ProgressBar(self.clock, "resize", on) as bar:
            bar.set(1, 4)
            before = written(on)
            bar.write(b"half")
            self.assertEqual(written(on), before)
            self.clock.advance(1)
            self.assertGreater(len(written(on)), len(before))
