"""A headless Chromium to click with. It blocks: call it in a thread where a reactor must go on."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PATIENCE = 20.0
"""Seconds that something on a page may take; generous, for a loaded machine."""

WIDE = (1280, 900)
PHONE = (390, 844)

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def needs_browser(test: Any) -> Any:
    """Skip a test, saying why, where there is no Chromium, no driver of it, or no selenium."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += [] if find_spec("selenium") else ["selenium"]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")(test)


class Page:
    """What a person can do with a page: read, click, type."""

    def __init__(self, chrome: Chrome, address: str) -> None:
        self.chrome = chrome
        self.address = address

    def open(self, place: str) -> None:
        """Go to a place of the dashboard, such as ``/functions``."""
        self.chrome.get(f"{self.address}/#{place}")

    def script(self, code: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(code, *arguments)

    def until(self, what: str, code: str, *arguments: Any) -> Any:
        """The value of a script, once that is true."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            return WebDriverWait(self.chrome, PATIENCE, 0.05).until(
                lambda chrome: chrome.execute_script(f"return ({code})", *arguments)
            )
        except TimeoutException:
            text = self.script("return document.body.innerText")
            raise AssertionError(f"not within {PATIENCE} seconds: {what}\n{text}") from None

    def shows(self, text: str) -> None:
        """Wait until the text is to be seen."""
        self.until(f"the page shows {text!r}", "document.body.innerText.includes(arguments[0])", text)

    def shows_not(self, text: str) -> None:
        """Wait until the text is not to be seen."""
        self.until(f"the page shows no {text!r}", "!document.body.innerText.includes(arguments[0])", text)

    def click(self, text: str, within: str = "body") -> None:
        """Click the button or link with this text, as soon as it can be clicked."""
        found = self.until(
            f"{text!r} can be clicked in {within}",
            """[...document.querySelectorAll(arguments[1] + ' :is(button, a)')].find(
                (each) => each.innerText.trim() === arguments[0]
                && !each.disabled && !each.hasAttribute('aria-disabled') && each.checkVisibility())""",
            text,
            within,
        )
        self.script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        field = self.until(f"there is {selector}", "document.querySelector(arguments[0])", selector)
        field.clear()
        field.send_keys(text)

    def problems(self) -> list[str]:
        """What the browser complained of: errors of scripts, and what the server's policy forbade."""
        return [
            str(entry["message"])
            for entry in self.chrome.get_log("browser")  # type: ignore[no-untyped-call]
            if "Failed to load resource" not in entry["message"]
        ]


@contextmanager
def browser(address: str, size: tuple[int, int] = WIDE, dark: bool = False) -> Iterator[Page]:
    """A window of its own, in a browser with nothing in it from before for `address`.

    The browser itself is the one of this process: its start costs more than most of what is done in it.
    """
    chrome = _running()
    before = chrome.current_window_handle
    chrome.switch_to.new_window("window")
    for command, arguments in (
        ("Network.clearBrowserCookies", {}),
        ("Network.clearBrowserCache", {}),
        ("Storage.clearDataForOrigin", {"origin": address, "storageTypes": "all"}),
    ):
        chrome.execute_cdp_cmd(command, arguments)
    # What an earlier page complained of is not this one's.
    chrome.get_log("browser")  # type: ignore[no-untyped-call]
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield Page(chrome, address)
    finally:
        chrome.close()
        chrome.switch_to.window(before)


_started: list[Chrome] = []
"""The browser of this process is the last one."""


def _running() -> Chrome:
    """The browser of this process. Its first use starts it, as does one after its death; it ends with the
    process."""
    from selenium.common.exceptions import WebDriverException

    if _started:
        with contextlib.suppress(WebDriverException, OSError):
            _started[-1].execute_cdp_cmd("Browser.getVersion", {})
            return _started[-1]
    _started.append(_start())
    return _started[-1]


def _start() -> Chrome:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    folder = tempfile.mkdtemp(prefix="txgearman-browser-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={folder}", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    atexit.register(chrome.quit)
    return chrome
