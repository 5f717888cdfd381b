"""bslbench: which loss function should a recommender be trained with?

>>> import bslbench
>>> grid = bslbench.Grid(name="trial", losses=["sl", "bsl"], seeds=2)

``bslbench.run(grid)`` trains it and returns a DataFrame, ``bslbench.results("trial")`` reads it
again, and ``bslbench.SL(tau=0.1)(pos, neg)`` is a loss for anybody's training code.
"""

import os
import platform
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bslbench.api import results, run
    from bslbench.config import Grid
    from bslbench.losses import (
        BC,
        BCE,
        BPR,
        BSL,
        CCL,
        DCL,
        GBCE,
        LLPAUC,
        LOSSES,
        MAWU,
        MSE,
        PSL,
        RCE,
        SL,
        SSM,
        TCE,
        WARP,
        AdapTau,
        AdvInfoNCE,
        BSLInBatch,
        BSLReweight,
        BSLScaled,
        DirectAU,
        DrRL,
        FullSoftmax,
        Hinge,
        SimCE,
        SLatK,
        SLShift,
        SogCLR,
        Talos,
    )

# Threads that spin for long after a parallel region starve those of the next library's, or of the
# next process's, tenfold where cores are few. To wake them costs more than many a kernel takes, so
# GNU's spin 3,000 times: some 30 microseconds on an EPYC, by its pauses more on an Intel. OpenMP
# reads this once, when torch loads it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def _on_intel() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return "GenuineIntel" in file.read(4096)
    except OSError:
        return "GenuineIntel" in platform.processor()


# On Intel's processors MKL splits long sums among the threads unless told not to: bits would depend
# on their number. On others it does not, and this would bar its fastest code; uneven products need
# care on both, and kernels/gemm.py takes it.
if _on_intel():
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

__version__ = "0.7.0"

__all__ = [
    "BC",
    "BCE",
    "BPR",
    "BSL",
    "CCL",
    "DCL",
    "GBCE",
    "LLPAUC",
    "LOSSES",
    "MAWU",
    "MSE",
    "PSL",
    "RCE",
    "SL",
    "SSM",
    "TCE",
    "WARP",
    "AdapTau",
    "AdvInfoNCE",
    "BSLInBatch",
    "BSLReweight",
    "BSLScaled",
    "DirectAU",
    "DrRL",
    "FullSoftmax",
    "Grid",
    "Hinge",
    "SLShift",
    "SLatK",
    "SimCE",
    "SogCLR",
    "Talos",
    "results",
    "run",
]

_HOMES = {"Grid": "bslbench.config", "results": "bslbench.api", "run": "bslbench.api"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing bslbench costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'bslbench' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "bslbench.losses")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
