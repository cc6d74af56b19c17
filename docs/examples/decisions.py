"""What a function can decide about its job."""

from txgearman.errors import FailJob, Reject, Retry
from txgearman.worker import Job


class Mailer:
    """Stands for what sends the mail."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers

    def deliver(self, _mail: bytes) -> int:
        return self.answers.pop(0)


mailer = Mailer([])


def send_mail(job: Job) -> bytes:
    if b"@" not in job.data:
        raise Reject("no address")  # no run can help
    answer = mailer.deliver(job.data)
    if answer == 421:
        raise Retry(delay=60, text="too busy", counts=False)  # as if it had not been tried
    if 400 <= answer < 500:
        raise Retry(text=f"refused for now: {answer}")  # after the backoff of its function
    if answer != 250:
        raise FailJob(f"refused: {answer}")
    return b""
