"""What a result was made on."""

import gc
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core import event

import bslbench

RULES = Path(bslbench.__file__).parent / "verdict.toml"
"""The rules of ``bslbench verdict``; a run carries the version in force when it was made."""

COMPILING = "compiling kernels, once on this machine for each embedding size; 10 to 20 seconds"


def n_cores() -> int:
    """Return how many cores this process may use: a batch system often gives only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(threads: int) -> None:
    """Let torch and numba use this many threads; results do not depend on it."""
    most: Any = numba.config
    # numba first: starting its pool, it sets OpenMP's number, torch's, to that of all cores.
    numba.set_num_threads(min(threads, most.NUMBA_NUM_THREADS))
    torch.set_num_threads(threads)


def tell_of_compiling(tell: Callable[[str], object] | None = None) -> None:
    """Say so, on stderr unless by `tell`, when this process compiles its first kernel.

    While it compiles, what there was before is kept from the garbage collector, which would go
    through all of torch again and again: this saves a twelfth of the time.
    """

    class Listener(event.Listener):
        told = False
        depth = 0  # a kernel compiles those that it calls

        def on_start(self, happened: Any) -> None:
            if self.depth == 0:
                gc.freeze()
            self.depth += 1
            if not self.told:
                self.told = True
                if tell:
                    tell(COMPILING)
                else:
                    print(COMPILING, file=sys.stderr, flush=True)

        def on_end(self, happened: Any) -> None:
            self.depth -= 1
            if self.depth == 0:
                gc.unfreeze()

    register: Any = event.register
    register("numba:compile", Listener())


@lru_cache
def bits_rest_on() -> dict[str, str]:
    """Return what must be the same for a run to end in the same bits: versions and processor."""
    return {
        "bslbench": bslbench.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "cpu": processor(),
    }


@lru_cache
def environment() -> dict[str, Any]:
    """Return what a result was made on: versions, processor, threads, revision, verdict rules."""
    return bits_rest_on() | {
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "revision": _revision(),
        "rules": tomllib.loads(RULES.read_text("utf-8"))["version"],
    }


def processor() -> str:
    """Return the processor's name and instructions."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _revision() -> str:
    """Return the git revision of a checkout of bslbench; empty if it is none, or without git."""
    package = Path(__file__).parents[2]
    if not (package / ".git").exists():
        return ""
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git on this machine
        return ""
