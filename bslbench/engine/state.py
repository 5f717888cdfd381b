"""What a run that was cut off goes on from: ``state.pt``, kept at evaluations and when stopped."""

import errno
import io
from collections.abc import Callable
from time import monotonic
from typing import Any

import torch

from bslbench.config import Cell
from bslbench.engine.failures import of_memory
from bslbench.engine.machine import bits_rest_on
from bslbench.engine.store import Run
from bslbench.errors import StoreError
from bslbench.files import write_atomically


class Keeper:
    """Keeps a run's state every so many seconds, and before it stops.

    Parameters
    ----------
    every
        Seconds between two writes.
    stop
        Asked after every step whether the run is to stop.
    """

    def __init__(self, cell: Cell, run: Run, every: float, stop: Callable[[], bool]) -> None:
        self.path = run.file("state.pt")
        self.made_by = _made_by(cell)
        self.every = every
        self.asked = stop
        self.stopping = False
        self.kept = monotonic()

    def stop(self) -> bool:
        """Tell whether the run is to stop; what `keep` is then given is kept in any case."""
        self.stopping = self.asked()
        return self.stopping

    def keep(self, state: dict[str, Any]) -> None:
        """Write the state, if it is time."""
        if self.stopping or monotonic() - self.kept >= self.every:
            buffer = io.BytesIO()
            torch.save({"made_by": self.made_by, **state}, buffer)
            write_atomically(self.path, buffer.getvalue())
            self.kept = monotonic()


def kept_state(cell: Cell, run: Run) -> dict[str, Any] | None:
    """Return what an earlier call kept, if it was the same cell on the same kind of machine.

    Raises
    ------
    StoreError
        If it is there and cannot be read.
    """
    path = run.file("state.pt")
    try:
        state = torch.load(path, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # torch.load raises many kinds on a damaged file
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which cut-off ones raise
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
        if of_memory(error):
            raise
        path.unlink(missing_ok=True)
        return None
    return dict(state) if state.pop("made_by", None) == _made_by(cell) else None


def _made_by(cell: Cell) -> str:
    """Return what must be the same for a resumed run to end in the same bits."""
    return f"{cell.canonical()} {bits_rest_on()}"
