"""What can go wrong with a job, and how to tell."""

from txgearman import Client
from txgearman.errors import ConnectionLost, JobFailed, JobRaised, NotConnected, ServerError, TimedOut


async def run(client: Client, function: str, data: bytes) -> str:
    try:
        job = await client.submit(function, data, timeout=10)
        result = await job.result(timeout=60)
        outcome = f"result: {result.decode()}"
    except NotConnected as error:
        outcome = f"nothing was sent: {error}"
    except ConnectionLost as error:
        outcome = f"the job may run or may have run: {error}"
    except TimedOut as error:
        outcome = f"the job may still run: {error}"
    except ServerError as error:
        outcome = f"refused: {error.code}"
    except JobRaised as error:
        outcome = f"failed: {error.data.decode()}"
    except JobFailed:
        outcome = "failed"
    return outcome
