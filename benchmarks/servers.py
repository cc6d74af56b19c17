"""The processes of the benchmarks: servers and load generator, started, measured and ended.

Lives here: command lines, free ports, waiting until a server answers, /proc. Never here: what is run
and what is made of the numbers.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent

START_TIMEOUT: Final = 20.0
"""Seconds a server has until it answers its first echo."""

STOP_TIMEOUT: Final = 5.0
"""Seconds a server has to end after SIGTERM, before SIGKILL."""

LOAD_TIMEOUT: Final = 200.0
"""Seconds for one run of load.c, which ends itself well before."""

OPEN_FILES: Final = 32_768
"""File descriptors wanted by the 10,000 connections and what is beside them."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a server is asked to see whether it is up, and its answer."""

    request: bytes
    response: bytes


ECHO: Final = Probe(b"\0REQ\0\0\0\x10\0\0\0\0", b"\0RES\0\0\0\x11\0\0\0\0")
"""Gearman's."""


class BenchmarkFailed(Exception):
    """A server or the load generator did not do its part; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Transport:
    """How a server is reached beside plain TCP: options of the server, and of the generator."""

    options: Sequence[str]
    reach: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be measured.

    `command` makes its command line from a port, a folder for its files and further options. `probe` is what
    it answers once it is up. `web` says how it is reached over HTTP at a port.
    """

    name: str
    command: Callable[[int, Path, Sequence[str]], list[str]]
    probe: Probe = ECHO
    web: Callable[[int], Transport] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers on `port` of 127.0.0.1, and is reached by the options `reach` of a generator."""

    pid: int
    port: int
    reach: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process in bytes: now, and the most it ever was."""

    resident: int
    peak: int


# -- the servers --------------------------------------------------------------------------------


def txgearman(name: str = "txgearman", package: Path | None = None) -> Kind:
    """The server of this checkout, or of a `package` in another folder, by the ``twistd`` beside the
    running interpreter."""
    twistd = Path(sys.executable).with_name("twistd")
    if not twistd.exists():
        raise BenchmarkFailed(f"no twistd beside {sys.executable}: run this with the interpreter of the venv")

    def command(port: int, folder: Path, options: Sequence[str]) -> list[str]:
        log = folder / f"{name}-{port}.log"
        listen = f"tcp:{port}:interface=127.0.0.1"
        return [
            *(() if package is None else ("env", f"PYTHONPATH={package}")),
            str(twistd),
            "-n",
            "--pidfile=",
            "--logfile",
            str(log),
            "gearmand",
            "--listen",
            listen,
            *options,
        ]

    def web(port: int) -> Transport:
        return Transport(
            ("--web", f"tcp:{port}:interface=127.0.0.1"),
            {"port": port, "path": "/api/v1/functions/bench/jobs"},
        )

    return Kind(name, command, web=web)


def compiled(name: str, folder: Path, checkout: Path = HERE.parent) -> Kind:
    """The server of a `checkout` with what can be compiled, in a `folder` of its own. Takes a minute."""
    package = folder / "compiled"
    build = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", f"--target={package}", "."]
    try:
        subprocess.run(
            [sys.executable, "-m", *build],
            check=True,
            capture_output=True,
            text=True,
            cwd=checkout,
            env={**os.environ, "TXGEARMAN_COMPILE": "1"},
        )
    except subprocess.CalledProcessError as failure:
        raise BenchmarkFailed(f"txgearman cannot be compiled: {failure.stderr}") from None
    return txgearman(name, package)


def gearmand(path: str | None = None) -> Kind | None:
    """The C server at `path`, or the one that is installed; None where none is installed.

    Raises `BenchmarkFailed` if `path` is given and is no program.
    """
    if path is not None and shutil.which(path) is None:
        raise BenchmarkFailed(f"{path} is not a program")
    found = path or shutil.which("gearmand") or shutil.which("gearmand", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        return None

    def command(port: int, folder: Path, options: Sequence[str]) -> list[str]:
        # The pid file only because its default needs root; all else is left as it comes.
        pid_file = folder / f"gearmand-{port}.pid"
        where = ["--port", str(port), "--listen", "127.0.0.1"]
        return [str(found), *where, "--log-file", "stderr", "--pid-file", str(pid_file), *options]

    def web(port: int) -> Transport:
        return Transport(("--protocol=http", f"--http-port={port}"), {"port": port, "path": "/bench"})

    return Kind("gearmand", command, web=web)


def floor() -> Kind:
    """echo.py: the reactor without a job server."""
    return Kind("floor", lambda port, _folder, _options: [sys.executable, str(HERE / "echo.py"), str(port)])


def version_of(kind: Kind) -> str:
    """The first line that gearmand prints of its version."""
    program = kind.command(0, Path(), ())[0]
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10)
    return (shown.stdout or shown.stderr).strip().split("\n")[0]


def unix(_kind: Kind, folder: Path) -> Transport:
    """A UNIX socket in a folder."""
    path = folder / f"{_free_port()}.sock"
    return Transport(("--listen", f"unix:{path}"), {"unix": str(path)})


def web(kind: Kind, _folder: Path) -> Transport:
    """HTTP, at a port beside the one of the Gearman protocol. Raises `BenchmarkFailed`."""
    if kind.web is None:
        raise BenchmarkFailed(f"{kind.name} is not reached over HTTP")
    return kind.web(_free_port())


def tls(_kind: Kind, folder: Path) -> Transport:
    """TLS, with a certificate that is made for it. Raises `BenchmarkFailed`."""
    try:
        import trustme
    except ImportError:
        raise BenchmarkFailed("no certificate can be made: trustme is not installed") from None
    port = _free_port()
    file = folder / f"{port}.pem"
    certificate = trustme.CA().issue_cert("localhost")
    file.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    listen = ("--tls", f"tcp:{port}:interface=127.0.0.1", "--tls-certificate", str(file))
    return Transport(listen, {"port": port})


# -- starting and ending ------------------------------------------------------------------------


@contextmanager
def running(
    kind: Kind, folder: Path, options: Sequence[str] = (), transport: Transport | None = None
) -> Iterator[Running]:
    """A fresh server, for the length of a ``with`` block. Raises `BenchmarkFailed`."""
    port = _free_port()
    if transport is not None:
        options = (*options, *transport.options)
    output = folder / f"{kind.name}-{port}.output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*dies_with_us(), *kind.command(port, folder, options)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _await_answer(kind, process, port, folder)
        yield Running(process.pid, port, {} if transport is None else transport.reach)
        if process.poll() is not None:
            raise BenchmarkFailed(f"{kind.name} ended by itself: {_last_words(kind, port, folder)}")
    finally:
        _end(process)


def dies_with_us() -> list[str]:
    """A prefix of a command that has the kernel end it should this process be killed outright."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL"] if program else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_answer(kind: Kind, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    give_up = time.monotonic() + START_TIMEOUT
    while not _answers(port, kind.probe):
        if process.poll() is not None:
            raise BenchmarkFailed(f"{kind.name} does not start: {_last_words(kind, port, folder)}")
        if time.monotonic() > give_up:
            raise BenchmarkFailed(
                f"{kind.name} does not answer after {START_TIMEOUT:.0f} s: {_last_words(kind, port, folder)}"
            )
        time.sleep(0.02)


def _answers(port: int, probe: Probe) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(probe.request)
            return connection.recv(len(probe.response), socket.MSG_WAITALL) == probe.response
    except OSError:
        return False


def _last_words(kind: Kind, port: int, folder: Path) -> str:
    """The end of what the server wrote to its output and its log."""
    files = [folder / f"{kind.name}-{port}.{ending}" for ending in ("output", "log")]
    text = "\n".join(file.read_text(errors="replace") for file in files if file.exists()).strip()
    return text[-2000:] or "it wrote nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()


def end_by_sigterm() -> None:
    """Have SIGTERM end this process as Ctrl-C does: through every ``finally``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


# -- measuring ----------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Where and when something is measured."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
    }


def memory_of(pid: int) -> Memory:
    """Resident memory of process `pid`."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Memory(_kibibytes(fields["VmRSS"]), _kibibytes(fields["VmHWM"]))


def _kibibytes(text: str) -> int:
    number, unit = text.split()
    if unit != "kB":
        raise BenchmarkFailed(f"/proc gives memory in {unit}, not in kB")
    return int(number) * 1024


def cpu_of(pid: int) -> float:
    """CPU seconds that process `pid` has taken so far."""
    fields = state_of(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state_of(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name, which may hold spaces. Raises `OSError`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def allow_open_files() -> int:
    """Raise this process's limit of file descriptors, which its children inherit; the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, OPEN_FILES)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError):
        wanted = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted


# -- the load generator -------------------------------------------------------------------------


def compile_c(source: str, folder: Path, *options: str) -> Path:
    """Compile a `source` of this folder into `folder`. Raises `BenchmarkFailed`."""
    program = folder / Path(source).stem
    compiler = os.environ.get("CC", "cc")
    try:
        subprocess.run(
            [compiler, "-O2", "-o", str(program), str(HERE / source), *options],
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise BenchmarkFailed(f"no C compiler: {compiler} is not installed") from None
    except subprocess.CalledProcessError as failure:
        raise BenchmarkFailed(f"{source} does not compile: {failure.stderr}") from None
    return program


def generators(folder: Path) -> dict[str, Path]:
    """The load generators by their sources, compiled into `folder`. Raises `BenchmarkFailed`.

    Where OpenSSL is not there to be linked, none of them speaks TLS.
    """
    threads = "-pthread"
    try:
        connections = compile_c("connections.c", folder, "-DTLS", threads, "-lssl", "-lcrypto")
    except BenchmarkFailed:
        connections = compile_c("connections.c", folder, threads)
    return {"load.c": compile_c("load.c", folder), "connections.c": connections}


def load_command(program: Path, shape: str, server: Running, options: Mapping[str, int]) -> list[str]:
    """The command line of one load on `server`."""
    chosen = {"port": server.port, "server-pid": server.pid, **server.reach, **options}
    return [str(program), shape, *(part for name in chosen for part in (f"--{name}", str(chosen[name])))]


def load(program: Path, shape: str, server: Running, options: Mapping[str, int]) -> dict[str, Any]:
    """Run one load to its end; what the generator reports. Raises `BenchmarkFailed`."""
    command = load_command(program, shape, server, options)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOAD_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise BenchmarkFailed(f"{shape}: {program.name} ran for more than {LOAD_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise BenchmarkFailed(
            f"{shape}: {done.stderr.strip() or f'{program.name} ended with {done.returncode}'}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def idle_connections(program: Path, server: Running, count: int) -> Iterator[None]:
    """`count` idle connections to `server`, for the length of a ``with`` block. Raises `BenchmarkFailed`."""
    process = subprocess.Popen(
        load_command(program, "idle", server, {"connections": count}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if not process.stdout.readline():
            raise BenchmarkFailed(f"idle: {process.stderr.read().strip()}")
        yield
        process.communicate(timeout=STOP_TIMEOUT)
    finally:
        process.kill()
        process.wait()
