"""Makes the pictures of the dashboard in these pages: ``python -m docs.screenshots [FOLDER [PAGE ...]]``.

It starts a server with a store, submits jobs, works on them for a while, and has a headless Chromium show
each page in light and dark colours, wide and on a telephone. With a FOLDER all of these are put there, or
those of each PAGE, to be looked at; without one those that the documents show are replaced.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.internet.threads import deferToThread

from tests.interop.programs import HOST, txgearmand
from tests.support import free_port
from tests.web.browser import PHONE, WIDE, Page, browser
from txgearman import Client, Priority, Worker
from txgearman.client import Admin
from txgearman.errors import FailJob

DOCS: Final = Path(__file__).parent

SECONDS: Final = 75.0
"""Seconds of work that the plots show."""

CONFIG: Final = """
history = 1000

[functions."mail.send"]
attempts = 1
pause-after = 500

[functions."invoice.render"]
attempts = 3
backoff = 600

[schedules."report.daily"]
function = "report.daily"
cron = "30 3 * * mon-fri"
timezone = "Europe/Berlin"

[schedules."cleanup"]
function = "storage.cleanup"
every = 900
"""

PAGES: Final = {
    "overview": "/",
    "functions": "/functions?sort=queued",
    "function": "/functions/image.resize",
    "dead": "/dead",
    "retrying": "/retrying",
    "schedules": "/schedules",
    "connections": "/connections",
    "activity": "/activity",
    "search": "/search?text=image",
    "unknown": "/nowhere",
}
"""The pages, by what their pictures are called. A job's page is added to them."""

SHOWN: Final = {
    "dashboard_overview.png": ("overview", WIDE, False),
    "dashboard_function.png": ("function", WIDE, True),
    "dashboard_dead.png": ("dead", WIDE, False),
    "dashboard_activity.png": ("activity", WIDE, False),
    "dashboard_phone.png": ("overview", PHONE, True),
}
"""The pictures that the documents show: page, size, whether in dark colours."""


class Site:
    """What goes on at a made-up site: some functions with workers, one without, and people who manage it."""

    def __init__(self, reactor: Any, port: int) -> None:
        self.reactor = reactor
        self.random = random.Random(7)
        endpoint = f"tcp:{HOST}:{port}"
        self.client = Client(reactor, endpoint)
        self.admin = Admin(reactor, endpoint)
        self.workers = [
            Worker(reactor, endpoint, client_id=f"worker-{number}.example", drain=0.01, concurrency=3)
            for number in (1, 2, 3)
        ]
        self.flow = LoopingCall(self._submit)

    async def open(self) -> None:
        for worker in self.workers:
            worker.register("image.resize", self._work)
            worker.register("search.index", self._work)
            worker.register("mail.send", self._send)
            worker.register("invoice.render", self._render)
            await worker.start()
        for number in range(120):
            await self.client.submit("video.transcode", b"x", background=True, unique=f"video-{number}")
        for number in range(14):
            when = self.reactor.seconds() + 3600 * (number + 1)
            await self.client.submit("newsletter", b"x", background=True, run_at=when)
        for _ in range(5):
            await self.client.submit("invoice.render", b'{"invoice": 4711}', background=True)
        for priority in Priority:
            for number in range(40):
                await self._image(number, priority)
        self.flow.start(0.1)

    async def _image(self, number: int, priority: Priority = Priority.NORMAL) -> None:
        data = json.dumps({"image": f"img/{number:05}.jpg", "width": 640}).encode()
        await self.client.submit("image.resize", data, background=True, priority=priority)

    async def _submit(self) -> None:
        for _ in range(self.random.randrange(1, 6)):
            await self._image(self.random.randrange(10**5))
        if self.random.random() < 0.5:
            await self.client.submit("search.index", b"page", background=True)
        if self.random.random() < 0.1:
            await self.client.submit("mail.send", b"To: somebody@example.org", background=True)

    def _work(self, job: Any) -> Deferred[bytes]:
        job.send_status(self.random.randrange(1, 9), 10)
        return deferLater(self.reactor, self.random.expovariate(4.0), lambda: b"done")

    def _send(self, _job: Any) -> bytes:
        if self.random.random() < 0.4:
            return b"sent"
        error = (
            b"ConnectionRefusedError: mail.example.org refused the connection\n  mail.py, line 12, in send"
        )
        raise FailJob("refused", data=error)

    def _render(self, _job: Any) -> bytes:
        raise FailJob("refused", data=b"TemplateNotFound: invoice-2027.html")

    async def manage(self) -> None:
        """What somebody does in the meantime."""
        await self.admin.set_max_queue("video.transcode", 500)
        await self.admin.pause_schedule("cleanup")
        await self.admin.retry_dead("mail.send")
        # They fail again.
        await deferLater(self.reactor, 3.0)

    async def close(self) -> None:
        self.flow.stop()
        for worker in self.workers:
            await worker.stop()
        await self.client.close()
        await self.admin.close()


@asynccontextmanager
async def site(reactor: Any) -> AsyncIterator[str]:
    """The address of the dashboard of a server that has worked for `SECONDS`."""
    port = free_port()
    with TemporaryDirectory() as folder:
        file = Path(folder, "gearmand.toml")
        file.write_text(CONFIG, encoding="utf-8")
        store = f"--store=sqlite:///{folder}/jobs.sqlite"
        async with txgearmand(f"--web={port}", f"--config={file}", store) as server:
            its = Site(reactor, server.port)
            await its.open()
            await deferLater(reactor, SECONDS)
            await its.manage()
            try:
                yield f"http://{HOST}:{port}"
            finally:
                await its.close()


def settle(page: Page, place: str) -> None:
    """Show a page, and wait until it is there."""
    page.open(place)
    page.until(
        "the page is there",
        "document.querySelector('main h1') && document.querySelector('.live[data-state=live]')",
    )
    page.until("rows are there", "!document.querySelector('.loading')")


def picture(page: Page, place: str, file: Path) -> None:
    settle(page, place)
    # Numbers of the first second come one after the other.
    page.until(
        "a moment has passed",
        "window.shownSince ? Date.now() - window.shownSince > 1500 : !(window.shownSince = Date.now())",
    )
    page.script("delete window.shownSince")
    page.chrome.save_screenshot(str(file))


def take_all(address: str, folder: Path, names: tuple[str, ...]) -> None:
    """These pages, or all without any, in every way: for whoever changes the dashboard."""
    for size, width in ((WIDE, "wide"), (PHONE, "phone")):
        for dark in (False, True):
            with browser(address, size, dark) as page:
                for name, place in with_a_job(page).items():
                    if names and name not in names:
                        continue
                    picture(page, place, folder / f"{name}-{width}-{'dark' if dark else 'light'}.png")


def take_shown(address: str) -> None:
    """Those that the documents show."""
    for file, (name, size, dark) in SHOWN.items():
        with browser(address, size, dark) as page:
            picture(page, PAGES[name], DOCS / file)


def with_a_job(page: Page) -> dict[str, str]:
    settle(page, "/dead")
    handle = page.script("return document.querySelector('td .mono').innerText")
    return {**PAGES, "job": f"/jobs/{handle}"}


async def main(reactor: Any, *arguments: str) -> None:
    async with site(reactor) as address:
        if arguments:
            folder = Path(arguments[0])
            folder.mkdir(parents=True, exist_ok=True)
            await deferToThread(take_all, address, folder, arguments[1:])
        else:
            await deferToThread(take_shown, address)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
