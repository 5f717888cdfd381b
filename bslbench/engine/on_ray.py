"""A Ray cluster, given or started here: nodes may come and go, a lost one costs what it ran.

Where all nodes see the results folder, workers claim and write runs there. Else the driver claims,
sends along the state to go on from, and writes what comes back.
"""

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from bslbench.catalog import data_dir
from bslbench.config import Cell
from bslbench.engine import ray_worker
from bslbench.engine.failures import reason_of
from bslbench.engine.jobs import Job, Listener, Result, Stop, lost
from bslbench.engine.machine import n_cores
from bslbench.engine.ray_worker import Files
from bslbench.errors import ConfigError, InUse
from bslbench.files import write_atomically

TRIES = 4
"""How often a cell is started whose worker or node gets lost."""


@dataclass(frozen=True)
class OnRay:
    """An executor of one Ray task per cell.

    Parameters
    ----------
    address
        Of the cluster; None starts one on this machine, for as long as it is needed.
    threads, gpus
        What a cell gets.
    jobs
        Cells at a time; None for as many as the cluster holds.
    timeout
        Seconds after which a cell has failed.
    """

    address: str | None
    threads: int
    gpus: float
    jobs: int | None
    timeout: float | None

    def __call__(self, jobs: Iterable[Job], listener: Listener, stop: Stop) -> None:
        """Run jobs, as many at a time as fit."""
        ray, queue = _import_ray(), deque(jobs)
        with _connected(ray, self.address), _token(ray, queue[0].root.resolve()) as token:
            driver = _Driver(self, ray, token, listener)
            try:
                driver.drive(deque(map(_placeless, queue)), stop)
            finally:
                for task in driver.tasks.values():
                    task.claim.close()

    def at_a_time(self, ray: Any) -> int:
        """Return how many cells fit on the nodes that are there now."""
        there = ray.cluster_resources()
        fitting = there.get("CPU", 0) // self.threads
        if self.gpus:
            fitting = min(fitting, there.get("GPU", 0) // self.gpus)
        return self.jobs or max(1, int(fitting))


@dataclass
class _Task:
    """A job on its way; `claim` holds its lock where the worker cannot."""

    job: Job
    claim: ExitStack
    deadline: float
    tries: int


class _Driver:
    """What the driver knows while tasks run."""

    def __init__(self, how: OnRay, ray: Any, token: Path | None, listener: Listener) -> None:
        self.how, self.ray, self.token, self.listener = how, ray, token, listener
        here = {"num_cpus": 0, "scheduling_strategy": _on_node(ray, _this_node(ray))}
        self.board = ray.remote(ray_worker.Board).options(**here).remote()
        needs = {"num_cpus": how.threads, "num_gpus": how.gpus, "max_retries": 0}
        self.work = ray.remote(ray_worker.work).options(**needs)
        self.tasks: dict[Any, _Task] = {}

    def drive(self, queue: deque[Job], stop: Stop) -> None:
        tries = dict.fromkeys((job.cell.id for job in queue), 0)
        while queue or self.tasks:
            if stop():
                queue.clear()
                self.board.stop.remote()
            while queue and len(self.tasks) < self.how.at_a_time(self.ray):
                job = queue.popleft()
                tries[job.cell.id] += 1
                self.start(job, tries[job.cell.id])
            done, _ = self.ray.wait(list(self.tasks), timeout=ray_worker.LOOK_EVERY)
            self.look()
            for ref in done:
                task = self.tasks.pop(ref)
                with task.claim:
                    result = self.result(ref, task)
                if result is None and stop():
                    result = Result("interrupted")
                if result is None:
                    queue.append(task.job)  # its worker or its node is gone
                else:
                    self.listener.ended(task.job, result)

    def start(self, job: Job, tries: int) -> None:
        state: Files = {}
        claim = ExitStack()
        if tries == 1:
            self.listener.started(job.cell)
        if self.token is None:
            try:
                claim.enter_context(job.run.claim())
            except InUse:
                return self.listener.ended(job, Result("held"))
            if not job.options.force and job.run.finished(job.cell, job.options.save_model):
                claim.close()
                return self.listener.ended(job, Result("found"))
            if job.options.force or not job.run.finished(job.cell):
                job.run.forget()  # what is found there from now on is this job's
            with suppress(FileNotFoundError):
                state["state.pt"] = job.run.file("state.pt").read_bytes()
        ref = self.work.remote(
            job, self.how.threads, self.board, self.token, state, _user_files(job.cell)
        )
        limit = monotonic() + self.how.timeout if self.how.timeout else float("inf")
        self.tasks[ref] = _Task(job, claim, limit, tries)

    def look(self) -> None:
        """Tell the last evaluations, and end tasks whose time is up."""
        cells = {task.job.cell.id: task.job.cell for task in self.tasks.values()}
        for cell_id, evaluation in self.ray.get(self.board.news.remote()).items():
            if cell_id in cells:
                self.listener.evaluated(cells[cell_id], evaluation)
        for ref, task in self.tasks.items():
            if monotonic() > task.deadline:
                self.ray.cancel(ref, force=True)

    def result(self, ref: Any, task: _Task) -> Result | None:
        """Return how a task ended; None if it was lost and is to be tried again."""
        errors = self.ray.exceptions
        try:
            result, files = self.ray.get(ref)
        except errors.RayTaskError as error:
            reason = reason_of(error.cause or error)
        except errors.OutOfMemoryError:
            reason = "out of memory: its worker was stopped by Ray"
        except errors.RayError as error:
            if monotonic() > task.deadline:
                reason = f"it took longer than the timeout of {self.how.timeout:g} s"
            elif task.tries < TRIES:
                return None
            else:
                reason = f"its worker was lost {TRIES} times: {reason_of(error)}"
        else:
            if files:
                _unpack(files, task.job)
            return Result(result.kind, result.reason, result.last)
        task.claim.close()
        return lost(task.job, reason)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return import_module("ray")
    except ImportError as error:
        raise ConfigError("the executor 'ray' needs Ray: pip install 'bslbench[ray]'") from error


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Join the cluster, or the one that this process has joined already, or start one."""
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        quiet |= {"num_cpus": n_cores(), "include_dashboard": False}
    try:
        host, _, port = (address or "").rpartition(":")
        if port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address or "local", **quiet)
    except OSError as error:
        raise ConfigError(f"no Ray cluster at '{address}'") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _token(ray: Any, root: Path) -> Iterator[Path | None]:
    """Yield a file in the results folder that every node sees; None where some do not."""
    token = root / f".ray-{uuid4().hex}"
    write_atomically(token, "")
    try:
        see = ray.remote(num_cpus=0, max_retries=0)(ray_worker.sees)
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - {_this_node(ray)}
        places = [_on_node(ray, node) for node in nodes]
        asked = [see.options(scheduling_strategy=place).remote(token) for place in places]
        yield token if _all(ray, asked) else None
    finally:
        token.unlink(missing_ok=True)


def _all(ray: Any, asked: list[Any]) -> bool:
    try:
        return all(ray.get(asked, timeout=60))
    except ray.exceptions.RayError:
        return False


def _this_node(ray: Any) -> str:
    return str(ray.get_runtime_context().get_node_id())


def _on_node(ray: Any, node: str) -> Any:
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)


def _placeless(job: Job) -> Job:
    """Return a job whose paths mean the same from any working directory."""
    options = replace(job.options, data=data_dir(job.options.data).resolve())
    return replace(job, root=job.root.resolve(), options=options)


def _user_files(cell: Cell) -> Files:
    places = (spec.rpartition(":")[0] for spec in (cell.loss_path, cell.backbone_path))
    return {place: Path(place).read_bytes() for place in places if place.endswith(".py")}


def _unpack(files: Files, job: Job) -> None:
    """Write a run's files, those first that do not say that it is finished."""
    # Those of an earlier run without its model may have other bits than what comes now.
    if files.keys() & {"metrics.csv", "model.safetensors", "ranks.npz"}:
        job.run.file("metrics.csv").unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: (name == "metrics.csv", name == "run.json")):
        write_atomically(job.run.file(name), files[name])
    for gone in {"state.pt", "failure.json", "progress.json"} - files.keys():
        job.run.file(gone).unlink(missing_ok=True)
