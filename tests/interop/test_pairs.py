"""Each foreign client with each foreign worker through one server: every kind of answer a job can give."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.interop.answers import EVERY_BYTE, MEBIBYTE, answers, jobs_of, joined_answers
from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.foreign import (
    GEAR_CLIENT,
    GEAR_WORKER,
    GEARMAN_JS_CLIENT,
    GEARMAN_JS_WORKER,
    GEARMANODE_CLIENT,
    GEARMANODE_WORKER,
    PERL_DO,
    PERL_TASKS,
    PERL_WORKER,
    PHP_DO,
    PHP_TASKS,
    PHP_WORKER,
    PYGEARMAN_CLIENT,
    PYGEARMAN_WORKER,
    ForeignClient,
    ForeignWorker,
    Job,
)
from tests.support import on_reactor


class Pairs(Expectations):
    """Each client gets each worker's answers whole, in order, and once."""

    async def check(self, client: ForeignClient, worker: ForeignWorker) -> None:
        data = EVERY_BYTE if worker.binary else b"some text"
        async with self.serve() as server, worker.serving(server, self.prefix):
            told = await client.run(server, jobs_of(self.prefix, data))
        expected = answers(data) if client.streams else joined_answers(data)
        if not client.exceptions:
            expected[-1] = [("fail",)]
        self.assertEqual([told.events[index] for index in range(5)], expected)

    async def check_large(self, client: ForeignClient, worker: ForeignWorker) -> None:
        async with self.serve() as server, worker.serving(server, self.prefix):
            told = await client.run(server, [Job(f"{self.prefix}echo", EVERY_BYTE, repeat=MEBIBYTE)])
        self.assertEqual(told.events, {0: [("complete", EVERY_BYTE * MEBIBYTE)]})

    @on_reactor
    async def test_php_tasks_with_php_worker(self) -> None:
        await self.check(PHP_TASKS, PHP_WORKER)

    @on_reactor
    async def test_php_tasks_with_perl_worker(self) -> None:
        await self.check(PHP_TASKS, PERL_WORKER)

    @on_reactor
    async def test_php_tasks_with_gear_worker(self) -> None:
        await self.check(PHP_TASKS, GEAR_WORKER)

    @on_reactor
    async def test_php_do_with_php_worker(self) -> None:
        await self.check(PHP_DO, PHP_WORKER)

    @on_reactor
    async def test_perl_tasks_with_php_worker(self) -> None:
        await self.check(PERL_TASKS, PHP_WORKER)

    @on_reactor
    async def test_perl_tasks_with_perl_worker(self) -> None:
        await self.check(PERL_TASKS, PERL_WORKER)

    @on_reactor
    async def test_perl_tasks_with_gear_worker(self) -> None:
        await self.check(PERL_TASKS, GEAR_WORKER)

    @on_reactor
    async def test_perl_do_with_perl_worker(self) -> None:
        await self.check(PERL_DO, PERL_WORKER)

    @on_reactor
    async def test_gear_client_with_php_worker(self) -> None:
        await self.check(GEAR_CLIENT, PHP_WORKER)

    @on_reactor
    async def test_gear_client_with_perl_worker(self) -> None:
        await self.check(GEAR_CLIENT, PERL_WORKER)

    @on_reactor
    async def test_gear_client_with_gear_worker(self) -> None:
        await self.check(GEAR_CLIENT, GEAR_WORKER)

    @on_reactor
    async def test_gearmanode_client_with_php_worker(self) -> None:
        await self.check(GEARMANODE_CLIENT, PHP_WORKER)

    @on_reactor
    async def test_php_tasks_with_gearmanode_worker(self) -> None:
        await self.check(PHP_TASKS, GEARMANODE_WORKER)

    @on_reactor
    async def test_gearmanode_client_with_gearmanode_worker(self) -> None:
        await self.check(GEARMANODE_CLIENT, GEARMANODE_WORKER)

    @on_reactor
    async def test_gearman_js_client_with_php_worker(self) -> None:
        await self.check(GEARMAN_JS_CLIENT, PHP_WORKER)

    @on_reactor
    async def test_php_tasks_with_gearman_js_worker(self) -> None:
        await self.check(PHP_TASKS, GEARMAN_JS_WORKER)

    @on_reactor
    async def test_gearman_js_client_with_gearman_js_worker(self) -> None:
        await self.check(GEARMAN_JS_CLIENT, GEARMAN_JS_WORKER)

    @on_reactor
    async def test_large_data_both_ways_php(self) -> None:
        await self.check_large(PHP_TASKS, PHP_WORKER)

    @on_reactor
    async def test_large_data_both_ways_perl(self) -> None:
        await self.check_large(PERL_TASKS, PERL_WORKER)

    @on_reactor
    async def test_large_data_both_ways_gear(self) -> None:
        await self.check_large(GEAR_CLIENT, GEAR_WORKER)


class PairsTest(OnTxgearman, Pairs, TestCase):
    """On our server, with the package that gearmand's answers to exceptions put out of action."""

    @on_reactor
    async def test_pygearman_client_with_php_worker(self) -> None:
        await self.check(PYGEARMAN_CLIENT, PHP_WORKER)

    @on_reactor
    async def test_php_tasks_with_pygearman_worker(self) -> None:
        await self.check(PHP_TASKS, PYGEARMAN_WORKER)

    @on_reactor
    async def test_pygearman_client_with_pygearman_worker(self) -> None:
        await self.check(PYGEARMAN_CLIENT, PYGEARMAN_WORKER)


class PairsOnGearmandTest(OnGearmand, Pairs, TestCase):
    """On gearmand."""
