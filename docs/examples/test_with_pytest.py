"""Run with: pytest test_with_pytest.py"""

import pytest
from thumbnails import offer_thumbnails, thumbnail_of

from txgearman.testing import MemoryGearman


@pytest.fixture
def gearman() -> MemoryGearman:
    return MemoryGearman()


def test_survives_the_loss_of_the_worker_s_connection(gearman: MemoryGearman) -> None:
    client, worker = gearman.client(), gearman.worker()
    offer_thumbnails(worker, gearman.clock)
    gearman.wait(worker.start())
    job = gearman.wait(client.submit("thumbnail", b"image:cat", background=True))
    gearman.turn(1)  # the worker has the job, and half of its work is done
    gearman.cut()  # every connection is lost; the server keeps the background job
    assert gearman.wait(client.status(job)).known
    gearman.turn(60)  # the worker connects again, gets the job again and ends it
    assert not gearman.wait(client.status(job)).known


def test_a_thumbnail_takes_two_seconds(gearman: MemoryGearman) -> None:
    client, worker = gearman.client(), gearman.worker()
    offer_thumbnails(worker, gearman.clock)
    gearman.wait(worker.start())
    assert gearman.wait(thumbnail_of(client, b"image:cat")) == b"thumbnail:cat"
    assert gearman.clock.seconds() == 2
