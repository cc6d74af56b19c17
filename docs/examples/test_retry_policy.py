"""Run with: pytest test_retry_policy.py"""

from txgearman.errors import FailJob
from txgearman.server import Settings
from txgearman.testing import MemoryGearman
from txgearman.worker import Job


def test_mail_is_tried_three_times_and_then_kept() -> None:
    gearman = MemoryGearman(Settings(attempts=3, backoff=15.0, jitter=0.0))
    worker = gearman.worker()
    worker.register("send-mail", refuse)
    worker.start()
    job = gearman.wait(gearman.client().submit("send-mail", b"to: you", background=True))
    assert [gearman.turn_to_next_retry() for _ in range(2)] == [15, 30]
    dead = gearman.job(job)
    assert (dead.state, dead.attempts, dead.outcome) == ("dead", 3, "failed")


def refuse(_job: Job) -> bytes:
    raise FailJob("the mail server is full")
