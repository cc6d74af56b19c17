"""Declares the commands that submit and run jobs: arguments, options and help.

What they do is in `submission` and `worker`.
"""

from __future__ import annotations

import sys
from datetime import datetime

import click

from txgearman.cli.completion import complete_function
from txgearman.cli.options import common_options, json_option, run_and_exit
from txgearman.cli.parameters import Duration, Moment, WholeNumber
from txgearman.job_limits import MAX_ATTEMPTS, MAX_SECONDS

_JOB_DURATION = Duration(allow_zero=True, longest=MAX_SECONDS)


@click.command(short_help="Submit jobs and show their results.")
@click.argument("function", shell_complete=complete_function)
@click.argument("payloads", metavar="[PAYLOAD]...", nargs=-1)
@common_options
@click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    help="A file with the payload, - for standard input. Can be given several times, for a job each.",
)
@click.option("-l", "--lines", is_flag=True, help="Make a job of each line of the file or standard input.")
@click.option(
    "-j",
    "--jobs",
    metavar="N",
    type=WholeNumber(min=1),
    default=16,
    show_default=True,
    help="How many of many jobs may be under way at once.",
)
@click.option("-b", "--background", is_flag=True, help="Make offline jobs; print their handles.")
@click.option(
    "--at",
    "run_at",
    metavar="TIME",
    type=Moment(),
    help="Not before this time, such as 2030-12-24T18:00 or +5m; an offline job.",
)
@click.option(
    "--expires",
    metavar="DURATION",
    type=_JOB_DURATION,
    help="No run begins later than this after the submission or --at, such as 2d; 0 is never.",
)
@click.option(
    "--attempts",
    metavar="N",
    type=WholeNumber(1, MAX_ATTEMPTS),
    help="How many runs may fail; the server runs a failed job again.",
)
@click.option(
    "--backoff",
    metavar="DURATION",
    type=_JOB_DURATION,
    help="How long a failed job waits before its first retry.",
)
@click.option(
    "--unique-for",
    metavar="DURATION",
    type=_JOB_DURATION,
    help="For how long after the job's completion a submission with its key is not run.",
)
@click.option(
    "--keep-result",
    metavar="DURATION",
    type=_JOB_DURATION,
    help="For how long the server keeps the result of an offline job.",
)
@click.option(
    "--traceparent",
    metavar="TEXT",
    help="The span that the job belongs to, as the W3C writes it, such as $TRACEPARENT.",
)
@click.option(
    "-u",
    "--unique",
    metavar="KEY",
    help="Join the job of this function with this key, if there is one. The key - is the payload itself.",
)
@click.option(
    "-p",
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    default="normal",
    show_default=True,
    help="Which of the waiting jobs a worker gets first.",
)
@click.option(
    "--timeout", metavar="DURATION", type=Duration(), help="How long a job may take, such as 30s; no limit."
)
@click.option(
    "--retry",
    metavar="N",
    type=WholeNumber(min=0),
    default=0,
    show_default=True,
    help="How often to submit a job again whose connection was lost. It may then run twice.",
)
@json_option
def submit(
    function: str,
    payloads: tuple[str, ...],
    servers: tuple[str, ...],
    verbose: bool,
    files: tuple[str, ...],
    lines: bool,
    jobs: int,
    background: bool,
    run_at: datetime | None,
    expires: float | None,
    attempts: int | None,
    backoff: float | None,
    unique_for: float | None,
    keep_result: float | None,
    traceparent: str | None,
    unique: str | None,
    priority: str,
    timeout: float | None,
    retry: int,
    as_json: bool,
) -> None:
    """Submit a job of FUNCTION for each PAYLOAD, and write the results to standard output.

    Without a PAYLOAD it is read from a file, or from standard input. Data that a single job sends is
    written as it comes; a status is shown as a progress bar where standard error is a terminal. The
    results of several jobs are written in the order of their payloads, each with a line end after it.
    """
    if payloads and (files or lines):
        raise click.UsageError("give payloads as arguments or in files, not both")
    if lines and len(files) > 1:
        raise click.UsageError("--lines takes one file")
    if unique not in (None, "-") and (lines or len(payloads) > 1 or len(files) > 1):
        raise click.UsageError("with one --unique all these jobs would be one; only - makes sense")
    from txgearman.cli import payloads as sources
    from txgearman.cli.exit_codes import ExitCode
    from txgearman.cli.submission import SubmitOptions, submit_many, submit_one
    from txgearman.client import Priority

    job_options = {
        "expires": expires,
        "attempts": attempts,
        "backoff": backoff,
        "unique_for": unique_for,
        "keep_result": keep_result,
        "traceparent": traceparent,
    }
    options = SubmitOptions(
        function, unique, Priority(priority), background, run_at, timeout, retry, as_json, jobs, job_options
    )
    if lines:
        stream = click.open_file(files[0] if files else "-", "rb")
        main = submit_many(list(servers), options, lambda reactor: sources.lines_of(reactor, stream))
    elif len(payloads) > 1:
        given = sources.KnownPayloads(
            [text.encode("utf-8", "surrogateescape") for text in payloads], len(payloads)
        )
        main = submit_many(list(servers), options, lambda _: given)
    elif len(files) > 1:
        main = submit_many(list(servers), options, lambda _: sources.from_files(files))
    elif payloads:
        main = submit_one(list(servers), options, payloads[0].encode("utf-8", "surrogateescape"))
    else:
        try:
            data = sources.read_file(files[0] if files else "-")
        except OSError as error:
            raise click.UsageError(str(error)) from error
        except KeyboardInterrupt:
            click.get_current_context().exit(ExitCode.INTERRUPTED)
        main = submit_one(list(servers), options, data)
    run_and_exit(main, verbose)


@click.command(
    short_help="Run jobs, by a command or a Python function.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("command", metavar="[COMMAND [ARGUMENT]...]", nargs=-1, type=click.UNPROCESSED)
@common_options
@click.option(
    "-f",
    "--function",
    "functions",
    metavar="FUNCTION",
    multiple=True,
    shell_complete=complete_function,
    help="A function whose jobs COMMAND runs. Can be given several times.",
)
@click.option(
    "--python",
    "imported",
    metavar="[FUNCTION=]MODULE:NAME",
    multiple=True,
    help="Python code whose jobs are of FUNCTION, by default of NAME. Can be given several times.",
)
@click.option(
    "-j",
    "--jobs",
    metavar="N",
    type=WholeNumber(min=1),
    help="How many jobs may run at once: 1, or as many as there are threads or processes.",
)
@click.option(
    "--threads", metavar="N", type=WholeNumber(min=1), help="Run blocking Python functions in N threads."
)
@click.option(
    "--processes",
    metavar="N",
    type=WholeNumber(min=1),
    help="Run blocking Python functions in N processes.",
)
@click.option(
    "-l", "--lines", is_flag=True, help="Send each line that COMMAND writes at once, as data of the job."
)
@click.option(
    "--timeout",
    metavar="DURATION",
    type=Duration(),
    help="How long a job may run; then it fails, and COMMAND is killed. No limit by default.",
)
@click.option("--client-id", metavar="NAME", help="The name that the server shows for this worker.")
@click.option(
    "--drain",
    metavar="DURATION",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long jobs that run may take to end after SIGTERM or Ctrl-C.",
)
@click.option(
    "--heartbeat",
    is_flag=True,
    help="Tell the server that jobs still run, where it takes jobs from workers that are silent for long.",
)
def worker(
    command: tuple[str, ...],
    servers: tuple[str, ...],
    verbose: bool,
    functions: tuple[str, ...],
    imported: tuple[str, ...],
    jobs: int | None,
    threads: int | None,
    processes: int | None,
    lines: bool,
    timeout: float | None,
    client_id: str | None,
    drain: float,
    heartbeat: bool,
) -> None:
    """Run jobs until it is told to stop.

    COMMAND is run for each job of the functions named with --function, with the payload on its standard
    input; what it writes to its standard output is the result. If its exit code is not 0 the job fails: with
    75 it is to be retried, with 65 no retry can help. A COMMAND without arguments is a line for the shell.

    With --python functions of Python are called with a Job, as those of txgearman.Worker. They are looked
    for in the current folder, too.

    SIGTERM and Ctrl-C end it once the running jobs have ended; a second one ends it at once.
    """
    if bool(command) != bool(functions):
        raise click.UsageError("a COMMAND needs --function, and --function a COMMAND")
    if not (command or imported):
        raise click.UsageError("nothing to run: give --function and a COMMAND, or --python")
    if threads and processes:
        raise click.UsageError("Python functions run in threads or in processes, not both")
    if (threads or processes) and not imported:
        raise click.UsageError("--threads and --processes are for --python; a COMMAND takes --jobs")
    if lines and not command:
        raise click.UsageError("--lines is for a COMMAND")
    sys.path.insert(0, "")
    from txgearman.cli.worker import WorkerOptions, work

    options = WorkerOptions(
        command, functions, imported, jobs, threads, processes, lines, timeout, client_id, drain, heartbeat
    )
    run_and_exit(work(list(servers), options), verbose, warnings=True)
