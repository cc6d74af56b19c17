"""What pages of the dashboard share: addresses, Back, search, saving rows, plots, and what axe-core finds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import TestCase

from tests.support import on_reactor
from tests.web.browser import PHONE, Page, needs_browser
from tests.web.test_browser import TOKEN, in_browser, loaded

ROWS = "[...document.querySelectorAll('tbody tr')].map((row) => row.innerText)"
SAVING = """
window.saved = {};
URL.createObjectURL = (blob) => { blob.text().then((text) => { saved[blob.type] = text; }); return "#"; };
HTMLAnchorElement.prototype.click = () => {};
"""
"""Keeps what would be saved, in place of the browser's own saving."""

PAGES = (
    *("/", "/functions", "/functions/render", "/functions/render?state=queued", "/jobs/{handle}"),
    *("/retrying", "/dead", "/schedules", "/connections", "/activity", "/search?text=render", "/nowhere"),
)


DIALOGS = (
    ("/functions/render", "Pause"),
    ("/functions/render", "Set limit"),
    ("/functions/render", "Limit runs"),
    ("/schedules", "Add a schedule"),
)
"""Pages with buttons that open a dialog."""


def axe() -> str:
    """The script of axe-core."""
    for folder in os.environ.get("NODE_PATH", ".venv/node/node_modules").split(os.pathsep):
        file = Path(folder, "axe-core", "axe.min.js")
        if file.exists():
            return file.read_text(encoding="utf-8")
    raise SkipTest("not installed: axe-core")


def hash_of(page: Page) -> str:
    return str(page.script("return location.hash"))


@needs_browser
class ListsTests(TestCase):
    @on_reactor
    async def test_addresses_and_back(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._addresses_and_back)

    def _addresses_and_back(self, page: Page) -> None:
        page.open("/functions/render")
        page.shows("Page 1 of 3, 120 in all")
        page.click("Queued")
        page.until("only queued ones are there", f"!({ROWS}).join().includes('running')")
        page.click("Next")
        page.shows("Page 2 of 3, 119 in all")
        self.assertIn("state=queued", hash_of(page))
        self.assertIn("page=2", hash_of(page))
        first = page.until("a row is there", f"({ROWS})[0]")
        page.click("Next")
        page.shows("Page 3 of 3")
        page.chrome.back()
        page.shows("Page 2 of 3")
        self.assertEqual(page.until("a row is there", f"({ROWS})[0]")[:12], first[:12])
        page.chrome.refresh()
        page.shows("Page 2 of 3")
        page.click("Back", within=".pages")
        page.shows("Page 1 of 3")
        page.type("main input[type=search]", "scene-11")
        page.until("the search is in the address", "location.hash.includes('search=scene-11')")
        page.until("it is found", f"({ROWS}).length && ({ROWS}).length < 20")
        page.chrome.back()
        page.shows("Page 1 of 3")
        page.chrome.back()
        page.shows("Page 2 of 3")

    @on_reactor
    async def test_the_activity(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._activity)

    def _activity(self, page: Page) -> None:
        page.open("/functions/render")
        page.click("Pause")
        page.click("Pause", within="dialog")
        page.shows("Resume")
        page.open("/activity")
        page.until("it is listed", f"({ROWS})[0]?.includes('change function')")
        page.click("By the server")
        page.until(
            "only that is listed", f"({ROWS}).length && ({ROWS}).every((row) => row.includes('the server'))"
        )
        self.assertIn("by=server", hash_of(page))
        page.click("By people")
        page.click("render", within="tbody")
        page.until("its function is shown", "document.querySelector('h1')?.innerText === 'render'")

    @on_reactor
    async def test_finding_anything(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._finding_anything)

    def _finding_anything(self, page: Page) -> None:
        page.open("/")
        page.shows("Busiest functions")
        page.type("#wanted", "scene-7\n")
        page.shows("scene-7")
        page.until("a job is found", "document.querySelector('.found-list a.mono')")
        handle = page.script("return document.querySelector('.found-list a').innerText")
        page.type("#wanted", f"{handle}\n")
        page.until(
            "the handle is found", "document.querySelector('h1')?.innerText.includes(arguments[0])", handle
        )
        page.click(handle, within=".found-list")
        page.shows("Submitted")
        page.type("#wanted", "<b>nothing</b>\n")
        page.shows("No job has this handle or unique")

    @on_reactor
    async def test_unknown_pages_and_functions_without_workers(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._unknown_pages)

    def _unknown_pages(self, page: Page) -> None:
        for place in ("/nowhere", "/schedules/x", "/jobs/", "/functions/a/b", "/constructor"):
            page.open(place)
            page.shows("There is no such page")
        page.click("To the overview")
        page.shows("Busiest functions")
        page.open("/functions")
        page.until("marked", f"({ROWS}).some((row) => row.startsWith('mail') && row.includes('No worker'))")
        self.assertEqual(
            page.script(f"return ({ROWS}).filter((row) => /^render.*No worker/.test(row)).length"), 0
        )

    @on_reactor
    async def test_why_a_button_cannot_be_used(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._why)

    def _why(self, page: Page) -> None:
        page.open("/functions/render")
        drop = "[...document.querySelectorAll('button')].find((each) => each.innerText.trim() === 'Drop')"
        why = page.until("the server has answered", f"/^It/.test({drop}.dataset.why) && {drop}.dataset.why")
        self.assertEqual(why, "It has jobs")
        button = page.script(f"return {drop}")
        button.click()
        self.assertFalse(page.script("return document.getElementById('dialog').open"))
        page.script("arguments[0].focus()", button)
        self.assertTrue(page.script("return document.activeElement === arguments[0]", button))

    @on_reactor
    async def test_a_wrong_token(self) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder, "token")
            file.write_text(TOKEN, encoding="ascii")
            async with loaded(f"--web-token-file={file}") as its:
                await in_browser(its.address, self._wrong_token)

    def _wrong_token(self, page: Page) -> None:
        page.open("/functions/render")
        page.shows("Page 1")
        page.click("Pause")
        page.click("Pause", within="dialog")
        page.type("dialog input", "wrong-wrong-wrong")
        page.click("Use it")
        page.shows("The server does not know this token.")
        page.type("dialog input", TOKEN)
        page.click("Use it")
        page.shows("Paused")

    @on_reactor
    async def test_values_under_the_pointer_stay(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._pointer)

    def _pointer(self, page: Page) -> None:
        from selenium.webdriver import ActionChains

        page.open("/")
        times = "[...document.querySelectorAll('.times')][1].innerText"
        page.until(
            "there are samples",
            "document.querySelector('.plot .s-queued.line')?.getAttribute('d')?.split('L').length > 3",
        )
        frame = page.script("return document.querySelectorAll('.frame')[1]")
        ActionChains(page.chrome).move_to_element_with_offset(frame, -200, 0).perform()
        self.assertTrue(
            page.until("the time is told", "document.querySelectorAll('.moment')[1].checkVisibility()")
        )
        before = page.script(f"return {times}")
        page.until("it goes on", f"{times} !== arguments[0]", before)
        self.assertTrue(page.script("return document.querySelectorAll('.moment')[1].checkVisibility()"))
        ActionChains(page.chrome).move_by_offset(0, -300).perform()
        page.until("it is gone", "!document.querySelectorAll('.moment')[1].checkVisibility()")
        page.script("document.querySelectorAll('.frame')[0].focus()")
        from selenium.webdriver.common.keys import Keys

        page.chrome.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
        self.assertTrue(page.until("by keys too", "document.querySelector('.moment').checkVisibility()"))

    @on_reactor
    async def test_the_past_of_a_function(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._past)

    def _past(self, page: Page) -> None:
        page.open("/functions/render")
        page.shows("Rate and times")
        page.click("24 h", within=".function-plots")
        page.until("the range is in the address", "location.hash.includes('range=24h')")
        page.click("2 min", within=".function-plots")
        page.until("curves are there", "document.querySelector('.function-plots .line')?.getAttribute('d')")

    @on_reactor
    async def test_saving_rows(self) -> None:
        async with loaded() as its:
            await in_browser(its.address, self._saving_rows)

    def _saving_rows(self, page: Page) -> None:
        page.open("/functions")
        page.until("rows are there", f"({ROWS}).length === 3")
        # What would be saved, in place of the dialog of the browser.
        page.script(SAVING)
        page.click("CSV")
        page.click("JSON")
        lines = page.until("CSV is there", "saved['text/csv']").splitlines()
        self.assertTrue(lines[0].startswith("Function,Queued,By priority,Running,"), lines[0])
        self.assertTrue(any(line.startswith("render,") for line in lines), lines)
        rows: list[dict[str, Any]] = json.loads(page.until("JSON is there", "saved['application/json']"))
        self.assertEqual({row["name"] for row in rows if row["workers"]}, {"render"})

    @on_reactor
    async def test_formulas_are_text_in_csv(self) -> None:
        """A name that a spreadsheet would take for a formula."""
        async with loaded() as its:
            await its.client.submit('=cmd|"/c calc"!A1', b"", background=True)
            await in_browser(its.address, self._formulas)

    def _formulas(self, page: Page) -> None:
        page.open("/functions?search=cmd")
        page.until("the row is there", f"({ROWS}).length === 1")
        page.script(SAVING)
        page.click("CSV")
        text = page.until("CSV is there", "saved['text/csv']")
        self.assertIn('\r\n"\'=cmd|""/c calc""!A1', text)


@needs_browser
class AccessibilityTests(TestCase):
    @on_reactor
    async def test_light(self) -> None:
        await self._look()

    @on_reactor
    async def test_dark(self) -> None:
        await self._look(dark=True)

    @on_reactor
    async def test_on_a_telephone(self) -> None:
        await self._look(size=PHONE)

    async def _look(self, **how: Any) -> None:
        self.axe = axe()
        async with loaded() as its:
            await in_browser(its.address, self._axe_finds_nothing, **how)

    def _axe_finds_nothing(self, page: Page) -> None:
        page.open("/functions/render")
        handle = page.until("a job is there", "document.querySelector('td .mono')?.innerText")
        found: dict[str, Any] = {}
        for place in PAGES:
            page.open(place.format(handle=handle))
            page.until("the page is there", "document.querySelector('main h1')?.innerText")
            page.until("it is up to date", "document.querySelector('.live[data-state=live]')")
            page.until("rows are there", "!document.querySelector('.loading')")
            self._collect(page, place, found)
        for place, button in DIALOGS:
            page.open(place)
            page.click(button)
            page.until("it is open", "document.getElementById('dialog').open")
            self._collect(page, f"{place}: {button}", found)
            page.click("Back", within="dialog")
        self.assertFalse(found, json.dumps(found, indent=1))

    def _collect(self, page: Page, place: str, found: dict[str, Any]) -> None:
        # The policy of the page lets no script in but by the browser itself.
        page.chrome.execute_cdp_cmd("Runtime.evaluate", {"expression": self.axe})
        answer = page.chrome.execute_cdp_cmd(
            "Runtime.evaluate",
            {"expression": "axe.run(document)", "awaitPromise": True, "returnByValue": True},
        )
        for violation in answer["result"]["value"]["violations"]:
            nodes = [
                node["html"][:160] + " " + node["failureSummary"][-200:] for node in violation["nodes"][:3]
            ]
            found.setdefault(violation["id"], (violation["help"], place, nodes))
