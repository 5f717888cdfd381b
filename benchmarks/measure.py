"""Meters for time and memory, turns, and what the machine can do at best."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Protocol

import torch

from bslbench.memory import MMAP_THRESHOLD, TRIM_THRESHOLD, from_glibc, keep_freed

MIB = 2**20


class Meter(Protocol):
    """Reads something off between `begin` and `end`; an action may do so several times."""

    readings: list[float]

    def begin(self) -> None: ...

    def end(self) -> None: ...


Action = Callable[[Meter], None]
"""Does the work once or several times, each time between `begin` and `end` of the meter."""


class Clock:
    """Seconds."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.readings: list[float] = []
        self.started = 0.0

    def begin(self) -> None:
        wait(self.device)
        self.started = perf_counter()

    def end(self) -> None:
        wait(self.device)
        self.readings.append(perf_counter() - self.started)


class Memory:
    """Peak MiB above what was held at `begin`: of the whole process, or of the device.

    On the CPU what the allocator holds back is returned to the system first; the peak is the
    kernel's own high-water mark, so that no allocation of any library escapes. NaN where the
    system has no such mark.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.readings: list[float] = []
        self.before = 0.0

    def begin(self) -> None:
        if self.device != "cpu":
            wait(self.device)
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / MIB
            return
        if trim := from_glibc("malloc_trim"):
            trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the mark falls to the present size
        except OSError:
            self.before = float("nan")
            return
        self.before = resident("VmRSS")

    def end(self) -> None:
        wait(self.device)
        peak = (
            resident("VmHWM") if self.device == "cpu" else torch.cuda.max_memory_allocated() / MIB
        )
        self.readings.append(max(0.0, peak - self.before))


def resident(field: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process in MiB, NaN where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def give_back() -> None:
    """Have glibc give large blocks back to the system, as it does unless a program asks otherwise.

    `keep_freed`, which training calls, would spare the plain way of all that it pays for them.
    """
    if mallopt := from_glibc("mallopt"):
        mallopt(MMAP_THRESHOLD, 2**25)  # where glibc's own adjustment of the two ends
        mallopt(TRIM_THRESHOLD, 2**26)
        from_glibc("malloc_trim")(0)


def wait(device: str) -> None:
    """Wait for the device; the CPU is always done."""
    if device != "cpu":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Machine:
    """The floors: float32 GEMM rate, and the memory bandwidth of an addition of long vectors."""

    flops: float
    bandwidth: float

    @classmethod
    def measure(cls, device: str) -> "Machine":
        n = 2048 if device == "cpu" else 8192
        a, b = torch.randn(2, n, n, device=device)
        c = torch.empty_like(a)
        x, y = torch.randn(2, 2**25, device=device)
        z = torch.empty_like(x)
        gemm = best(lambda: torch.matmul(a, b, out=c), device)
        add = best(lambda: torch.add(x, y, out=z), device)
        return cls(2 * n**3 / gemm, 3 * 4 * len(x) / add)


def best(function: Callable[[], object], device: str, times: int = 7) -> float:
    """Return the seconds of the fastest of several calls."""
    clock = Clock(device)
    for _ in range(times):
        clock.begin()
        function()
        clock.end()
    return min(clock.readings)


@dataclass(frozen=True)
class Case:
    """One row of the table: our way, the plain way if there is one, and the least of work.

    `flops` and `traffic` (bytes) are what no formulation on this machine can do without.
    """

    ours: Action
    plain: Action | None = None
    flops: float = 0.0
    traffic: float = 0.0


@dataclass(frozen=True)
class Row:
    """Medians of one case; MiB are of one call, None without a plain way or a floor."""

    name: str
    ms: float
    mib: float
    plain_ms: float | None = None
    plain_mib: float | None = None
    ratio: float | None = None
    """Plain over ours."""
    floor: float | None = None
    """The time that the machine's measured floors allow, over ours."""


def measure(name: str, case: Case, machine: Machine, device: str, rounds: int) -> Row:
    """Take turns `rounds` times, after one call each to warm up and one for memory.

    What a side frees is kept at hand or given back as it is where that side runs alone.
    """
    sides = [(keep_freed, case.ours)]
    if case.plain:
        sides.append((give_back, case.plain))
    mib, clocks = [], [Clock(device) for _ in sides]
    for prepare, action in sides:
        prepare()
        action(Clock(device))
        memory = Memory(device)
        action(memory)
        mib.append(median(memory.readings))
    for _ in range(rounds):
        for (prepare, action), clock in zip(sides, clocks, strict=True):
            prepare()
            action(clock)
    ms = [1e3 * median(clock.readings) for clock in clocks]
    least = 1e3 * max(case.flops / machine.flops, case.traffic / machine.bandwidth)
    return Row(
        name,
        ms[0],
        mib[0],
        plain_ms=ms[1] if case.plain else None,
        plain_mib=mib[1] if case.plain else None,
        ratio=ms[1] / ms[0] if case.plain else None,
        floor=least / ms[0] if least else None,
    )
