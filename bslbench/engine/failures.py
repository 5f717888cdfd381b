"""Why a run failed, in one line and in full."""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bslbench.engine.store import Run
from bslbench.errors import BslbenchError, RunFailed, StoreError
from bslbench.files import write_atomically
from bslbench.training import Interrupted


@contextmanager
def recording_failure(run: Run) -> Iterator[None]:
    """Leave the reason of a run's failure in its folder; being stopped is none.

    Raises
    ------
    RunFailed
        With the reason.
    """
    try:
        yield
    except (Interrupted, StoreError):
        raise
    except Exception as error:
        reason = reason_of(error)
        record_failure(run, reason, traceback.format_exc())
        raise RunFailed(reason) from error


def record_failure(run: Run, reason: str, trace: str = "") -> None:
    """Write ``failure.json``."""
    content = json.dumps({"reason": reason, "traceback": trace}, indent=1)
    write_atomically(run.file("failure.json"), content + "\n")


def reason_of(error: BaseException) -> str:
    """Return one line that says why a run failed; want of memory is named as such."""
    text = str(error) if isinstance(error, BslbenchError) else f"{type(error).__name__}: {error}"
    line = next(iter(text.splitlines()), text)
    return f"out of memory: {line}" if of_memory(error) else line


def of_memory(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, is for want of memory."""
    cause: BaseException | None = error
    while cause is not None:
        memory = isinstance(cause, MemoryError | torch.OutOfMemoryError)
        if memory or "can't allocate memory" in str(cause):
            return True
        cause = cause.__cause__
    return False
