"""Client, worker and admin client for asyncio: those for Twisted, with futures for Deferreds.

Each has a Twisted reactor of its own on the running loop of asyncio, from its construction to its end. All
behaviour is in `txgearman.client` and `txgearman.worker`; none of it may be here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import CancelledError, Deferred

from txgearman.client import Admin as TwistedAdmin
from txgearman.client import Client as TwistedClient
from txgearman.client import Job as TwistedJob
from txgearman.client import JobOutcome, JobStatus, Update
from txgearman.client.job_window import OutcomeIterator
from txgearman.worker import Callback, Hooks
from txgearman.worker import Worker as TwistedWorker
from txgearman.worker.functions import Executor, Function

__all__ = ["Admin", "Client", "Job", "Worker", "future"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Call = TypeVar("_Call", bound=Callable[..., object])


def future(deferred: Deferred[_T]) -> asyncio.Future[_T]:
    """A future of the running loop, for Deferreds such as that of `txgearman.worker.Job.room`.

    Args:
        deferred: What the future waits for. Cancelling the future cancels it.

    Returns:
        The future, with the result of `deferred`.

    Raises:
        RuntimeError: No loop is running.
    """
    return deferred.asFuture(asyncio.get_running_loop())


class _LoopReactor(AsyncioSelectorReactor):
    """A reactor on the running loop, which asyncio runs and stops."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        # The loop runs already. A reactor that was not started looks up no host names.
        self.startRunning(installSignalHandlers=False)

    def callFromThread(self, *call: Any, **options: Any) -> None:
        # A thread may outlive the loop. Then nobody waits for its call.
        with contextlib.suppress(RuntimeError):
            super().callFromThread(*call, **options)  # type: ignore[no-untyped-call]

    def crash(self) -> None:
        # The base class would stop the loop.
        super(AsyncioSelectorReactor, self).crash()

    def _stopThreadPool(self) -> None:
        pool: Any = self.threadpool
        if pool.working:
            # The pool waits for its threads, and one of them may look up a server's name, which can take
            # long. The loop must not stand still for that.
            pool.stop = threading.Thread(target=pool.stop, daemon=True).start
        super()._stopThreadPool()

    def end(self) -> None:
        """Release all resources. Can be called again."""
        waker, self.waker = self.waker, None
        if waker is not None:
            self.fireSystemEvent("shutdown")
            self._removeInternalReader(waker)
            waker.connectionLost(None)


# -- one of Twisted's classes as one of asyncio ---------------------------------------------------


class _Wrapper:
    """Has the Twisted object `_twisted`, to which its methods delegate."""

    _twisted: Any


class _LoopBound(_Wrapper):
    """Has a Twisted object on a reactor of its own."""

    _reactor: _LoopReactor

    async def close(self) -> None:
        """Close the connections, for good."""
        try:
            await future(self._twisted.close())
        finally:
            self._reactor.end()

    async def __aenter__(self) -> Self:
        try:
            await future(self._twisted.connect())
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _constructor_of(
    declared: Callable[Concatenate[Any, _P], object], made: Callable[..., Any] | None = None
) -> Callable[[Callable[[Any], None]], Callable[Concatenate[Any, _P], None]]:
    """Give a constructor the signature of the class `declared`, without the reactor.

    It makes an object of that class, or of `made`.
    """

    def decorate(init: Callable[[Any], None]) -> Callable[Concatenate[Any, _P], None]:
        def make(self: Any, /, *arguments: _P.args, **options: _P.kwargs) -> None:
            self._reactor = _LoopReactor()
            try:
                self._twisted = (made or declared)(self._reactor, *arguments, **options)
            except BaseException:
                self._reactor.end()
                raise

        signature = inspect.signature(declared)
        _, *others = signature.parameters.values()
        myself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return _with_metadata(make, init, signature.replace(parameters=[myself, *others]))

    return decorate


def _delegated(
    method: Callable[Concatenate[Any, _P], _T],
) -> Callable[Concatenate[_Wrapper, _P], _T]:
    """A method that calls that of the Twisted object."""

    def call(self: _Wrapper, /, *arguments: _P.args, **options: _P.kwargs) -> _T:
        # Look it up by its name, as the object's class may override it.
        result: _T = getattr(self._twisted, method.__name__)(*arguments, **options)
        return result

    return _with_metadata(call, method, inspect.signature(method))


def _awaited(
    method: Callable[Concatenate[Any, _P], Deferred[_T]],
) -> Callable[Concatenate[_Wrapper, _P], asyncio.Future[_T]]:
    """A method that returns a future where that of the Twisted object returns a Deferred."""

    def call(self: _Wrapper, /, *arguments: _P.args, **options: _P.kwargs) -> asyncio.Future[_T]:
        return future(method(self._twisted, *arguments, **options))

    return _with_metadata(call, method, _with_future(method))


def _job_awaited(
    method: Callable[Concatenate[Any, _P], Deferred[TwistedJob]],
) -> Callable[Concatenate[_LoopBound, _P], asyncio.Future[Job]]:
    """As `_awaited`, for a method that returns a job."""

    def call(self: _LoopBound, /, *arguments: _P.args, **options: _P.kwargs) -> asyncio.Future[Job]:
        return future(method(self._twisted, *arguments, **options).addCallback(Job))

    return _with_metadata(call, method, _with_future(method))


def _outcomes_awaited(
    method: Callable[Concatenate[Any, _P], OutcomeIterator],
) -> Callable[Concatenate[_LoopBound, _P], Outcomes]:
    """A method that returns an iterator for asyncio where that of the Twisted object returns its own."""

    def call(self: _LoopBound, /, *arguments: _P.args, **options: _P.kwargs) -> Outcomes:
        return Outcomes(method(self._twisted, *arguments, **options))

    signature = inspect.signature(method).replace(return_annotation="Outcomes")
    return _with_metadata(call, method, signature)


def _with_future(method: Callable[..., object]) -> inspect.Signature:
    signature = inspect.signature(method)
    return signature.replace(return_annotation=signature.return_annotation.replace("Deferred", "Future"))


def _with_metadata(call: _Call, by: Callable[..., object], signature: inspect.Signature) -> _Call:
    """`call` with the name and the docstring of another function, and this signature."""
    functools.update_wrapper(call, by)
    described: Any = call
    del described.__wrapped__
    described.__signature__ = signature
    return call


# -- the client -----------------------------------------------------------------------------------


class Client(_LoopBound):
    """`txgearman.client.Client` for asyncio, with the same arguments but for the reactor.

    Construct it inside of a coroutine, and use it on the loop that runs then. Use it with ``async with``, or
    call `close` at the end. Methods return futures: ``await`` them, or give them to ``asyncio.gather`` and
    the like. What the Twisted client says of Deferreds holds of them.
    """

    _twisted: TwistedClient

    @_constructor_of(TwistedClient)
    def __init__(self) -> None:
        """Raises what Twisted's raises, and `RuntimeError` where no loop runs."""

    @property
    def servers(self) -> dict[str, bool]:
        """The servers by name, in the order given, and whether there is a connection to each now."""
        return self._twisted.servers

    connect = _awaited(TwistedClient.connect)
    submit = _job_awaited(TwistedClient.submit)
    submit_many = _awaited(TwistedClient.submit_many)
    run_many = _outcomes_awaited(TwistedClient.run_many)
    schedule = _awaited(TwistedClient.schedule)
    unschedule = _awaited(TwistedClient.unschedule)
    room = _awaited(TwistedClient.room)
    answered = _awaited(TwistedClient.answered)
    status_by_unique = _awaited(TwistedClient.status_by_unique)
    echo = _awaited(TwistedClient.echo)
    echo_each = _awaited(TwistedClient.echo_each)

    def status(self, job: Job | bytes | str, timeout: float | None = None) -> asyncio.Future[JobStatus]:
        """Ask for the state of a job, given as the `Job` or its handle, as the Twisted client does."""
        return future(self._twisted.status(job._twisted if isinstance(job, Job) else job, timeout))

    def result(
        self, job: Job | bytes | str, wait: bool = True, timeout: float | None = None
    ) -> asyncio.Future[Any]:
        """Ask for the result of an offline job, given as the `Job` or its handle, as the Twisted client
        does."""
        return future(self._twisted.result(job._twisted if isinstance(job, Job) else job, wait, timeout))


class Job(_Wrapper):
    """`txgearman.client.Job` for asyncio. What that says of Deferreds holds of futures."""

    _twisted: TwistedJob

    def __init__(self, twisted: TwistedJob) -> None:
        self._twisted = twisted

    def __repr__(self) -> str:
        return repr(self._twisted)

    @property
    def handle(self) -> bytes:
        """The server's name for the job."""
        return self._twisted.handle

    @property
    def server(self) -> str:
        """The name of the server that has the job."""
        return self._twisted.server

    @property
    def function(self) -> bytes:
        """The name of its function."""
        return self._twisted.function

    @property
    def unique(self) -> bytes:
        """The key given at its submission, empty without one."""
        return self._twisted.unique

    @property
    def background(self) -> bool:
        """Whether it has no result and no updates here."""
        return self._twisted.background

    @property
    def last_status(self) -> tuple[int, int]:
        """The newest numerator and denominator the worker sent, ``(0, 0)`` before the first."""
        return self._twisted.last_status

    result = _awaited(TwistedJob.result)
    on_data = _delegated(TwistedJob.on_data)
    on_warning = _delegated(TwistedJob.on_warning)
    on_status = _delegated(TwistedJob.on_status)

    def updates(self) -> AsyncIterator[Update]:
        """The job's updates from its start, for ``async for``; see `txgearman.client.Job.updates`."""
        return _Updates(self._twisted.updates())


class Outcomes:
    """The outcomes of many jobs, for ``async for``: what `Client.run_many` returns."""

    def __init__(self, twisted: OutcomeIterator) -> None:
        self._twisted = twisted

    def __aiter__(self) -> Outcomes:
        return self

    async def __anext__(self) -> JobOutcome:
        outcome = self._twisted.next_ready()
        return await future(Deferred.fromCoroutine(self._twisted.__anext__())) if outcome is None else outcome

    def close(self) -> None:
        """Give up the jobs that have not ended, and read no further payload."""
        self._twisted.close()

    async def aclose(self) -> None:
        """The same as `close`, by the name that asynchronous generators have."""
        self.close()


class _Updates:
    """The updates of a job, which can be read on after one that raised."""

    def __init__(self, twisted: AsyncIterator[Update]) -> None:
        self._twisted = twisted

    def __aiter__(self) -> _Updates:
        return self

    async def __anext__(self) -> Update:
        async def following() -> Update:
            return await anext(self._twisted)

        return await future(Deferred.fromCoroutine(following()))


# -- the admin client -----------------------------------------------------------------------------


class Admin(_LoopBound):
    """`txgearman.client.Admin` for asyncio, with the same arguments but for the reactor.

    Construct it inside of a coroutine. Use it with ``async with``, or call `close` at the end.
    """

    _twisted: TwistedAdmin

    @_constructor_of(TwistedAdmin)
    def __init__(self) -> None:
        """Raises what Twisted's raises, and `RuntimeError` where no loop runs."""

    connect = _awaited(TwistedAdmin.connect)
    status = _awaited(TwistedAdmin.status)
    priority_status = _awaited(TwistedAdmin.priority_status)
    schedules = _awaited(TwistedAdmin.schedules)
    workers = _awaited(TwistedAdmin.workers)
    jobs = _awaited(TwistedAdmin.jobs)
    unique_jobs = _awaited(TwistedAdmin.unique_jobs)
    job = _awaited(TwistedAdmin.job)
    dead = _awaited(TwistedAdmin.dead)
    version = _awaited(TwistedAdmin.version)
    getpid = _awaited(TwistedAdmin.getpid)
    verbose = _awaited(TwistedAdmin.verbose)
    set_max_queue = _awaited(TwistedAdmin.set_max_queue)
    cancel = _awaited(TwistedAdmin.cancel)
    retry = _awaited(TwistedAdmin.retry)
    forget = _awaited(TwistedAdmin.forget)
    kill = _awaited(TwistedAdmin.kill)
    retry_dead = _awaited(TwistedAdmin.retry_dead)
    forget_dead = _awaited(TwistedAdmin.forget_dead)
    create_schedule = _awaited(TwistedAdmin.create_schedule)
    drop_schedule = _awaited(TwistedAdmin.drop_schedule)
    pause_schedule = _awaited(TwistedAdmin.pause_schedule)
    resume_schedule = _awaited(TwistedAdmin.resume_schedule)
    run_schedule = _awaited(TwistedAdmin.run_schedule)
    create_function = _awaited(TwistedAdmin.create_function)
    drop_function = _awaited(TwistedAdmin.drop_function)
    functions = _awaited(TwistedAdmin.functions)
    connections = _awaited(TwistedAdmin.connections)
    find_jobs = _awaited(TwistedAdmin.find_jobs)
    limits = _awaited(TwistedAdmin.limits)
    function_limits = _awaited(TwistedAdmin.function_limits)
    limit_runs = _awaited(TwistedAdmin.limit_runs)
    set_max_rate = _awaited(TwistedAdmin.set_max_rate)
    pause_function = _awaited(TwistedAdmin.pause_function)
    resume_function = _awaited(TwistedAdmin.resume_function)
    quiet = _awaited(TwistedAdmin.quiet)
    drain = _awaited(TwistedAdmin.drain)
    reload = _awaited(TwistedAdmin.reload)
    shutdown = _awaited(TwistedAdmin.shutdown)


# -- the worker -----------------------------------------------------------------------------------


class _AsyncioWorker(TwistedWorker):
    """Runs awaitables of functions and hooks as tasks of asyncio."""

    def __init__(self, *arguments: Any, hooks: Hooks | None = None, **options: Any) -> None:
        if hooks is not None:
            hooks = Hooks(
                _as_deferred(hooks.before_job), _as_deferred(hooks.after_job), _as_deferred(hooks.on_failure)
            )
        super().__init__(*arguments, hooks=hooks, **options)

    def _function(
        self,
        name: bytes,
        callback: Callback,
        executor: Executor,
        timeout: int | None,
        time_limit: float | None,
    ) -> Function:
        # A thread has no loop, and a process must find the function by its name.
        if executor is Executor.REACTOR:
            callback = _as_deferred(callback)
        return super()._function(name, callback, executor, timeout, time_limit)


def _as_deferred(function: Any) -> Any:
    """The function, returning a Deferred where it returned an awaitable of asyncio."""
    if function is None:
        return None

    def run(*arguments: Any) -> Any:
        result = function(*arguments)
        if isinstance(result, Deferred) or not inspect.isawaitable(result):
            return result
        return Deferred.fromCoroutine(_await_in_task(result))

    return run


async def _await_in_task(awaitable: Awaitable[_T]) -> _T:
    task = asyncio.ensure_future(awaitable)
    try:
        return await Deferred.fromFuture(task)
    except asyncio.CancelledError:
        raise CancelledError from None


class Worker(_LoopBound):
    """`txgearman.worker.Worker` for asyncio, with the same arguments but for the reactor.

    Construct it inside of a coroutine. Start and stop it with ``async with``, or call `start`, and `stop` at
    the end.

    Functions and hooks may be coroutine functions that await what asyncio has, or return a coroutine, task or
    future in the loop's thread. Others run as with the Twisted worker: in the loop's thread, in threads or in
    processes.
    """

    _twisted: TwistedWorker

    @_constructor_of(TwistedWorker, _AsyncioWorker)
    def __init__(self) -> None:
        """Raises what Twisted's raises, and `RuntimeError` where no loop runs."""

    register = _delegated(TwistedWorker.register)
    unregister = _delegated(TwistedWorker.unregister)
    function = _delegated(TwistedWorker.function)

    def start(self) -> asyncio.Future[None]:
        """Connect, and keep connected until `stop`.

        Returns:
            A future that is done once the first connection is made.

        Raises:
            RuntimeError: The worker was stopped.
        """
        if self._reactor.waker is None:
            raise RuntimeError("the worker was stopped for good, make another")
        return future(self._twisted.start())

    async def stop(self, timeout: float | None = None) -> None:
        """Take no more jobs, let running ones end, and disconnect for good.

        Args:
            timeout: Seconds after which running jobs are cancelled. None stands for the worker's ``drain``.
        """
        try:
            await future(self._twisted.stop(timeout))
        finally:
            self._reactor.end()

    async def close(self) -> None:
        """The same as `stop`."""
        await self.stop()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop(0)
            raise
        return self
