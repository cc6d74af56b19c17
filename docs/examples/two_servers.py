"""Two job servers in one process. They share nothing: neither jobs, nor functions, nor limits."""

from typing import Any

from twisted.application.service import MultiService

from txgearman.server import Settings, make_service


def make_servers(reactor: Any, public: str, internal: str) -> MultiService:
    servers = MultiService()
    for listen, settings in (
        (public, Settings(listen=(public,), max_packet=1024 * 1024, job_retries=3)),
        (internal, Settings(listen=(internal,))),
    ):
        server = make_service(settings, reactor=reactor)
        server.setName(listen)
        server.setServiceParent(servers)
    return servers
