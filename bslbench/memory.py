"""How much memory there is, so that what cannot fit is refused; what is freed is kept at hand."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bslbench.errors import RunFailed

CGROUPS = Path("/sys/fs/cgroup")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What glibc's malloc.h calls two of its limits."""


def available() -> int | None:
    """Return the bytes that this process can still have, None where the system does not tell.

    The smaller of what the machine has left and what a container's limit leaves.
    """
    if trim := from_glibc("malloc_trim"):  # what `keep_freed` keeps can be had too
        trim(0)
    return min(_left(), default=None)


def _left() -> Iterator[int]:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
    limit, used = (_lines(CGROUPS / f"memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdigit():
        cached = [
            line.split()[1] for line in _lines(CGROUPS / "memory.stat") if "inactive_file" in line
        ]
        yield int(limit[0]) - int(used[0]) + sum(map(int, cached))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def require(n_bytes: int, what: str) -> None:
    """Raise a `RunFailed` that names both figures unless `n_bytes` can be had."""
    left = available()
    if left is not None and n_bytes > left:
        raise RunFailed(f"{what} needs {gigabytes(n_bytes)} of memory, {gigabytes(left)} are free")


def gigabytes(n_bytes: float) -> str:
    """Return an amount of memory as it is shown.

    Examples
    --------
    >>> gigabytes(5.8e9)
    '5.8 GB'
    """
    return f"{n_bytes / 1e9:.1f} GB"


def keep_freed() -> None:
    """Let the process keep blocks that it frees, up to 1 GiB each, for its next step.

    glibc gives blocks of more than 32 MiB back, and the system clears every page of the next one:
    with [4096, 4096] scores that is a third of a step. At most 2 GiB lie idle at the end of the
    heap. Other C libraries stay as they are.
    """
    mallopt = from_glibc("mallopt")
    # Older versions take no more than 32 MiB, and setting either ends glibc's own adjustment:
    # alone, the other would have blocks of 128 KiB mapped anew.
    if mallopt and (mallopt(MMAP_THRESHOLD, 2**30) or mallopt(MMAP_THRESHOLD, 2**25)):
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def from_glibc(name: str) -> Any:
    """Return a function of the C library, None where that is not glibc's."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
