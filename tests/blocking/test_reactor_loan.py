"""Callers that read and write by themselves: that they do, who may when, and what signals do to them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import unittest
from contextlib import ExitStack
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.servers import LIMIT, BackgroundServer, reversing, until
from txgearman.blocking import reactor_loan
from txgearman.blocking.background_thread import BackgroundThread
from txgearman.blocking.reactor_loan import ReactorLoan

SUPPORTED = reactor_loan._SUPPORTED


@unittest.skipUnless(SUPPORTED, "the system has no poll or no masks of signals")
class Loans(SynchronousTestCase):
    """In this process, of a background thread that lends for longer than any test takes."""

    def setUp(self) -> None:
        self.patch(reactor_loan, "LOAN_SECONDS", LIMIT)
        self.background = BackgroundThread()
        self.background.start()
        self.addCleanup(self.background.stop)
        self.loan = self.background.loan

    def offer(self) -> None:
        # Not by `post`, which would recall the loan.
        reactor = self.background.reactor
        reactor.callFromThread(reactor.callLater, 0, lambda: self.loan._offer(self.loan._waits))
        until(lambda: self.loan._offered, "the reactor is offered")

    def in_thread(self, function: Any, *arguments: Any) -> Any:
        """What a function returns in a thread that is not the main thread."""
        returned: list[Any] = []
        thread = threading.Thread(target=lambda: returned.append(function(*arguments)))
        thread.start()
        thread.join(LIMIT)
        return returned[0]

    def borrow(self) -> threading.Event:
        """Let another thread take the loan. It gives it back when the event is set."""
        taken, done = threading.Event(), threading.Event()

        def borrower() -> None:
            if self.loan.take():
                taken.set()
                done.wait(LIMIT)
                self.loan.give_back()

        thread = threading.Thread(target=borrower)
        thread.start()
        self.addCleanup(thread.join, LIMIT)
        self.addCleanup(done.set)
        self.assertTrue(taken.wait(LIMIT))
        return done

    def test_nothing_is_lent_unasked(self) -> None:
        self.assertIs(self.in_thread(self.loan.take), False)

    def test_one_borrower_at_a_time(self) -> None:
        self.offer()
        done = self.borrow()
        self.assertIs(self.in_thread(self.loan.take), False)
        done.set()
        until(lambda: not self.loan.taken, "it is given back")
        self.borrow().set()

    def test_a_call_ends_the_loan(self) -> None:
        self.offer()
        self.assertEqual(self.background.call(lambda: 7, timeout=LIMIT / 2), 7)

    def test_a_posted_call_ends_the_loan(self) -> None:
        self.offer()
        called = threading.Event()
        self.background.post(called.set)
        self.assertTrue(called.wait(LIMIT / 2))

    def test_a_borrower_is_not_disturbed(self) -> None:
        """What is posted meanwhile runs when it has given the loan back."""
        self.offer()
        done = self.borrow()
        called = threading.Event()
        self.background.post(called.set)
        until(lambda: self.loan._recalled, "the loan is recalled")
        self.assertIs(called.is_set(), False)
        done.set()
        self.assertTrue(called.wait(LIMIT / 2))

    def test_a_wait_that_began_since_needs_the_thread(self) -> None:
        seen = self.loan._waits
        with self.loan.waiting():
            # It would stand still for longer than the call may take.
            self.background.post(self.background.reactor.callLater, 0, self.loan._offer, seen)
            self.assertEqual(self.background.call(lambda: 7, timeout=LIMIT / 2), 7)

    def test_no_loan_where_several_wait(self) -> None:
        def answer() -> bool:
            self.loan.offer_soon()
            return self.loan._offer_scheduled

        self.patch(reactor_loan, "CONTENTION_SECONDS", LIMIT)
        with self.loan.waiting():
            with self.loan.waiting():
                self.assertIs(self.background.call(answer), False)
            # One is gone, and may be back at once.
            self.assertIs(self.background.call(answer), False)
            self.loan._contended_until = 0.0
            answers: list[bool] = []
            self.background.reactor.callFromThread(lambda: answers.append(answer()))
            until(lambda: bool(answers), "it has answered")
            self.assertEqual(answers, [True])

    def test_a_sleeping_borrower_is_woken(self) -> None:
        """By whoever needs the background thread."""
        self.offer()
        woken: list[bool] = []
        sleeping = threading.Event()
        silent, other = socket.socketpair()
        self.addCleanup(silent.close)
        self.addCleanup(other.close)

        def borrower() -> None:
            if self.loan.take():
                try:
                    sleeping.set()
                    woken.append(self.loan.wait_readable(silent.fileno(), LIMIT))
                finally:
                    self.loan.give_back()

        thread = threading.Thread(target=borrower)
        thread.start()
        self.assertTrue(sleeping.wait(LIMIT))
        self.assertEqual(self.background.call(lambda: 7, timeout=LIMIT / 2), 7)
        thread.join(LIMIT)
        self.assertEqual(woken, [False])

    def test_a_handler_that_comes_when_the_time_is_over_gives_the_loan_back(self) -> None:
        self.offer()

        def sleeper() -> int:
            self.assertTrue(self.loan.take())
            with self.loan._recall:
                self.loan._recalled = True
                self.loan._recall.notify_all()
            until(lambda: not self.loan._offered, "the background thread waits for the end of the loan")
            self.loan._sleeping = True
            return int(self.background.call(lambda: 7, timeout=LIMIT / 2))

        self.assertEqual(self.in_thread(sleeper), 7)

    def test_the_end_of_the_thread_ends_the_loan(self) -> None:
        self.offer()
        self.background.stop()
        until(lambda: not self.loan._offered, "the loan has ended")
        self.assertIs(self.in_thread(self.loan.take), False)

    def test_the_main_thread_borrows_only_alone(self) -> None:
        """Where another thread may take a signal, its handler would strike in the middle of a loan."""
        self.offer()
        done = threading.Event()
        thread = threading.Thread(target=done.wait, args=(LIMIT,))
        thread.start()
        self.addCleanup(thread.join, LIMIT)
        self.addCleanup(done.set)
        self.assertIs(self.loan.take(), False)

    def test_a_handler_in_the_middle_of_a_loan_cannot_wait(self) -> None:
        self.offer()

        def borrower() -> str:
            if not self.loan.take():
                return "no loan"
            try:
                self.background.call(lambda: None)
            except RuntimeError as error:
                return str(error)
            finally:
                self.loan.give_back()
            return "it has waited"

        self.assertIn("cannot wait", self.in_thread(borrower))


START = """
import signal
import sys
from txgearman import blocking as gearman
from txgearman.blocking.reactor_loan import ReactorLoan
signal.signal(signal.SIGINT, signal.default_int_handler)
client = gearman.GearmanClient([sys.argv[1]])
read_alone = 0
original = ReactorLoan.wait_readable
def counting(*arguments):
    global read_alone
    readable = original(*arguments)
    read_alone += readable
    return readable
ReactorLoan.wait_readable = counting
"""

ALONE = """
for _ in range(5000):
    assert client.submit_job('reverse', 'ab').result == 'ba'
    assert client.submit_job('offline', '', background=True).state == gearman.JOB_CREATED
    if read_alone > 10:
        break
print(read_alone > 10)
"""

INTERRUPTED = """
client.submit_job('reverse', 'ab')
protocol = client.connection_list[0]._client.get()[1].protocol
for number in range(20):
    try:
        print('busy', flush=True)
        while True:
            assert client.submit_job('reverse', 'ab').result == 'ba'
    except KeyboardInterrupt:
        pass
print(client.submit_job('reverse', 'ab').result, read_alone > 0)
print(client.connection_list[0]._client.get()[1].protocol is protocol)
"""

HANDLER = """
client.submit_job('reverse', 'ab')
answers, armed = [], 0
def handler(*_):
    answers.append(client.submit_job('reverse', 'xy').result)
signal.signal(signal.SIGALRM, handler)
while len(answers) < 30:
    if len(answers) == armed:
        # One at a time: a handler must not interrupt the one before it for ever.
        armed += 1
        signal.setitimer(signal.ITIMER_REAL, 0.001)
    assert client.submit_job('reverse', 'ab').result == 'ba'
print(set(answers))
"""

MASK = """
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for _ in range(200):
    client.submit_job('reverse', 'ab')
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])) == [signal.SIGUSR1])
"""

STRUCK = """
from txgearman.blocking import reactor_loan
real, left = reactor_loan._pthread_sigmask, 0
def struck(how, signals):
    # A signal that came just ahead has its handler run when the mask is set.
    global left
    before = real(how, signals)
    left -= how == signal.SIG_BLOCK
    if left == 0:
        left = -1
        raise KeyboardInterrupt
    return before
reactor_loan._pthread_sigmask = struck
interrupted = 0
for number in range(40):
    left = 1 + number % 8
    try:
        for _ in range(20):
            client.submit_job('reverse', 'ab')
    except KeyboardInterrupt:
        interrupted += 1
        assert not client._thread.loan._sleeping
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), number
left = -1
print(interrupted > 20, client.submit_job('reverse', 'ab').result)
"""

FORKS = """
import os, warnings
warnings.simplefilter('ignore')
for _ in range(5):
    for _ in range(20):
        client.submit_job('reverse', 'ab')
    pid = os.fork()
    if not pid:
        # A child that used its parent's connection would take its answers.
        assert [client.submit_job('reverse', 'cd').result for _ in range(20)] == ['dc'] * 20
        os._exit(0)
    assert [client.submit_job('reverse', 'ab').result for _ in range(20)] == ['ba'] * 20
    assert os.waitpid(pid, 0)[1] == 0
print('forked')
"""


@unittest.skipUnless(SUPPORTED, "the system has no poll or no masks of signals")
class Programs(SynchronousTestCase):
    """In programs of their own, whose main thread is alone."""

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.server = stack.enter_context(BackgroundServer())
        stack.enter_context(reversing(self.server.address))

    def started(self, script: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", START + script, self.server.address],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_script(self, script: str) -> str:
        process = self.started(script)
        output, _ = process.communicate(timeout=3 * LIMIT)
        self.assertEqual(process.returncode, 0)
        return output

    def test_a_caller_that_is_alone_reads_by_itself(self) -> None:
        self.assertEqual(self.run_script(ALONE), "True\n")

    def test_ctrl_c_harms_no_connection(self) -> None:
        process = self.started(INTERRUPTED)
        assert process.stdout is not None
        for _ in range(20):
            self.assertEqual(process.stdout.readline(), "busy\n")
            process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=3 * LIMIT)
        self.assertEqual((output, process.returncode), ("ba True\nTrue\n", 0))

    def test_a_handler_may_use_the_client(self) -> None:
        self.assertEqual(self.run_script(HANDLER), "{'yx'}\n")

    def test_signals_that_the_program_blocks_stay_blocked(self) -> None:
        self.assertEqual(self.run_script(MASK), "True\n")

    def test_ctrl_c_while_signals_are_blocked_leaves_none_blocked(self) -> None:
        self.assertEqual(self.run_script(STRUCK), "True ba\n")

    def test_forks(self) -> None:
        self.assertEqual(self.run_script(FORKS), "forked\n")


class Unsupported(SynchronousTestCase):
    def test_nothing_is_offered(self) -> None:
        """On systems without poll or masks of signals all goes by the background thread."""
        self.patch(reactor_loan, "_SUPPORTED", False)
        background = BackgroundThread()
        background.start()
        self.addCleanup(background.stop)
        loan: ReactorLoan = background.loan

        def answer() -> bool:
            loan.offer_soon()
            return loan._offer_scheduled

        self.assertIs(background.call(answer), False)
