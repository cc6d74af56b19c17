"""``systemctl`` where no systemd runs: starts and stops a service of ``Type=forking`` as its unit says.

``python -m tests.gearmand.units start|stop|restart|daemon-reload UNIT``. Only what the unit of
gearman-job-server has is known here; anything else in a unit is an error, so that nothing is passed over.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.gearmand.programs import LIMIT, Process

FOLDERS: Final = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
WITHOUT_EFFECT: Final = {"Description", "Documentation", "Restart", "WantedBy"}
"""What is about a machine that runs longer than a test."""


class Unit:
    """A unit with its drop-in files."""

    def __init__(self, name: str) -> None:
        main = next(folder / f"{name}.service" for folder in FOLDERS if (folder / f"{name}.service").exists())
        drop_ins = [
            path for folder in FOLDERS for path in sorted((folder / f"{name}.service.d").glob("*.conf"))
        ]
        self._settings: dict[str, list[str]] = {}
        for path in (main, *drop_ins):
            for line in path.read_text().splitlines():
                if line and line[0] not in "#[":
                    key, _, value = line.partition("=")
                    values = self._settings.setdefault(key, [])
                    # An empty value forgets those before.
                    values[:] = [*values, value] if value else []
        assert self._pop("Type") == "forking"
        self.pid_file = Path(self._pop("PIDFile"))
        self.user = self._pop("User")
        # Then what comes ahead of the start is root's to do.
        assert self._pop("PermissionsStartOnly") == "true"
        self._environment = self._pop("EnvironmentFile").removeprefix("-")
        self._before, self._start = self._pop("ExecStartPre"), self._pop("ExecStart")
        unknown = set(self._settings) - WITHOUT_EFFECT
        assert not unknown, unknown

    def _pop(self, key: str) -> str:
        (value,) = self._settings.pop(key)
        return value

    def start(self) -> None:
        """Start it, and return when it says that it runs."""
        subprocess.run(shlex.split(self._before), check=True)
        script = f'. {self._environment}; printf %s "$PARAMS"'
        said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
        words = [
            each
            for word in shlex.split(self._start)
            for each in (said.split() if word == "$PARAMS" else [word])
        ]
        account = pwd.getpwnam(self.user)
        as_user = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
        done = subprocess.run(
            [*as_user, *words],
            env={"PATH": os.environ["PATH"], "USER": self.user, "HOME": account.pw_dir},
            cwd="/",
            stdin=subprocess.DEVNULL,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{words}: exit code {done.returncode}"
        pid = int(self.pid_file.read_text())
        assert os.stat(f"/proc/{pid}").st_uid == account.pw_uid

    def stop(self) -> None:
        """End it, and return when it has ended."""
        if self.pid_file.exists():
            Process(int(self.pid_file.read_text())).stop(signal.SIGTERM)


def main(verb: str, name: str = "") -> None:
    """One call of the program."""
    if verb == "daemon-reload":
        return
    unit = Unit(name)
    if verb in {"stop", "restart"}:
        unit.stop()
    if verb in {"start", "restart"}:
        unit.start()
    assert verb in {"start", "stop", "restart"}, verb


if __name__ == "__main__":
    main(*sys.argv[1:])
