"""The image and the services in contrib/docker, without Docker: what runs in the containers runs here."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import sysconfig
import tempfile
import unittest
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.databases import needs_postgresql, shared_postgresql
from tests.interop.programs import HOST, run_program, running
from tests.support import free_port, needs_program, on_reactor
from txgearman.server.process.twistd import Options

ROOT = Path(__file__).parent.parent.parent
CONTRIB = ROOT / "contrib"
DOCKER = CONTRIB / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))
SERVERS = {name: service for name, service in COMPOSE["services"].items() if name.startswith("gearmand-")}
PROGRAMS = Path(sysconfig.get_path("scripts"))
HADOLINT = PROGRAMS / "hadolint"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
START_LIMIT = 60
"""Seconds that three servers may take to make their tables, one after the other, on a loaded machine."""


def words_of(instruction: str) -> list[str]:
    """The command that an instruction of the Dockerfile has as JSON."""
    (found,) = re.findall(rf"(?m)^{instruction} (\[.*\])$", DOCKERFILE)
    return [str(word) for word in json.loads(found)]


class DockerTest(SynchronousTestCase):
    def test_the_base_is_pinned(self) -> None:
        bases = re.findall(r"(?m)^FROM (\S+)", DOCKERFILE)
        self.assertEqual(len(bases), 2)
        for base in bases:
            self.assertRegex(base, r":\d+\.\d+\.\d+-")

    def test_its_command_is_one_of_the_server(self) -> None:
        self.assertEqual(words_of("ENTRYPOINT"), ["twistd", "--nodaemon", "--pidfile=", "gearmand"])
        options = Options()
        options.parseOptions([each for each in words_of("CMD") if not each.startswith("--log-")])
        self.assertEqual(options.settings.listen, ("tcp:4730",))
        self.assertLess(options.process.drain_timeout, 10, "docker stop kills after 10 seconds")

    def test_it_does_not_run_as_root(self) -> None:
        self.assertRegex(DOCKERFILE, r"(?m)^USER 4730:4730$")

    def test_all_that_is_needed_is_let_in(self) -> None:
        ignore = (CONTRIB / "docker/Dockerfile.dockerignore").read_text(encoding="utf-8").split()
        self.assertEqual(ignore[0], "*")
        for name in [line[1:] for line in ignore if line.startswith("!")]:
            self.assertTrue((CONTRIB.parent / name).exists(), name)


class LintTest(TestCase):
    @unittest.skipUnless(HADOLINT.exists() or shutil.which("hadolint"), "not installed: hadolint")
    @on_reactor
    async def test_the_linter_is_content(self) -> None:
        program = str(HADOLINT) if HADOLINT.exists() else "hadolint"
        code, output, errors = await run_program([program, str(CONTRIB / "docker/Dockerfile")])
        self.assertEqual((code, output, errors), (0, b"", b""))


def grace(service: dict[str, Any]) -> int:
    """Seconds between SIGTERM and SIGKILL."""
    return int(service["stop_grace_period"].removesuffix("s"))


def inside(command: list[str], port: int, web: int, store: str) -> list[str]:
    """The options of a server's container with this machine's ports and database."""
    there = {
        "--listen=tcp:4730": f"--listen=tcp:{port}:interface={HOST}",
        "--web=tcp:8080": f"--web=tcp:{web}:interface={HOST}",
        "--store=postgresql://txgearman@postgresql/txgearman": f"--store={store}",
    }
    assert set(there) <= set(command), command
    return [there.get(option, option) for option in command]


class ComposeTest(TestCase):
    def test_images_are_pinned(self) -> None:
        foreign = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
        self.assertEqual(len(foreign), 3)
        for image in foreign:
            self.assertRegex(image, r":v?\d+\.\d+")

    def test_ports_are_of_this_machine_alone_and_differ(self) -> None:
        ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
        self.assertEqual(len(ports), 7)
        self.assertEqual([port for port in ports if not port.startswith("127.0.0.1:")], [])
        self.assertEqual(len({port.split(":")[1] for port in ports}), len(ports))

    def test_what_is_mounted_is_there(self) -> None:
        mounted = [
            volume.split(":")[0]
            for service in COMPOSE["services"].values()
            for volume in service.get("volumes", [])
        ]
        files = [DOCKER / source for source in mounted if source.startswith(".")]
        self.assertEqual(len(files), 5)
        self.assertEqual([file for file in files if not file.is_file()], [])
        self.assertEqual(
            {source for source in mounted if not source.startswith(".")}, set(COMPOSE["volumes"])
        )

    def test_servers_have_time_to_drain(self) -> None:
        self.assertEqual(len(SERVERS), 3)
        for service in SERVERS.values():
            options = Options()
            options.parseOptions([each for each in service["command"] if not each.startswith("--log-")])
            self.assertGreater(grace(service), options.process.drain_timeout)

    def test_no_password_is_in_a_command(self) -> None:
        for service in COMPOSE["services"].values():
            self.assertNotIn("PASSWORD", str(service.get("command")))

    @needs_program("promtool")
    @on_reactor
    async def test_prometheus_understands_its_file(self) -> None:
        text = (DOCKER / "prometheus.yml").read_text(encoding="utf-8")
        self.assertEqual(
            yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"],
            [f"{name}:8080" for name in SERVERS],
        )
        with tempfile.TemporaryDirectory(prefix="txgearman-compose-") as folder:
            file = Path(folder) / "prometheus.yml"
            alerts = str(ROOT / "docs/alerts.yml")
            file.write_text(text.replace("/etc/prometheus/alerts.yml", alerts), encoding="utf-8")
            code, output, errors = await run_program(["promtool", "check", "config", str(file)])
            self.assertEqual(code, 0, output + errors)
            self.assertIn(b"rules found", output)

    def test_grafana_finds_source_and_dashboard(self) -> None:
        (source,) = yaml.safe_load((DOCKER / "grafana/datasource.yml").read_text("utf-8"))["datasources"]
        self.assertEqual(source["url"], "http://prometheus:9090")
        (provider,) = yaml.safe_load((DOCKER / "grafana/dashboards.yml").read_text("utf-8"))["providers"]
        mounts = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
        self.assertIn(provider["options"]["path"] + "/txgearman.json", mounts)

    @needs_postgresql
    @on_reactor
    async def test_the_servers_share_a_database(self) -> None:
        """Started as in their containers. What one is given another knows; each is healthy, and drains."""
        url = shared_postgresql().new_database()
        entrypoint = words_of("ENTRYPOINT")
        async with contextlib.AsyncExitStack() as stack:
            servers = []
            for service in SERVERS.values():
                port = free_port()
                options = inside(service["command"], port, free_port(), url)
                command = [str(PROGRAMS / entrypoint[0]), *entrypoint[1:], *options]
                servers.append((port, await stack.enter_async_context(running(*command))))

            check = words_of(r"HEALTHCHECK .* CMD")
            for port, program in servers:
                await program.wrote(b"Gearman job server listens", START_LIMIT)
                code, _, errors = await run_program(
                    [str(PROGRAMS / check[0]), *check[1:]],
                    environment={"TXGEARMAN_SERVER": f"{HOST}:{port}"},
                )
                self.assertEqual(code, 0, errors)
            (first, _), (second, _), _ = servers
            txgearman = str(PROGRAMS / "txgearman")
            code, handle, errors = await run_program(
                [txgearman, "submit", "-s", f"{HOST}:{first}", "--background", "reverse", "x"]
            )
            self.assertEqual(code, 0, errors)
            code, found, errors = await run_program(
                [txgearman, "job", "-s", f"{HOST}:{second}", handle.decode().strip()]
            )
            self.assertEqual(code, 0, found + errors)
            for _, program in servers:
                program.signal(signal.SIGTERM)
            for _, program in servers:
                self.assertEqual(await program.ended(), 0)
