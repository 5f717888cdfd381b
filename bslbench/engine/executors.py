"""What runs the cells of a grid: this process, several, or a Ray cluster."""

from collections.abc import Iterable
from functools import partial

from bslbench.engine.jobs import Executor, Job, Listener, Stop, perform
from bslbench.engine.machine import n_cores, set_threads
from bslbench.engine.on_ray import OnRay
from bslbench.engine.processes import Processes
from bslbench.errors import ConfigError


def inline(jobs: Iterable[Job], listener: Listener, stop: Stop) -> None:
    """Run jobs one after the other in this process."""
    for job in jobs:
        if stop():
            return
        listener.started(job.cell)
        listener.ended(job, perform(job, stop, partial(listener.evaluated, job.cell)))


def executor_for(
    kind: str | None = None,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    ray_address: str | None = None,
    gpus_per_run: float = 0.0,
) -> Executor:
    """Return ``inline``, ``processes`` or ``ray``; by default what the number of jobs asks for.

    Parameters
    ----------
    jobs
        Cells at a time.
    threads
        Threads per cell; by default the cores are shared out among the processes, and Ray takes 1.
    timeout
        Seconds after which a cell has failed.
    ray_address, gpus_per_run
        The cluster, and what it reserves for a cell.

    Raises
    ------
    ConfigError
        For a combination that would be ignored.
    """
    if (ray_address or gpus_per_run) and kind != "ray":
        raise ConfigError("a Ray address, or GPUs per run, need the executor 'ray'")
    kind = kind or ("processes" if (jobs or 1) > 1 or timeout else "inline")
    if kind == "inline":
        if timeout or (jobs or 1) > 1:
            raise ConfigError("more than one job, or a timeout, needs the executor 'processes'")
        if threads:
            set_threads(threads)
        return inline
    if kind == "ray":
        return OnRay(ray_address, threads or 1, gpus_per_run, jobs, timeout)
    if kind != "processes":
        raise ConfigError(f"no executor named '{kind}'; known: inline, processes, ray")
    jobs = jobs or 1
    return Processes(jobs, threads or max(1, n_cores() // jobs), timeout)
