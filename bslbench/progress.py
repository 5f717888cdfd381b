"""How a grid gets on, live on a terminal and as plain lines elsewhere."""

from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bslbench.config import Cell
from bslbench.training import Evaluation

LINE_EVERY = 10.0
"""Seconds between two plain lines of one run."""


def describe(evaluation: Evaluation) -> str:
    """Return one evaluation in a few words.

    Examples
    --------
    >>> describe(Evaluation(epoch=3, loss=-1.5, recall=0.061, ndcg=0.05, seconds=4.2))
    'epoch 3  loss -1.5000  Recall@20 0.0610  4 s'
    """
    return (
        f"epoch {evaluation.epoch}  loss {evaluation.loss:.4f}  "
        f"Recall@20 {evaluation.recall:.4f}  {evaluation.seconds:.0f} s"
    )


class LiveWatcher:
    """A bar for the grid's cells and one for each running cell's epochs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self.grid = self.progress.add_task("grid", total=None, note="")
        self.runs: dict[str, TaskID] = {}
        self.last: dict[str, str] = {}

    def __enter__(self) -> "LiveWatcher":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def planned(self, n_cells: int, n_finished: int) -> None:
        """Set up the grid's bar."""
        self.progress.update(self.grid, total=n_cells, completed=n_finished)

    def started(self, cell: Cell) -> None:
        """Add the run's bar; the first call of a kernel compiles it."""
        epochs = cell.train.epochs if cell.train else None
        short = f"{cell.backbone} {cell.loss} s{cell.seed}"  # leaves the bars and the note room
        self.runs[cell.id] = self.progress.add_task(short, total=epochs, note="starting")

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
        """Advance the run's bar."""
        self.last[cell.id] = describe(evaluation)
        note = f"loss {evaluation.loss:.4f}  Recall@20 {evaluation.recall:.4f}"
        self.progress.update(self.runs[cell.id], completed=evaluation.epoch + 1, note=note)

    def ended(self, cell: Cell, failure: str = "") -> None:
        """Leave one line about the run above the bars."""
        self.left(cell)
        self.progress.advance(self.grid)
        last = self.last.pop(cell.id, "")
        mark = (
            f"[red]failed[/red]  {escape(failure)}" if failure else f"[green]done[/green]  {last}"
        )
        self.console.print(f"{escape(cell.id)}  {mark}", highlight=False, soft_wrap=True)

    def left(self, cell: Cell) -> None:
        """Take the run's bar away."""
        self.progress.remove_task(self.runs.pop(cell.id))

    def waiting(self, n_cells: int) -> None:
        """Say so in the grid's bar."""
        self.progress.update(self.grid, note=f"waiting for {n_cells} that other processes train")


class PlainWatcher:
    """One line per event, and per run at most one every `LINE_EVERY` seconds in between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.n_cells = self.n_done = self.n_waiting = 0
        self.spoken: dict[str, float] = {}
        self.last: dict[str, str] = {}

    def __enter__(self) -> "PlainWatcher":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to put away."""

    def planned(self, n_cells: int, n_finished: int) -> None:
        """Say how much there is to do."""
        self.n_cells, self.n_done = n_cells, n_finished
        self._line(f"{n_cells} cells, {n_finished} already done")

    def started(self, cell: Cell) -> None:
        """Start the clock of this run's lines."""
        self.spoken[cell.id] = monotonic()

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
        """Say how the run gets on, if the last line is old enough."""
        self.last[cell.id] = describe(evaluation)
        if monotonic() - self.spoken[cell.id] >= LINE_EVERY:
            self._line(f"{cell.id}  {self.last[cell.id]}")
            self.spoken[cell.id] = monotonic()

    def ended(self, cell: Cell, failure: str = "") -> None:
        """Say how the run ended."""
        self.n_done += 1
        outcome = f"failed: {failure}" if failure else f"done  {self.last.pop(cell.id, '')}"
        self._line(f"[{self.n_done}/{self.n_cells}] {cell.id}  {outcome.rstrip()}")

    def left(self, cell: Cell) -> None:
        """Nothing to say yet: it will be started again."""

    def waiting(self, n_cells: int) -> None:
        """Say what is waited for, once for each number."""
        if n_cells != self.n_waiting:
            self._line(f"waiting for {n_cells} cells that other processes train")
        self.n_waiting = n_cells

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def watcher(console: Console) -> LiveWatcher | PlainWatcher:
    """Return bars for a terminal, lines for anything else."""
    return LiveWatcher(console) if console.is_terminal else PlainWatcher(console)
