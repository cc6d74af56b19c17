"""Run with: python -m twisted.trial test_with_trial"""

from thumbnails import offer_thumbnails, thumbnail_of
from twisted.trial.unittest import SynchronousTestCase

from txgearman.errors import TimedOut
from txgearman.testing import MemoryGearman


class ThumbnailTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gearman = MemoryGearman()
        self.client = self.gearman.client()
        self.worker = self.gearman.worker()
        offer_thumbnails(self.worker, self.gearman.clock)

    def test_makes_a_thumbnail(self) -> None:
        self.gearman.wait(self.worker.start())
        self.assertEqual(self.gearman.wait(thumbnail_of(self.client, b"image:cat")), b"thumbnail:cat")

    def test_refuses_what_is_no_image(self) -> None:
        self.gearman.wait(self.worker.start())
        self.assertIsNone(self.gearman.wait(thumbnail_of(self.client, b"text")))

    def test_without_a_worker_the_job_waits(self) -> None:
        job = self.gearman.wait(self.client.submit("thumbnail", b"image:cat"))
        with self.assertRaises(TimedOut):
            self.gearman.wait(job.result(timeout=30))
        self.assertEqual(self.gearman.server.broker.total, 1)
