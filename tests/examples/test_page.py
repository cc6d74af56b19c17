"""The page of the tutorial's web application, in a real browser."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, lasting
from tests.support import load, needs_program, on_reactor
from txgearman import Client, Worker
from txgearman.worker import Job

FOLDER = Path(__file__).parent.parent.parent / "examples" / "pictures"
LIMIT = 20.0
"""Seconds after which what is awaited of the browser has failed."""

PIXEL = load(FOLDER / "pictures.py").png(1, 1, [b"\x80"])


class Browser:
    """Chromium without a window, with one page. All methods block."""

    def __init__(self, profile: str) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("--headless=new", "--no-sandbox", f"--user-data-dir={profile}"):
            options.add_argument(argument)
        service = Service(shutil.which("chromedriver"), log_output=subprocess.DEVNULL)
        self.driver: Any = webdriver.Chrome(options=options, service=service)

    def press(self) -> None:
        self.driver.execute_script("document.querySelector('button').click()")

    def says(self, text: str) -> None:
        """Wait until the page says this."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, LIMIT, 0.02).until(
            lambda _: text in self.value("[role=status]", "textContent"), f"the page says {text!r}"
        )

    def value(self, selector: str, name: str) -> Any:
        return self.driver.execute_script(f"return document.querySelector('{selector}').{name}")


@contextlib.asynccontextmanager
async def open_page(url: str) -> AsyncIterator[Browser]:
    with tempfile.TemporaryDirectory(prefix="txgearman-page-", ignore_cleanup_errors=True) as profile:
        browser = await deferToThread(Browser, profile)
        try:
            await deferToThread(browser.driver.get, url)
            yield browser
        finally:
            await deferToThread(browser.driver.quit)


@unittest.skipIf(importlib.util.find_spec("selenium") is None, "not installed: selenium")
@needs_program("chromium", "chromedriver")
class Page(TestCase):
    @on_reactor
    async def test_progress_picture_and_failure(self) -> None:
        from twisted.internet import reactor

        jobs: DeferredQueue[Job] = DeferredQueue()
        ends: list[Deferred[bytes]] = []

        def picture(job: Job) -> Deferred[bytes]:
            ends.append(Deferred())
            jobs.put(job)
            return ends[-1]

        async with lasting("txgearman") as server, Client(reactor, server.endpoint) as client:  # type: ignore[arg-type]
            worker = Worker(reactor, server.endpoint)  # type: ignore[arg-type]
            worker.register("picture", picture)
            await worker.start()
            site = load(FOLDER / "web.py").make_site(client)
            site.noisy = False
            port = reactor.listenTCP(0, site, interface=HOST)  # type: ignore[attr-defined]
            try:
                async with open_page(f"http://{HOST}:{port.getHost().port}/") as browser:
                    await deferToThread(browser.press)
                    job = await jobs.get()
                    job.send_status(1, 4)
                    await deferToThread(browser.says, "1 of 4 rows are drawn.")
                    self.assertEqual(await deferToThread(browser.value, "progress", "position"), 0.25)
                    self.assertIs(await deferToThread(browser.value, "img", "hidden"), True)
                    ends[0].callback(PIXEL)
                    await deferToThread(browser.says, "Done.")
                    self.assertEqual(await deferToThread(browser.value, "img", "naturalWidth"), 1)
                    self.assertIs(await deferToThread(browser.value, "img", "hidden"), False)

                    await deferToThread(browser.press)
                    await jobs.get()
                    ends[1].errback(ValueError("no colours"))
                    await deferToThread(browser.says, "no colours")
                    self.assertIs(await deferToThread(browser.value, "button", "disabled"), False)
                    self.assertEqual(len(jobs.pending), 0)
            finally:
                await port.stopListening()
                await worker.stop()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
