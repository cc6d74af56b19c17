"""The job server on Twisted. Decides nothing about jobs: that is the broker's."""

from txgearman.server.config.options import Settings
from txgearman.server.config.schedule_options import ScheduleSettings
from txgearman.server.factory import GearmanServerFactory
from txgearman.server.protocol import GearmanServerProtocol
from txgearman.server.service import GearmanService, make_service

__all__ = [
    "GearmanServerFactory",
    "GearmanServerProtocol",
    "GearmanService",
    "ScheduleSettings",
    "Settings",
    "make_service",
]
