"""Options that several commands share, and how the values of options are read."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bslbench.errors import ConfigError, suggest

if TYPE_CHECKING:
    from bslbench.own.gather import Columns

Results = Annotated[Path, typer.Option("--results", help="Where runs and tables are kept.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder; else BSLBENCH_DATA, else the user cache."),
]
Catalog = Annotated[
    Path | None, typer.Option("--catalog", help="A datasets.toml that extends the packaged one.")
]

Names = Annotated[
    str | None,
    typer.Option("--columns", help="Of texts without a header, in order: user,item,rating,time."),
]
MinRating = Annotated[
    float | None, typer.Option("--min-rating", help="Leave out rows rated lower.")
]

Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Runs at a time, a process each.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads per run; results do not depend on it."),
]


def seeds(text: str) -> int | list[int]:
    """Read how many, or which; a comma at the end makes one number the latter.

    Examples
    --------
    >>> seeds("3"), seeds("0,7"), seeds("7,")
    (3, [0, 7], [7])
    """
    numbers = [number(part, "--seeds") for part in text.removesuffix(",").split(",")]
    if "," in text:
        return numbers
    if numbers[0] < 1:
        raise ConfigError(f"--seeds {text}: say how many, 1 or more, or which: 0,7,9")
    return numbers[0]


def each(names: list[str] | None, known: Iterable[str]) -> list[str]:
    """Return names as asked for, ``all`` standing for all that are known.

    Examples
    --------
    >>> each(["all", "mine.py:Mine"], ["sl", "bpr"]), each(None, ["sl"])
    (['sl', 'bpr', 'mine.py:Mine'], [])
    """
    return [one for name in names or [] for one in (known if name == "all" else [name])]


def report_of(grid: str, results: Path) -> str:
    """Return the command that shows a grid.

    Examples
    --------
    >>> report_of("quick", Path("elsewhere"))
    'bslbench report --grid quick --results elsewhere'
    """
    where = [] if results == Path("results") else ["--results", str(results)]
    return shlex.join(["bslbench", "report", "--grid", grid, *where])


def columns(
    user: str | None,
    item: str | None,
    time: str | None,
    rating: str | None,
    min_rating: float | None,
    names: str | None,
) -> "Columns":
    """Return which columns of files are what, from the options of these names."""
    from bslbench.own.gather import Columns

    if rating and min_rating is None:
        raise ConfigError("--rating is there to leave out low ones: say --min-rating too")
    in_order = () if names is None else tuple(name.strip() for name in names.split(","))
    if "" in in_order:
        raise ConfigError(f"--columns '{names}': name each column, such as user,item,rating,time")
    return Columns(user, item, time, rating, min_rating, in_order)


def number(text: str, option: str) -> int:
    """Read a whole number; a `ConfigError` names the option."""
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{option}: '{text}' is not a whole number") from None


def shard(text: str) -> tuple[int, int]:
    """Read I/N, I from 1."""
    index, slash, count = text.partition("/")
    i, n = number(index, "--shard"), number(count, "--shard") if slash else 0
    if not 1 <= i <= n:
        raise ConfigError(f"--shard {text}: write I/N with I from 1 to N")
    return i, n


def seconds(text: str) -> float:
    """Read a time such as 90s, 30m or 4h.

    Examples
    --------
    >>> seconds("30m")
    1800.0
    """
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    try:
        read = float(text[:-1]) * unit
    except ValueError:
        read = 0.0
    if not 0 < read < float("inf"):
        raise ConfigError(f"'{text}' is not a time such as 90s, 30m or 4h")
    return read


def settings(pairs: list[str]) -> dict[str, Any]:
    """Parse KEY=VALUE and KEY=A,B; values are read as bool, int, float or else text.

    Of a key that is given twice the last one counts, so that a script may add to a command.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key or key.startswith(".") or not text:
            raise ConfigError(f"--set {pair}: write KEY=VALUE or KEY=A,B")
        values = [value(part) for part in text.split(",")]
        parsed[key] = values if len(values) > 1 else values[0]
    return parsed


def overrides(pairs: list[str], losses: Iterable[str]) -> list[dict[str, Any]]:
    """Return the overrides that KEY=VALUE stands for, then those of LOSS.KEY=VALUE.

    Parameters
    ----------
    losses
        The losses and references that there are, as they were asked for.

    Examples
    --------
    >>> overrides(["bpr.n_negatives=1", "lr=0.1"], ["sl", "bpr"])
    [{'when': {}, 'set': {'lr': 0.1}}, {'when': {'loss': 'bpr'}, 'set': {'n_negatives': 1}}]
    """
    from bslbench.config import by_loss

    names = [asked.rpartition(":")[2] for asked in losses]
    parts = by_loss(settings(pairs))  # what is for all comes first: one loss's own stand over it
    for owner, own in parts.items():
        if owner and owner not in names:
            where = f"--set {owner}.{next(iter(own))}"
            raise ConfigError(f"{where}: no loss '{owner}' in the grid{suggest(owner, names)}")
    return [
        {"when": {"loss": owner} if owner else {}, "set": own}
        for owner, own in parts.items()
        if own
    ]


def value(text: str) -> bool | int | float | str:
    """Read a bool, an int, a float or else text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
