"""Failed jobs in a browser: dead ones, those that wait for a retry, and a job's way with all its runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, txgearmand
from tests.support import free_port, on_reactor
from tests.web.browser import PHONE, Page, needs_browser
from tests.web.test_browser import in_browser
from txgearman import Client, Worker
from txgearman.errors import FailJob
from txgearman.worker import Job

EVIL = "<b>no</b> \u202e and so on"
ERROR = f"Refused: {EVIL}\n  File 'mail.py', line 7\n    send()\n  File 'smtp.py', line 99"

CONFIG = """
[functions.mail]
attempts = 2
backoff = 0.01
jitter = 0

[functions.slow]
attempts = 3
backoff = 3600
jitter = 0
"""

HEADS = "[...document.querySelectorAll('tbody tr')].map((row) => row.querySelector('a.mono').innerText)"


class Failing:
    """A server whose worker fails: `mail` twice, by which it is dead, `slow` once, `odd/name` at once."""

    def __init__(self, port: int, address: str) -> None:
        from twisted.internet import reactor

        endpoint = f"tcp:{HOST}:{port}"
        self.address = address
        self.client = Client(reactor, endpoint)
        self.worker = Worker(reactor, endpoint, client_id="a-worker.example", drain=0.01)
        self.mended = False

    async def fill(self) -> None:
        """Submit jobs. They fail soon."""
        for name in ("mail", "slow", "odd/name"):
            self.worker.register(name, self._fail)
        await self.worker.start()
        for number in range(3):
            data = b'{"to": "%d"}' % number
            await self.client.submit("mail", data, background=True, unique=f"mail-{number}", expires=90)
        for number in range(2):
            await self.client.submit("slow", b"%d" % number, background=True)
        await self.client.submit("odd/name", b"", background=True)

    def _fail(self, job: Job) -> Deferred[bytes] | bytes:
        if self.mended:
            return b"sent"
        job.send_warning(b"it looks bad")
        raise FailJob("refused", data=ERROR.encode())

    async def close(self) -> None:
        await self.client.close()
        await self.worker.stop()


@asynccontextmanager
async def failing() -> AsyncIterator[Failing]:
    port = free_port()
    with TemporaryDirectory() as folder:
        file = Path(folder, "gearmand.toml")
        file.write_text(CONFIG, encoding="utf-8")
        async with txgearmand(f"--web={port}", f"--config={file}") as server:
            its = Failing(server.port, f"http://{HOST}:{port}")
            await its.fill()
            try:
                yield its
            finally:
                await its.close()


@needs_browser
class FailedJobsTests(TestCase):
    @on_reactor
    async def test_looking_at_dead_jobs(self) -> None:
        async with failing() as its:
            await in_browser(its.address, self.look_at_dead)

    def look_at_dead(self, page: Page) -> None:
        page.open("/")
        page.until(
            "the overview counts the dead",
            "[...document.querySelectorAll('a.tile strong')].map((each) => each.innerText).join() === '2,4'",
        )
        page.script("document.querySelector('a.tile[href=\"#/dead\"]').click()")
        page.shows("4 in all")
        page.until("all are listed", "document.querySelectorAll('tbody tr').length === 4")
        # What a worker says is text, and keeps its lines.
        page.script("document.querySelector('details.error summary').click()")
        page.until(
            "the error has its lines",
            "document.querySelector('details[open] pre').innerText.includes(arguments[0])",
            ERROR,
        )
        page.type(".title input[type=search]", "mail-1")
        page.until("one is found", "document.querySelectorAll('tbody tr').length === 1")
        page.type(".title input[type=search]", "so on")
        page.until("an error is found", "document.querySelectorAll('tbody tr').length === 4")
        # A function's page leads to its own.
        page.open("/functions/odd%2Fname")
        page.until("it has a dead one", "document.querySelector('.fact a')?.innerText === '1'")
        page.script("document.querySelector('.fact a').click()")
        page.until("only that is listed", "document.querySelectorAll('tbody tr').length === 1")
        self.assertEqual(page.script("return document.querySelector('select').value"), "=odd%2Fname")
        self.assertEqual(page.script("return document.querySelector('td .name').innerText"), "odd/name")

    @on_reactor
    async def test_retrying_and_deleting_dead_jobs(self) -> None:
        async with failing() as its:

            def act(page: Page) -> None:
                self.handle_dead(page, its)

            await in_browser(its.address, act)

    def handle_dead(self, page: Page, its: Failing) -> None:
        def listed(number: int) -> list[str]:
            page.until(f"{number} are listed", f"document.querySelectorAll('tbody tr').length === {number}")
            return list(page.script(f"return {HEADS}"))

        page.open("/dead/mail")
        handles = listed(3)
        its.mended = True
        # One.
        page.until("it can be retried", "document.querySelector('td .act')?.checkVisibility()")
        page.script("document.querySelector('td .act').click()")
        page.click("Back", "dialog")
        self.assertEqual(listed(3), handles)
        page.script("document.querySelector('td .act').click()")
        page.click("Retry", "dialog")
        self.assertEqual(listed(2), handles[1:])
        # Those that are selected.
        page.script("document.querySelector('.bulk input').click()")
        page.shows("2 selected")
        page.script("document.querySelector('td.pick input').click()")
        page.shows("1 selected")
        page.click("Delete selected")
        page.click("Delete", "dialog")
        self.assertEqual(listed(1), handles[1:2])
        # All that are found, of a function.
        page.click("Retry all found")
        page.type("dialog input[name=per_second]", "50")
        page.click("Retry all found", "dialog")
        page.shows("1 retried")
        page.shows("No dead jobs here.")
        # All that a search finds, even if it was typed just now.
        page.open("/dead")
        listed(1)
        page.type(".title input[type=search]", "nothing like this")
        page.script("[...document.querySelectorAll('.bulk button')].at(-1).click()")
        page.shows("all jobs that “nothing like this” is found in")
        page.click("Delete all found", "dialog")
        page.shows("0 deleted")
        page.type(".title input[type=search]", "odd")
        listed(1)
        page.click("Delete all found")
        page.click("Delete all found", "dialog")
        page.shows("No dead jobs here.")
        page.shows("0 in all")

    @on_reactor
    async def test_jobs_that_wait_for_a_retry(self) -> None:
        async with failing() as its:

            def act(page: Page) -> None:
                self.handle_retrying(page, its)

            await in_browser(its.address, act)

    def handle_retrying(self, page: Page, its: Failing) -> None:
        page.open("/functions")
        page.until(
            "their number leads to them", "document.querySelector('td a[href*=retrying]')?.click() || true"
        )
        page.shows("in 59 m")
        page.until("both are listed", "document.querySelectorAll('tbody tr').length === 2")
        page.open("/retrying")
        page.until("both are here", "document.querySelectorAll('tbody tr').length === 2")
        page.shows("in 59 m")
        page.click("Cancel", "tbody tr:last-child")
        page.click("Cancel it", "dialog")
        page.until("one is left", "document.querySelectorAll('tbody tr').length === 1")
        page.script("document.querySelector('td a.mono').click()")
        page.shows("Run 2")
        page.shows("at ")
        page.click("Retry now")
        page.click("Retry now", "dialog")
        # It fails once more.
        page.shows("Run 3")
        its.mended = True
        page.click("Retry now")
        page.click("Retry now", "dialog")
        page.shows("completed")
        runs = page.until(
            "all runs are shown",
            "document.querySelector('.way .at')?.innerText.toLowerCase() === 'completed' && "
            "[...document.querySelectorAll('.run')].map((each) => "
            "[...each.children].slice(0, 2).map((part) => part.innerText).join(' '))",
        )
        self.assertEqual(runs[:3], ["Run 1 failed", "Run 2 failed", "Run 3 completed"])

    @on_reactor
    async def test_a_dead_job(self) -> None:
        async with failing() as its:

            def act(page: Page) -> None:
                self.handle_one(page, its)

            await in_browser(its.address, act)

    def handle_one(self, page: Page, its: Failing) -> None:
        page.open("/dead/mail")
        handle = page.until("they are listed", f"{HEADS}[0]")
        page.open(f"/jobs/{handle}")
        page.shows("dead")
        page.shows("Run 2")
        page.shows("a-worker.example")
        page.shows('"to":')
        page.shows("after 1 m 30 s")
        self.assertIn(ERROR, page.script("return document.querySelector('.runs-list pre').innerText"))
        its.mended = True
        page.click("Retry")
        page.click("Retry", "dialog")
        page.shows("completed")
        page.shows_not("gone")
        page.open("/dead/mail")
        page.until("two are left", "document.querySelectorAll('tbody tr').length === 2")
        page.script("document.querySelector('td a.mono').click()")
        page.click("Delete")
        page.click("Delete", "dialog")
        page.until(
            "it cannot be retried any more",
            "![...document.querySelectorAll('.act')].some((each) => each.checkVisibility())",
        )

    @on_reactor
    async def test_on_a_telephone_in_the_dark(self) -> None:
        async with failing() as its:
            await in_browser(its.address, self.hold_in_hand, size=PHONE, dark=True)

    def hold_in_hand(self, page: Page) -> None:
        for place, shown in (
            ("/dead", "4 in all"),
            ("/retrying", "in 59 m"),
            ("/functions/slow?state=retrying", "in 59 m"),
        ):
            page.open(place)
            page.shows("Live")
            page.shows(shown)
            wide = page.script("return document.documentElement.scrollWidth - window.innerWidth")
            self.assertLessEqual(wide, 0, place)
        nameless = page.script(
            "return [...document.querySelectorAll('button, a, input')].filter((e) => e.checkVisibility() && "
            "!(e.innerText || e.getAttribute('aria-label') || e.labels?.[0]?.innerText || '').trim())"
            ".map((e) => e.outerHTML)"
        )
        self.assertEqual(nameless, [])
