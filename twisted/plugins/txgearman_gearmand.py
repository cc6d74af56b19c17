"""Makes ``twistd gearmand`` known. Strings only: importing this must not load a reactor."""

from twisted.application.service import ServiceMaker

gearmand = ServiceMaker(
    "txgearman job server",
    "txgearman.server.process.twistd",
    "A Gearman job server",
    "gearmand",
)
