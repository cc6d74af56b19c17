"""The units of systemd in contrib/, and the file of their options."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, run_program
from tests.server.lines import close, connect
from tests.server.peers import req, res
from tests.server.test_systemd import TWISTD, listener, started, told
from tests.support import needs_program, on_reactor
from txgearman.server.process.signals import STOP_MARGIN
from txgearman.server.process.twistd import Options

CONTRIB = Path(__file__).parent.parent.parent / "contrib"
SERVICE = CONTRIB / "systemd/txgearmand.service"
SOCKET = CONTRIB / "systemd/txgearmand.socket"


def settings_of(unit: Path) -> dict[str, str]:
    """The settings of a unit; of those that are there twice the last."""
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", unit.read_text(encoding="utf-8")))


def options_of_default_file() -> list[str]:
    """What is in TXGEARMAND_OPTIONS, as systemd splits it."""
    text = (CONTRIB / "default/txgearmand").read_text(encoding="utf-8")
    (line,) = re.findall(r'(?m)^TXGEARMAND_OPTIONS="(.*)"$', text)
    return shlex.split(line)


class SystemdTest(TestCase):
    @on_reactor
    async def test_the_server_starts_as_the_units_say(self) -> None:
        service, held_socket = settings_of(SERVICE), settings_of(SOCKET)
        command = service["ExecStart"].split()
        self.assertEqual(command[1:], ["--nodaemon", "--pidfile=", "gearmand", "$TXGEARMAND_OPTIONS"])
        with listener() as (address, receiver), socket.socket() as held:
            held.bind((HOST, 0))
            held.listen(128)
            name = held_socket["FileDescriptorName"]
            async with started(
                *options_of_default_file(), held=held, name=name, notify=address, watchdog="30000000"
            ) as server:
                line = await connect(held.getsockname()[1])
                self.assertEqual(await line.ask(req(16, b"x"), b"x"), res(17, b"x"))
                await close(line)
                self.assertIn(f"READY=1\nMAINPID={server.pid}", told(receiver))
                server.signal(signal.SIGTERM)
                self.assertEqual(await server.ended(), 0)

    @needs_program("systemd-analyze")
    @on_reactor
    async def test_systemd_understands_the_units(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-units-") as folder:
            for unit in (SERVICE, SOCKET):
                text = unit.read_text(encoding="utf-8").replace("/usr/local/bin/twistd", TWISTD)
                (Path(folder) / unit.name).write_text(text, encoding="utf-8")
            units = [str(Path(folder) / unit.name) for unit in (SERVICE, SOCKET)]
            code, output, errors = await run_program(["systemd-analyze", "verify", "--man=no", *units])
            self.assertEqual((code, output, errors), (0, b"", b""))
            command = ["systemd-analyze", "security", "--offline=true", "--no-pager", units[0]]
            code, output, errors = await run_program(command)
            self.assertEqual(code, 0, errors)
            exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", output.decode())
            assert exposure is not None, output
            self.assertLess(float(exposure[1]), 2.0)

    def test_it_is_not_killed_while_it_drains(self) -> None:
        options = Options()
        # Beside systemd there is no such socket.
        options.parseOptions([each for each in options_of_default_file() if "systemd:" not in each])
        seconds = int(settings_of(SERVICE)["TimeoutStopSec"])
        self.assertGreater(seconds, STOP_MARGIN, "until it has asked for more")
        self.assertGreater(options.process.drain_timeout, 0)
