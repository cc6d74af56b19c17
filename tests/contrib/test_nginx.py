"""nginx in front of the dashboard, as contrib/ has it: the real nginx before a real server."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.certificates import Authority
from tests.interop.programs import HOST, Program, run_program, running, txgearmand, until
from tests.support import free_port, needs_program, on_reactor, temporary_folder

CONFIGURATION = Path(__file__).parent.parent.parent / "contrib/nginx/dashboard.conf"
NAME = "gearman.example.org"
TOKEN = "more-than-16-characters"
# Around the file that is tested: one process in the foreground, which writes nowhere else.
AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/dashboard.conf;
}}
"""


@dataclass(frozen=True)
class Site:
    """The dashboard behind nginx. `port` is that of nginx, `ca` the file of its certificate's authority."""

    port: int
    ca: Path

    def command(self, path: str, *options: str) -> list[str]:
        """A request with curl, which writes the body, a line feed and the status."""
        address = f"https://{NAME}{path}"
        return [
            *("curl", "--silent", "--show-error", "--no-buffer", "--cacert", str(self.ca)),
            *("--connect-to", f"{NAME}:443:{HOST}:{self.port}", "--write-out", "\n%{http_code}"),
            *(*options, address),
        ]

    async def ask(self, path: str, *options: str) -> tuple[int, bytes]:
        """The status and the body."""
        code, output, errors = await run_program(self.command(path, *options))
        assert code == 0, errors
        body, _, status = output.rpartition(b"\n")
        return int(status), body


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[tuple[Site, int]]:
    """nginx and the server behind it; with the server's port for clients and workers."""
    with tempfile.TemporaryDirectory(prefix="txgearman-nginx-") as temporary:
        folder = Path(temporary)
        authority = Authority(folder / "ca")
        certificate = authority.issue(folder / "gearman.pem", NAME)
        (folder / "token").write_text(TOKEN, encoding="utf-8")
        web, port = free_port(), free_port()
        text = CONFIGURATION.read_text(encoding="utf-8")
        for there, here in {
            "listen 443 ssl;": f"listen {HOST}:{port} ssl;",
            "/etc/ssl/gearman.pem": str(certificate),
            "/etc/ssl/gearman.key": str(certificate),
            "http://127.0.0.1:8080;": f"http://127.0.0.1:{web};",
        }.items():
            assert there in text, there
            text = text.replace(there, here)
        (folder / "dashboard.conf").write_text(text, encoding="utf-8")
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder), encoding="utf-8")
        nginx = ("nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"))
        found = Site(port, authority.ca)
        async with (
            txgearmand("--web", str(web), "--web-token-file", str(folder / "token")) as server,
            running(*nginx) as program,
        ):
            await until(lambda: _answers(found, program), "nginx answers")
            yield found, server.port


async def _answers(site: Site, program: Program) -> bool:
    assert program.exit_code is None, program
    code, _, _ = await run_program(site.command("/healthz"))
    return code == 0


class NginxTest(TestCase):
    @needs_program("nginx", "curl")
    @on_reactor
    async def test_pages_and_jobs(self) -> None:
        """Who has the token submits, from pages of the dashboard and from programs, not from others."""
        shown = ("--header", f"Authorization: Bearer {TOKEN}")
        own = ("--header", f"Origin: https://{NAME}", "--header", "Sec-Fetch-Site: same-origin")
        other = ("--header", "Origin: https://elsewhere.example", "--header", "Sec-Fetch-Site: cross-site")
        submit = "/api/v1/functions/reverse/jobs?background=true"
        async with site() as (dashboard, _):
            status, page = await dashboard.ask("/")
            self.assertEqual(status, 200)
            self.assertIn(b"<html", page)
            body = ("--data-binary", "x")
            self.assertEqual((await dashboard.ask(submit, *body))[0], 401)
            for headers in ((), own):
                status, answer = await dashboard.ask(submit, *body, *shown, *headers)
                self.assertEqual(status, 202, answer)
            self.assertEqual((await dashboard.ask(submit, *body, *shown, *other))[0], 403)
            large = temporary_folder(self) / "data"
            large.write_bytes(bytes(20 << 20))
            status, answer = await dashboard.ask(submit, "--data-binary", f"@{large}", *shown)
            self.assertEqual(status, 202, answer)

    @needs_program("nginx", "curl", "gearman")
    @on_reactor
    async def test_events_come_as_they_happen(self) -> None:
        """Nothing is held back: the first event is there while no worker has the job."""
        async with site() as (dashboard, port):
            events = dashboard.command(
                "/api/v1/functions/reverse/jobs",
                *("--header", "Accept: text/event-stream", "--data-binary", "abc"),
                *("--header", f"Authorization: Bearer {TOKEN}"),
            )
            async with running(*events) as watcher:
                await watcher.wrote(b"event: created")
                self.assertNotIn(b"event: complete", watcher.output)
                worker = ("gearman", "-w", "-h", HOST, "-p", str(port), "-f", "reverse", "--", "rev")
                async with running(*worker):
                    await watcher.wrote(b"event: complete")
