"""The dashboard in a browser, clicked through against a server with jobs and workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, Server, txgearmand
from tests.server.lines import close, connect
from tests.server.peers import req
from tests.support import free_port, on_reactor
from tests.web.browser import PHONE, Page, browser, needs_browser
from tests.web.names import NAMES
from txgearman import Client, Worker
from txgearman.worker import Job

MOVING = "a\u2069\u202eb".encode()
"""A function whose name turns round what is beside it, where it is not kept from that."""

ODD = b"<img src=x onerror=alert(1)>\xff/\xc3\xa4 odd"
TOKEN = "0123456789abcdef"


MOVED = """
const box = (node) => {
  const range = document.createRange();
  range.selectNode(node);
  return range.getBoundingClientRect();
};
return [...document.querySelectorAll("bdi")].filter((name) => {
  const here = box(name);
  const beside = (node) => {
    const there = node && box(node);
    const isBeside = there && there.width && there.bottom - 1 <= here.bottom && there.top + 1 >= here.top;
    return isBeside ? there : here;
  };
  return beside(name.previousSibling).left > here.left || beside(name.nextSibling).right < here.right;
}).map((name) => name.outerHTML)"""
"""The names with something at their right that comes ahead of them, or at their left what follows them."""


class Loaded:
    """A server with jobs in all states, its dashboard at `address`."""

    def __init__(self, server: Server, address: str) -> None:
        from twisted.internet import reactor

        self.address = address
        self.port = server.port
        endpoint = f"tcp:{HOST}:{server.port}"
        self.client = Client(reactor, endpoint)
        self.worker = Worker(reactor, endpoint, client_id="a-worker.example", drain=0.01)
        self.held: list[Job] = []

    async def fill(self) -> None:
        """Let a worker run a job that does not end, behind which others wait."""
        self.worker.register("render", self._hold)
        await self.worker.start()
        for number in range(120):
            data = json.dumps({"scene": number, "name": "<b>bold</b>"}).encode()
            await self.client.submit("render", data, background=True, unique=f"scene-{number}")
        await self.client.submit("mail", b"To: somebody", background=True)
        await self.client.submit(ODD, b"\x00\x01\xff", background=True)

    def _hold(self, job: Job) -> Deferred[bytes]:
        job.send_status(3, 4)
        self.held.append(job)
        return Deferred()

    async def close(self) -> None:
        await self.client.close()
        await self.worker.stop()


@asynccontextmanager
async def loaded(*options: str) -> AsyncIterator[Loaded]:
    port = free_port()
    async with txgearmand(f"--web={port}", *options) as server:
        its = Loaded(server, f"http://{HOST}:{port}")
        await its.fill()
        try:
            yield its
        finally:
            await its.close()


async def in_browser(address: str, act: Callable[[Page], None], **how: Any) -> None:
    """Let `act` use the dashboard at `address`; nothing may go wrong in the page meanwhile."""

    def run() -> None:
        with browser(address, **how) as page:
            act(page)
            problems = page.problems()
            assert not problems, problems

    await deferToThread(run)


@needs_browser
class BrowserTests(TestCase):
    @on_reactor
    async def test_looking_around(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self.look_around)

    @on_reactor
    async def test_cancelling_by_force(self) -> None:
        """It is offered for a job that runs; here with a worker that cannot be told to stop."""
        async with loaded() as its:
            worker = await connect(its.port)
            await worker.say(req(1, b"mail"))
            assigned = await worker.say(req(9))
            handle = assigned[12:].split(b"\0")[0].decode()

            def act(page: Page) -> None:
                page.open(f"/jobs/{quote(handle)}")
                page.click("Cancel the job")
                page.until("there is a choice", "document.querySelector('dialog input[name=force]')").click()
                page.click("Cancel the job", "dialog")
                page.shows("cancelled")

            await in_browser(its.address, act)
            await worker.lost

    def look_around(self, page: Page) -> None:
        page.open("/")
        page.shows("Live")
        page.shows("Busiest functions")
        page.until("a plot has a line", "document.querySelector('.plot .line').getAttribute('d').length > 20")
        page.click("All functions")
        # Names of any bytes are text, and lead to their function.
        page.shows("<img src=x onerror=alert(1)>\\xff/ä odd")
        page.click("<img src=x onerror=alert(1)>\\xff/ä odd")
        page.shows("queued")
        page.open("/functions")
        page.type("main input[type=search]", "rend")
        page.shows_not("mail")
        page.click("render")
        page.shows("Jobs")
        page.shows("119")
        page.click("Running", ".segments")
        page.shows("75 %")
        page.click("Queued", ".segments")
        page.shows("Page 1")
        page.click("Next")
        page.shows("Page 2")
        page.click("Next")
        page.shows("Page 3")
        page.click("Back", ".pages")
        page.shows("Page 2")
        page.type(".card input[type=search]", "scene-77")
        page.shows('"scene": 77')
        page.shows_not('"scene": 78')
        # The page of a job, its data in three ways.
        page.script("document.querySelector('td a.mono').click()")
        page.shows("scene-77")
        page.shows('"name": "<b>bold</b>"')
        page.click("Hex")
        page.shows("00000000  7b 22 73 63")
        page.click("Text")
        page.shows('{"scene": 77, "name": "<b>bold</b>"}')
        page.click("Connections")
        page.shows("a-worker.example")
        page.shows("render")
        page.shows("75 %")

    @on_reactor
    async def test_actions_with_confirmation(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self.act)

    def act(self, page: Page) -> None:
        page.open("/functions/render")
        page.click("Pause")
        page.click("Back", "dialog")
        page.shows_not("Paused")
        page.click("Pause")
        page.click("Pause", "dialog")
        page.until("the function is paused", "document.querySelector('.chip.warn').checkVisibility()")
        page.click("Resume")
        page.click("Resume", "dialog")
        page.until("it goes on", "!document.querySelector('.chip.warn').checkVisibility()")
        page.click("Set limit")
        page.type("dialog input[name=low]", "7")
        page.click("Set the limit", "dialog")
        page.shows("/ 7")
        page.click("Limit runs")
        page.type("dialog input[name=max_running]", "9")
        page.type("dialog input[name=start_rate]", "0.5")
        page.click("Limit the runs", "dialog")
        page.shows("9 at a time, 0.5 begin in a second")
        page.script("document.querySelectorAll('td a.mono')[5].click()")
        page.click("Cancel the job")
        page.click("Cancel the job", "dialog")
        page.shows("cancelled")
        page.open("/functions/render")
        page.click("Cancel all jobs")
        page.click("Cancel all jobs", "dialog")
        page.shows("No jobs here.")
        page.open("/connections")
        page.click("Quiet")
        page.click("Quiet", "dialog")
        page.until(
            "the worker is quiet",
            "[...document.querySelectorAll('.chip')].some((e) => e.innerText === 'quiet')",
        )
        page.click("Give jobs again")
        page.click("Give jobs again", "dialog")
        page.until(
            "it is not", "![...document.querySelectorAll('.chip')].some((e) => e.innerText === 'quiet')"
        )
        page.open("/functions/mail")
        page.click("Cancel all jobs")
        page.click("Cancel all jobs", "dialog")
        page.click("Drop")
        page.click("Drop", "dialog")
        page.until("the list is back", "location.hash === '#/functions'")
        page.shows_not("mail")

    @asynccontextmanager
    async def named(self) -> AsyncIterator[Loaded]:
        """A server with a job of each of the odd names, and a worker of one of them."""
        async with loaded() as its:
            its.worker.register(MOVING, its._hold)
            # Our client refuses a name that is empty.
            line = await connect(its.port)
            for name in NAMES:
                await line.say(req(18, name, b"", b"data of " + name))
            yield its
            await close(line)

    @on_reactor
    async def test_looking_at_functions_of_any_name(self) -> None:
        """All places of the dashboard that look something up by a peer's name, or show one: the document of
        a page and its patches, links and paths, the lists, the pages of a function and of a job, their
        dialogs, and connections."""
        async with self.named() as its:
            await in_browser(its.address, self.look_at_names)

    @on_reactor
    async def test_actions_on_functions_of_any_name(self) -> None:
        async with self.named() as its:
            await in_browser(its.address, self.act_on_names)

    def look_at_names(self, page: Page) -> None:
        page.open("/functions")
        number = len(NAMES) + 3
        page.shows(f"{number} in all")
        links = "[...document.querySelectorAll('tbody a')].map((each) => each.getAttribute('href'))"
        identifiers = {quote(name, safe="") for name in NAMES}
        self.assertLessEqual(
            {f"#/functions/{each}" for each in identifiers}, set(page.script(f"return {links}"))
        )
        # They can be told apart, and seen.
        texts = links.replace("getAttribute('href')", "innerText.trim()")
        shown = page.script(f"return {texts}")
        self.assertNotIn("", shown)
        # The function \\xff is shown as the byte 255 is.
        self.assertEqual(len(set(shown)), number - 1)
        for name in NAMES:
            page.open(f"/functions/{quote(name, safe='')}")
            handle = page.until(
                f"the job of {name!r} is shown",
                "document.querySelector('td.preview')?.textContent.startsWith('data of')"
                " && document.querySelector('h1 bdi') && document.querySelector('td a.mono').innerText",
            )
            self.assert_in_order(page)
            page.open(f"/jobs/{handle}")
            # And back.
            page.until(
                "the job's page leads to its function",
                "document.querySelector('dd a')?.getAttribute('href') === arguments[0]",
                f"#/functions/{quote(name, safe='')}",
            )
        page.open("/connections")
        page.until("a worker's functions are shown", "document.querySelectorAll('.chip bdi').length === 2")
        self.assert_in_order(page)
        self.assertEqual(
            page.script(
                "const names = []; for (const name in {}) names.push(name);"
                "return [names, Object.keys(Object.prototype), 'rows' in {}]"
            ),
            [[], [], False],
        )

    def act_on_names(self, page: Page) -> None:
        names = (b"__proto__", b"", b"..", b"\xff", MOVING)
        for name in names:
            page.open(f"/functions/{quote(name, safe='')}")
            page.click("Pause")
            page.until("it is asked", "document.querySelector('dialog[open] h2 bdi')")
            self.assert_in_order(page)
            page.click("Pause", "dialog")
            page.until(f"{name!r} is paused", "document.querySelector('.chip.warn').checkVisibility()")
            page.click("Set limit")
            page.type("dialog input[name=low]", "7")
            page.click("Set the limit", "dialog")
            page.shows("/ 7")
            page.click("Cancel all jobs")
            page.click("Cancel all jobs", "dialog")
            page.shows("No jobs here.")
            if name != MOVING:
                page.click("Drop")
                page.click("Drop", "dialog")
                page.until("the list is back", "location.hash === '#/functions'")
        page.open("/functions")
        page.shows(f"{len(NAMES) + 3 - len(names) + 1} in all")
        self.assert_in_order(page)

    def assert_in_order(self, page: Page) -> None:
        """No name moves what is ahead of it to behind it, or what is behind to ahead."""
        moved = page.script(MOVED)
        self.assertEqual(moved, [])

    @on_reactor
    async def test_with_a_token(self) -> None:
        with NamedTemporaryFile() as file:
            file.write(TOKEN.encode())
            file.flush()
            async with loaded(f"--web-token-file={file.name}") as its:
                await in_browser(its.address, self.show_token)

    def show_token(self, page: Page) -> None:
        page.open("/functions/render")
        page.click("Pause")
        page.click("Pause", "dialog")
        page.type("dialog input[name=token]", "wrong")
        page.click("Use it", "dialog")
        page.until("it is asked for again", "document.querySelector('dialog input[name=token]').value === ''")
        page.type("dialog input[name=token]", TOKEN)
        page.click("Use it", "dialog")
        page.click("Resume")

    @on_reactor
    async def test_read_only(self) -> None:
        async with loaded("--web-read-only") as its:
            await in_browser(its.address, self.look_without_touching)

    def look_without_touching(self, page: Page) -> None:
        page.open("/functions/render")
        page.shows("Read-only")
        page.shows("119")
        self.assertEqual(
            page.script(
                "return [...document.querySelectorAll('.act')].filter((e) => e.checkVisibility()).length"
            ),
            0,
        )

    @on_reactor
    async def test_jobs_that_only_the_store_has(self) -> None:
        with TemporaryDirectory() as folder:
            async with loaded(f"--store=sqlite:///{folder}/queue.db", "--store-ahead=10") as its:
                await in_browser(its.address, self.look_into_the_store)

    def look_into_the_store(self, page: Page) -> None:
        page.open("/functions/render")
        page.shows("109 in the store alone")
        rows = "document.querySelectorAll('tbody tr').length"
        for number, shown in ((1, 50), (2, 50), (3, 20)):
            page.shows(f"Page {number}")
            page.until(f"page {number} has all its jobs", f"{rows} === {shown}")
            if number < 3:
                page.click("Next")
        page.type(".card input[type=search]", "scene-119")
        page.shows('"scene": 119')
        page.click("Stored", ".segments")
        page.until("the search still holds", f"{rows} === 1")
        # They are looked at once a second, and what is in the store has not gone.
        now = page.script("return performance.now()")
        page.until("it was looked at", "performance.now() > arguments[0]", now + 2500)
        self.assertEqual(page.script("return document.querySelector('tbody .state').innerText"), "stored")
        page.script("document.querySelector('td a.mono').click()")
        page.shows('"name": "<b>bold</b>"')
        page.click("Cancel the job")
        page.click("Cancel the job", "dialog")
        # No server remembers what was never in its memory.
        page.shows("forgotten")

    @on_reactor
    async def test_the_limits(self) -> None:
        async with loaded("--max-connections-per-address=7") as its:
            await in_browser(its.address, self.look_at_limits)

    def look_at_limits(self, page: Page) -> None:
        page.open("/")
        page.shows("none was met")
        page.shows_not("max-unfinished-total")
        page.script("document.querySelector('summary').click()")
        page.shows("max-unfinished-total")
        page.until(
            "a limit and what is used of it",
            "[...document.querySelectorAll('tr')].some((row) => "
            "row.innerText.split(/\\s+/).join(' ') === 'max-connections-per-address 2 7 0')",
        )

    @on_reactor
    async def test_on_a_telephone_in_the_dark(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self.hold_in_hand, size=PHONE, dark=True)

    def hold_in_hand(self, page: Page) -> None:
        light = "getComputedStyle(document.body).backgroundColor"
        for place in ("/", "/functions", "/functions/render", "/connections"):
            page.open(place)
            page.shows("Live")
            page.shows("render")
            wide = page.script("return document.documentElement.scrollWidth - window.innerWidth")
            self.assertLessEqual(wide, 0, place)
        dark = page.script(f"return {light}")
        for _ in range(3):
            page.script("document.getElementById('theme').click()")
            colours = page.script(f"return [document.documentElement.dataset.theme || 'auto', {light}]")
            self.assertEqual(colours[1] == dark, colours[0] != "light")

    @on_reactor
    async def test_by_keyboard(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self.use_keys)

    def use_keys(self, page: Page) -> None:
        from selenium.webdriver.common.keys import Keys

        def press(*keys: str) -> None:
            page.chrome.switch_to.active_element.send_keys(*keys)

        page.open("/functions/render")
        page.shows("119")
        page.until(
            "the button can be focused",
            "(document.querySelector('.act').focus(), document.activeElement.innerText === 'Pause')",
        )
        press(Keys.ENTER)
        page.until("the dialog has the focus", "document.activeElement.closest('dialog') !== null")
        press(Keys.ESCAPE)
        page.until("it is closed", "!document.getElementById('dialog').open")
        nameless = page.script(
            "return [...document.querySelectorAll('button, a, input')].filter((e) => e.checkVisibility() && "
            "!(e.innerText || e.getAttribute('aria-label') || '').trim()).map((e) => e.outerHTML)"
        )
        self.assertEqual(nameless, [])
