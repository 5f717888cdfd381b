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
from bslbench.engine.tuning.ledger import Trial
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

    def __init__(self, console: Console, noun: str = "cells") -> None:
        self.console = console
        self.noun = noun
        self.titles: dict[str, str] = {}
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
        self.grid = self.progress.add_task(noun, total=None, note="")
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
        # Short, to leave the bars and the note room.
        short = self.titles.get(cell.id, f"{cell.backbone} {cell.loss} s{cell.seed}")
        self.runs[cell.id] = self.progress.add_task(short, total=epochs, note="starting")

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
        """Advance the run's bar."""
        self.last[cell.id] = describe(evaluation)
        note = f"loss {evaluation.loss:.4f}  Recall@20 {evaluation.recall:.4f}"
        self.progress.update(self.runs[cell.id], completed=evaluation.epoch + 1, note=note)

    def ended(self, cell: Cell, failure: str = "", note: str = "") -> None:
        """Leave one line about the run above the bars: why it failed, the note, or how it ended."""
        self.left(cell)
        self.progress.advance(self.grid)
        last = escape(note) or self.last.pop(cell.id, "")
        mark = (
            f"[red]failed[/red]  {escape(failure)}" if failure else f"[green]done[/green]  {last}"
        )
        title = escape(self.titles.get(cell.id, cell.id))
        self.console.print(f"{title}  {mark}", highlight=False, soft_wrap=True)

    def left(self, cell: Cell) -> None:
        """Take the run's bar away."""
        self.progress.remove_task(self.runs.pop(cell.id))

    def waiting(self, n_cells: int) -> None:
        """Say so in the grid's bar."""
        self.progress.update(self.grid, note=f"waiting for {n_cells} that other processes train")


class PlainWatcher:
    """One line per event, and per run at most one every `LINE_EVERY` seconds in between."""

    def __init__(self, console: Console, noun: str = "cells") -> None:
        self.console = console
        self.noun = noun
        self.titles: dict[str, str] = {}
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
        self._line(f"{n_cells} {self.noun}, {n_finished} already done")

    def started(self, cell: Cell) -> None:
        """Start the clock of this run's lines."""
        self.spoken[cell.id] = monotonic()

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
        """Say how the run gets on, if the last line is old enough."""
        self.last[cell.id] = describe(evaluation)
        if monotonic() - self.spoken[cell.id] >= LINE_EVERY:
            self._line(f"{self.titles.get(cell.id, cell.id)}  {self.last[cell.id]}")
            self.spoken[cell.id] = monotonic()

    def ended(self, cell: Cell, failure: str = "", note: str = "") -> None:
        """Say why the run failed, or the note, or how it ended."""
        self.n_done += 1
        done = note or self.last.pop(cell.id, "")
        outcome = f"failed: {failure}" if failure else f"done  {done}"
        title = self.titles.get(cell.id, cell.id)
        self._line(f"[{self.n_done}/{self.n_cells}] {title}  {outcome.rstrip()}")

    def left(self, cell: Cell) -> None:
        """Nothing to say yet: it will be started again."""

    def waiting(self, n_cells: int) -> None:
        """Say what is waited for, once for each number."""
        if n_cells != self.n_waiting:
            self._line(f"waiting for {n_cells} {self.noun} that other processes train")
        self.n_waiting = n_cells

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def watcher(console: Console, noun: str = "cells") -> LiveWatcher | PlainWatcher:
    """Return bars for a terminal, lines for anything else."""
    kind = LiveWatcher if console.is_terminal else PlainWatcher
    return kind(console, noun)


class StudyWatcher:
    """How a study gets on, shown by a watcher of runs."""

    def __init__(self, shown: LiveWatcher | PlainWatcher) -> None:
        self.shown = shown
        self.n_trials = 0
        self.evaluated = shown.evaluated
        self.left = shown.left
        self.waiting = shown.waiting

    def planned(self, n_trials: int, n_ended: int) -> None:
        """Say how much there is to do, if that has changed."""
        if n_trials != self.n_trials:
            self.shown.planned(n_trials, n_ended)
        self.n_trials = n_trials

    def started(self, cell: Cell, title: str) -> None:
        """Name the run by its trial."""
        self.shown.titles[cell.id] = title
        self.shown.started(cell)

    def ended(self, cell: Cell, trial: Trial) -> None:
        """Say what the trial tried and came to."""
        tried = ", ".join(f"{name} {value}" for name, value in trial.params.items())
        pruned = ", given up below the median" if trial.state == "pruned" else ""
        note = f"valid Recall@20 {trial.score:.4f}{pruned}  {trial.seconds:.0f} s  ({tried})"
        self.shown.ended(cell, trial.reason, note)
