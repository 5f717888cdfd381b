"""How grids and studies stand, from the store alone, without torch: any machine can tell."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bslbench.engine.grid_files import read_plan
from bslbench.engine.store import Store
from bslbench.errors import ConfigError, DataError, suggest


@dataclass(frozen=True)
class Standing:
    """One cell of a grid.

    Attributes
    ----------
    state
        ``finished``, ``running``, ``cut off``, ``failed`` or ``missing``.
    kind
        Dataset, backbone and loss: cells of one kind take about as long as each other.
    note
        Why it failed, or how far it is.
    seconds
        What it took, for a finished cell.
    share
        How much of its epochs is done, for one that is running or was cut off.
    """

    id: str
    state: str
    kind: tuple[str, str, str]
    note: str = ""
    seconds: float = 0.0
    share: float = 0.0


def overview(results: Path, grid: str | None = None) -> str:
    """Return how one grid or study of the store, or each, stands: counts, time left, runs to see.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    # A study has a grid once its final runs are planned; the rungs of a race lie a level deeper.
    kept = ("*/grid.toml", "*/study.db", "*/rung-*/grid.toml", "*/rung-*/study.db")
    files = (file for pattern in kept for file in results.glob(pattern))
    known = sorted({file.parent.relative_to(results).as_posix() for file in files})
    if grid is not None and grid not in known:
        raise ConfigError(f"no results of a grid '{grid}' in {results}{suggest(grid, known)}")
    if not known:
        raise ConfigError(f"no grids in {results}; bslbench train makes the first")
    return "\n".join(line for name in ([grid] if grid else known) for line in _lines(results, name))


def _lines(results: Path, grid: str) -> Iterator[str]:
    folder = results / grid
    if (folder / "study.db").exists():
        yield f"{grid}: {_trials(folder / 'study.db')}"
    if (folder / "grid.toml").exists():
        yield from _cells(results, grid)


def _trials(study: Path) -> str:
    import optuna  # takes a second, and not every store has a study
    from sqlalchemy.exc import SQLAlchemyError

    try:
        summaries = optuna.get_all_study_summaries(f"sqlite:///{study.resolve()}")
    except SQLAlchemyError as error:
        raise DataError(f"{study} is damaged: no trials can be read from it") from error
    counts = [summary.n_trials for summary in summaries]
    each = " to ".join(str(n) for n in sorted({min(counts), max(counts)})) if counts else "0"
    return f"study: {sum(counts)} trials done, {each} of each of {len(counts)}"


def _cells(results: Path, grid: str) -> Iterator[str]:
    cells = list(standings(Store(results), results / grid / "grid.toml"))
    count = Counter(cell.state for cell in cells)
    counts = [f"{count[state]} {word}" for state, word in WORDS.items() if count[state]]
    left = seconds_left(cells)
    if left is not None:
        counts.append(f"about {span(left)} left")
    yield f"{grid}: {len(cells)} cells: {', '.join(counts)}"
    for cell in cells:
        if cell.state in ("running", "cut off", "failed"):
            yield f"  {cell.state}  {cell.id}  {cell.note}".rstrip()


WORDS = {"finished": "done"} | {s: s for s in ("running", "cut off", "failed", "missing")}


def standings(store: Store, grid_toml: Path) -> Iterator[Standing]:
    """Yield how each cell of a resolved grid stands.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    for cell in read_plan(grid_toml):
        run = store.run(cell["id"])
        kind = cell["dataset"], cell["backbone"], cell["loss"]
        state = run.status()
        if state == "finished":
            took = run.info()["outcome"]
            seconds = sum(took[key] for key in took if key.startswith("seconds_"))
            yield Standing(cell["id"], state, kind, seconds=seconds)
        elif (held := run.held()) or (state == "missing" and run.file("state.pt").exists()):
            point = run.progress()
            share = (point["epoch"] + 1) / point["epochs"] if point else 0.0
            going = "running" if held else "cut off"
            yield Standing(cell["id"], going, kind, _describe(point), share=share)
        else:
            yield Standing(cell["id"], state, kind, run.failure().get("reason", ""))


def _describe(point: dict[str, Any]) -> str:
    if not point:
        return "not evaluated yet"
    return f"epoch {point['epoch']} of {point['epochs']}, Recall@20 {point['recall']:.4f}"


def seconds_left(cells: Iterable[Standing]) -> float | None:
    """Return about how long the rest takes at the present number of runs at a time.

    None if nothing is left or nothing is finished yet to judge by; early stopping can only make it
    shorter.

    Examples
    --------
    >>> kind = ("yelp2018", "mf", "sl")
    >>> done = Standing("a", "finished", kind, seconds=60.0)
    >>> half = Standing("b", "running", kind, share=0.5)
    >>> seconds_left([done, half, Standing("c", "missing", kind)])
    90.0
    """
    cells = list(cells)
    finished = [cell for cell in cells if cell.state == "finished"]
    rest = [cell for cell in cells if cell.state != "finished"]
    if not finished or not rest:
        return None
    seconds = {}
    for kind in {cell.kind for cell in rest}:
        like = [cell.seconds for cell in finished if cell.kind == kind]
        seconds[kind] = mean(like or [cell.seconds for cell in finished])
    at_a_time = max(1, sum(cell.state == "running" for cell in rest))
    return sum(seconds[cell.kind] * (1 - cell.share) for cell in rest) / at_a_time


def span(seconds: float) -> str:
    """Return a time in its largest sensible unit.

    Examples
    --------
    >>> span(5), span(150), span(9000), span(400000)
    ('5 s', '2.5 min', '2.5 h', '4.6 days')
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
