"""Recurring jobs in a browser: looked at, added, changed, run, paused, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, txgearmand
from tests.support import free_port, on_reactor
from tests.web.browser import PHONE, Page, needs_browser
from tests.web.test_browser import in_browser
from txgearman import Worker

CONFIG = """
[schedules.poll]
function = "poll"
every = 1
overlap = "queue"

[schedules."<b>nightly</b>"]
function = "report"
cron = "30 3 * * mon-fri"
timezone = "Pacific/Apia"
"""

ROW = "[...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes(arguments[0]))"


@asynccontextmanager
async def ticking(*options: str) -> AsyncIterator[str]:
    """A server with two schedules, of which one ticks each second, and a worker; its address."""
    from twisted.internet import reactor

    port = free_port()
    with TemporaryDirectory() as folder:
        file = Path(folder, "gearmand.toml")
        file.write_text(CONFIG, encoding="utf-8")
        async with txgearmand(f"--web={port}", f"--config={file}", *options) as server:
            worker = Worker(reactor, f"tcp:{HOST}:{server.port}", drain=0.01)
            worker.register("poll", lambda job: b"")
            await worker.start()
            try:
                yield f"http://{HOST}:{port}"
            finally:
                await worker.stop()


@needs_browser
class ScheduleTests(TestCase):
    @on_reactor
    async def test_from_looking_to_removing(self) -> None:
        async with ticking("--allow-unsaved-schedules") as address:
            await in_browser(address, self.use)

    def use(self, page: Page) -> None:
        page.open("/schedules")
        page.shows("2 in all")
        # Names are text, and the last job tells what became of it.
        page.shows("<b>nightly</b>")
        page.until("the last job is told", f"{ROW}?.innerText.includes('completed')", "poll")
        page.until("so is its time", f"/took [0-9.]+ s/.test({ROW}?.innerText)", "poll")
        shown = page.script(f"return {ROW}.innerText", "nightly")
        self.assertIn("Pacific/Apia", shown)
        self.assertIn("03:30:00 Pacific/Apia", shown, "its next tick by its own clock")
        self.assertNotIn("Remove", shown, "it is of the file")
        self.add(page)
        self.change(page)
        self.press(page, "Run")
        page.click("Run now", "dialog")
        page.shows("Submitted H:")
        self.press(page, "Pause")
        page.click("Pause", "dialog")
        page.until("it is paused", f"{ROW}?.innerText.includes('paused')", "mine")
        self.press(page, "Resume")
        page.click("Resume", "dialog")
        page.until("it goes on", f"{ROW}?.innerText.includes('paused') === false", "mine")
        self.press(page, "Remove")
        page.click("Remove", "dialog")
        page.shows("2 in all")

    def press(self, page: Page, what: str) -> None:
        """Press a button of the schedule that was added."""
        button = f"{ROW}?.querySelector('[aria-label^={what}]')"
        page.script("arguments[0].click()", page.until(f"there is {what}", button, "mine"))

    def add(self, page: Page) -> None:
        """The next ten ticks are shown before anything is saved."""
        page.click("Add a schedule")
        page.type("dialog [name=name]", "mine")
        page.type("dialog [name=function]", "greet")
        page.type("dialog [name=cron]", "0 12 31 2 *")
        page.shows("day of month")
        page.type("dialog [name=cron]", "0 12 * * *")
        page.type("dialog [name=timezone]", "Asia/Tokyo")
        page.until("ten ticks are shown", "document.querySelectorAll('dialog .ticks li').length === 10")
        page.shows("12:00:00 Asia/Tokyo")
        page.type("dialog [name=data]", "hello")
        page.shows("2 in all")
        page.click("Add", "dialog")
        page.shows("3 in all")

    def change(self, page: Page) -> None:
        self.press(page, "Change")
        page.until(
            "it is shown as it is", "document.querySelector('dialog[open] [name=data]')?.value === 'hello'"
        )
        page.type("dialog [name=cron]", "")
        page.type("dialog [name=every]", "2h")
        page.until("ten ticks are shown", "document.querySelectorAll('dialog .ticks li').length === 10")
        page.click("Save", "dialog")
        page.until("it is changed", f"{ROW}?.innerText.includes('every 2 h')", "mine")

    @on_reactor
    async def test_read_only_and_on_a_telephone(self) -> None:
        async with ticking("--web-read-only") as address:
            await in_browser(address, self.look, size=PHONE)

    def look(self, page: Page) -> None:
        page.open("/schedules")
        page.shows("2 in all")
        page.shows("Read-only")
        page.shows_not("Run now")
        page.shows_not("Add a schedule")
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        self.assertEqual(page.script(wide), 0)
