"""Many processes on one machine.

Each slot is a pool of one worker: a worker that is killed breaks its own pool and no other, and
shares no lock that it could take with it.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

from bslbench.engine.failures import reason_of
from bslbench.engine.jobs import Follower, Job, Listener, Result, Stop, lost, perform
from bslbench.engine.machine import set_threads, tell_of_compiling

LOOK_EVERY = 0.2
"""Seconds between two looks at the workers."""

GRACE = 10.0
"""Seconds that a worker has to keep its state when its time is up."""


@dataclass(frozen=True)
class Processes:
    """An executor of `jobs` processes with `threads` threads each.

    A run that takes longer than `timeout` seconds is stopped and has failed; what it has kept, the
    next call goes on from.
    """

    jobs: int
    threads: int
    timeout: float | None = None

    def __call__(self, jobs: Iterable[Job], listener: Listener, stop: Stop) -> None:
        """Run jobs, as many at a time as there are processes."""
        feed = iter(jobs)
        slots = [_Slot(self.threads, self.timeout) for _ in range(self.jobs)]
        try:
            while True:
                for slot in slots:
                    if not slot.busy and not stop() and (job := next(feed, None)):
                        slot.start(job, listener)
                busy = [slot for slot in slots if slot.busy]
                if not busy:
                    return
                wait([slot.future for slot in busy], LOOK_EVERY, FIRST_COMPLETED)
                for slot in busy:
                    if stop():
                        slot.ask_to_stop()
                    slot.look(listener)
        finally:
            for slot in slots:
                if slot.busy:
                    slot.kill()
            # Waited for: Python, if it ends meanwhile, may wake a pool's thread that has just gone.
            for slot in slots:
                slot.pool.shutdown(cancel_futures=True)


class _Slot:
    """A worker, replaced when it dies, and the job that it is at."""

    def __init__(self, threads: int, timeout: float | None) -> None:
        self.threads = threads
        self.timeout = timeout
        self.busy = False
        self.open()

    def open(self) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context(
            "forkserver" if "forkserver" in methods else "spawn"
        )
        context.set_forkserver_preload([__name__])
        # Shared without locks, which a killed worker could take with it.
        self.asked, self.pid = context.RawValue("b", 0), context.RawValue("i", 0)
        shared = self.threads, self.asked, self.pid
        self.pool = ProcessPoolExecutor(1, context, _begin, shared)

    def start(self, job: Job, listener: Listener) -> None:
        self.job, self.busy = job, True
        try:
            self.future: Future[Result] = self.pool.submit(_work, job)
        except BrokenProcessPool:  # killed while it had nothing to do
            self.open()
            self.future = self.pool.submit(_work, job)
        self.follower = Follower(job, listener)
        self.deadline = monotonic() + self.timeout if self.timeout else float("inf")
        self.overdue = False
        listener.started(job.cell)

    def ask_to_stop(self) -> None:
        self.asked.value = 1

    def look(self, listener: Listener) -> None:
        """Tell how the job gets on, or how it ended."""
        self.follower.look()
        if self.future.done():
            self.busy = False
            listener.ended(self.job, self._result())
        elif monotonic() > self.deadline and not self.overdue:
            self.ask_to_stop()
            self.overdue = True
            self.deadline += GRACE
        elif monotonic() > self.deadline:
            self.kill()

    def _result(self) -> Result:
        reason = f"it took longer than the timeout of {self.timeout:g} s" if self.overdue else ""
        try:
            result = self.future.result()
        except BrokenProcessPool:
            asked = self.asked.value and not self.overdue
            self.pool.shutdown(wait=False, cancel_futures=True)
            self.open()
            if asked:
                return Result("interrupted")
            reason = reason or "its worker was killed, most often for want of memory"
        except Exception as error:
            reason = reason_of(error)
        else:
            self.asked.value = 0 if self.overdue else self.asked.value
            if not (self.overdue and result.kind == "interrupted"):
                return result
        return lost(self.job, reason)

    def kill(self) -> None:
        self.ask_to_stop()  # for one that is only just starting
        if self.pid.value:
            with suppress(ProcessLookupError):
                os.kill(self.pid.value, signal.SIGKILL)


# In the worker


_at_work = Lock()
_told = Event()
_asked: Any = None


def _begin(threads: int, asked: Any, pid: Any) -> None:
    """Prepare a worker: Ctrl-C is its parent's to answer; without a parent it keeps and leaves."""
    global _asked
    _asked, pid.value = asked, os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: _told.set())
    set_threads(threads)
    tell_of_compiling()
    Thread(target=_outlive, daemon=True).start()


def _outlive() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    _asked.value = 1
    _at_work.acquire(timeout=GRACE)  # a fit in native code looks at nothing: it is given up
    os._exit(1)


def _work(job: Job) -> Result:
    with _at_work:
        _told.clear()
        return perform(job, lambda: bool(_asked.value) or _told.is_set())
