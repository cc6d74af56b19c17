from twisted.trial.unittest import SynchronousTestCase

from txgearman.server import ScheduleSettings, Settings
from txgearman.testing import MemoryGearman


class ReportTests(SynchronousTestCase):
    def test_a_report_each_hour(self):
        hourly = ScheduleSettings(function="report", every=3600.0, data="orders")
        gearman = MemoryGearman(Settings(schedules={"hourly-report": hourly}))
        worker = gearman.worker()
        reports = []
        worker.register("report", lambda job: reports.append(job.data))
        gearman.wait(worker.start())
        gearman.turn(3 * 3600)
        self.assertEqual(reports, [b"orders"] * 3)
