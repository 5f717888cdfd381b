"""The comparisons of a grid: which rows are compared, computed once, kept as significance.csv.

The file is both the export of every p-value and what spares the next call the work: a row whose
`digest` still fits the seeds' values in ``metrics.csv`` is taken from it. So a grid whose runs were
not kept, only its folder, still has its comparisons.
"""

import csv
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from bslbench.engine.grid_files import csv_text
from bslbench.engine.store import Store
from bslbench.errors import ConfigError, DataError, InUse, StoreError
from bslbench.evaluation.metrics import METRICS, parse_metric
from bslbench.evaluation.statistics import RESAMPLES, Word, holm
from bslbench.files import locked, write_atomically
from bslbench.report.compare import BEST, baselines
from bslbench.report.parts import in_order
from bslbench.report.results import Key, Results, Run
from bslbench.report.significance import Comparison, compare, meeting_all

PATIENCE = 5.0
"""Seconds to wait for whoever writes the grid's tables."""

METHOD = 1
"""Raised when equal values would be compared otherwise; what was kept is then made anew."""

FILE = "significance.csv"
COLUMNS = ["baseline", "metric", "dataset", *Key._fields]
COLUMNS += [f"against_{field}" for field in Key._fields]
COLUMNS += ["n_seeds", "n_users", "base", "diff", "relative", "low", "high", "p", "p_holm"]
COLUMNS += ["word", "seeds_needed", "digest"]

WORDS: dict[str, Word] = {word: word for word in ("there", "absent", "cannot be told")}


@dataclass(frozen=True)
class Pair:
    """Two rows to be compared on one dataset by one metric.

    Attributes
    ----------
    baseline
        What was asked for: ``best`` of the column, or a row by its label.
    key, against
        The row, and the one that it is compared with.
    runs
        Their ids, seed by seed.
    digest
        Of all that the comparison is made from.
    """

    baseline: str
    dataset: str
    metric: str
    key: Key
    against: Key
    runs: tuple[tuple[str, str], ...]
    digest: str


@dataclass(frozen=True)
class Compared:
    """A pair and what came out; `p_holm` is p adjusted for all of the same baseline and metric."""

    pair: Pair
    found: Comparison
    p_holm: float


@dataclass(frozen=True)
class Significance:
    """The comparisons of a table.

    Attributes
    ----------
    baseline
        As in `Pair`.
    compared
        By dataset, metric and row.
    lacking
        How many pairs could not be compared because the ranks of their runs are not at hand.
    few
        How many could not because they have fewer than two seeds in common.
    """

    baseline: str
    compared: tuple[Compared, ...]
    lacking: int
    few: int

    def of(self, dataset: str, metric: str, key: Key) -> Compared | None:
        """Return the comparison of a row, if there is one."""
        wanted = (dataset, metric, key)
        matches = (
            c for c in self.compared if (c.pair.dataset, c.pair.metric, c.pair.key) == wanted
        )
        return next(matches, None)


def significance(
    results: Results,
    metrics: Sequence[str],
    baseline: str = BEST,
    tell: Callable[[str], None] = lambda text: None,
) -> Significance:
    """Compare the rows of a grid with a baseline; what is kept from before is not made again.

    Parameters
    ----------
    metrics
        As ``NAME@K``.
    baseline
        As for `bslbench.report.compare.with_baseline`: ``best`` of each dataset and metric, or a
        loss, compared within each backbone.
    tell
        Called with what is being compared, which can take a second each.

    Raises
    ------
    ConfigError
        If there is no such baseline.
    DataError
        If ``significance.csv`` or ranks are damaged.
    """
    path = results.folder / results.grid / FILE
    asked = [(baseline, metric) for metric in metrics]
    kept, families = _read(path)
    lines: list[Compared] = []
    lacking = few = 0
    for name, metric in asked:
        found: dict[Pair, Comparison] = {}
        for pair in _pairs(results, name, metric):
            if len(pair.runs) < 2:
                few += 1
            elif pair.digest in kept:
                found[pair] = kept[pair.digest]
            elif made := _compare(results, pair, tell):
                found[pair] = made
            else:
                lacking += 1
        lines += _adjusted(found)
    others = [
        line for family in families if family not in asked for line in _still(results, family, kept)
    ]
    _write(path, [*lines, *others])
    return Significance(baseline, tuple(lines), lacking, few)


def _pairs(results: Results, baseline: str, metric: str) -> Iterator[Pair]:
    """Yield the pairs of rows by dataset, with the runs of the seeds that both have finished."""
    scores = results.scores([metric])
    rows: defaultdict[str, dict[Key, dict[int, Run]]] = defaultdict(dict)
    for run in results.runs:
        if not math.isnan(scores.get((run.id, metric), math.nan)):
            rows[run.dataset].setdefault(run.key, {})[run.seed] = run
    keys = in_order(run.key for run in results.runs)
    named = {}
    if baseline != BEST:
        numbers = dict(zip(keys, baselines(keys, baseline), strict=True))
        named = {key: keys[number] for key, number in numbers.items() if number is not None}
    for dataset in results.datasets:
        own = {key: rows[dataset][key] for key in keys if key in rows[dataset]}
        against = named or _best(own, scores, metric)
        for key in own:
            other = against.get(key, key)
            if other != key and other in own:
                mine = meeting_all(own[key], own[other], key.backbone)
                theirs = meeting_all(own[other], own[key], other.backbone)
                seeds = sorted(mine.keys() & theirs.keys())
                ids = tuple((mine[seed].id, theirs[seed].id) for seed in seeds)
                digest = _digest(metric, ids, scores)
                yield Pair(baseline, dataset, metric, key, other, ids, digest)


def _digest(
    metric: str, ids: Sequence[tuple[str, str]], scores: Mapping[tuple[str, str], float]
) -> str:
    values = [[a, scores[a, metric], b, scores[b, metric]] for a, b in ids]
    content = json.dumps([METHOD, RESAMPLES, metric, values])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _best(
    rows: Mapping[Key, Mapping[int, Run]], scores: Mapping[tuple[str, str], float], metric: str
) -> dict[Key, Key]:
    """Return for each row the one of the same noise with the best mean, the first of equals."""
    sign = -1 if METRICS[parse_metric(metric)[0]].higher_is_better else 1
    means = {
        key: sign * fmean(scores[run.id, metric] for run in runs.values())
        for key, runs in rows.items()
    }
    best: dict[str, Key] = {}
    for key in sorted(means, key=lambda key: means[key]):
        best.setdefault(key.noise, key)
    return {key: best[key.noise] for key in means}


def _compare(results: Results, pair: Pair, tell: Callable[[str], None]) -> Comparison | None:
    """Compare a pair by the ranks of its runs.

    None if these are not at hand, or not those that the grid's values were computed from: the same
    cells may have been run on two machines, to other last bits or more.
    """
    store = Store(results.folder)
    sides = (dict.fromkeys(ids) for ids in zip(*pair.runs, strict=True))  # a lone run once
    a, b = ([store.run(run_id) for run_id in ids] for ids in sides)
    if not all(run.file("ranks.npz").exists() for run in (*a, *b)):
        return None
    tell(f"comparing {pair.key.label} with {pair.against.label}, {pair.metric}")
    found = compare(a, b, pair.metric)
    scores = results.scores([pair.metric])
    own, base = (
        fmean(scores[run_id, pair.metric] for run_id in ids) for ids in zip(*pair.runs, strict=True)
    )
    told = [(found.base, base), (found.base + found.diff, own)]
    return found if all(math.isclose(x, y, rel_tol=1e-9) for x, y in told) else None


def _adjusted(found: Mapping[Pair, Comparison]) -> list[Compared]:
    adjusted = holm([comparison.p for comparison in found.values()])
    return [Compared(*line, p) for line, p in zip(found.items(), adjusted, strict=True)]


def _still(
    results: Results, family: tuple[str, str], kept: Mapping[str, Comparison]
) -> list[Compared]:
    """Return the comparisons of another baseline or metric, if they are all still true."""
    try:
        pairs = [pair for pair in _pairs(results, *family) if len(pair.runs) > 1]
    except ConfigError:  # the grid has no such row or metric any more
        return []
    if any(pair.digest not in kept for pair in pairs):
        return []
    return _adjusted({pair: kept[pair.digest] for pair in pairs})


def _read(path: Path) -> tuple[dict[str, Comparison], list[tuple[str, str]]]:
    """Return what was kept by digest, and the baselines and metrics that it was asked for."""
    if not path.exists():
        return {}, []
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        kept = {row["digest"]: _comparison(row) for row in rows}
        return kept, list(dict.fromkeys((row["baseline"], row["metric"]) for row in rows))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it to compare again") from error


def _comparison(row: Mapping[str, str]) -> Comparison:
    return Comparison(
        float(row["base"]),
        float(row["diff"]),
        float(row["low"]),
        float(row["high"]),
        float(row["p"] or math.nan),
        int(row["n_seeds"]),
        int(row["n_users"]),
        WORDS[row["word"]],
        int(row["seeds_needed"]) if row["seeds_needed"] else None,
    )


def _write(path: Path, lines: Sequence[Compared]) -> None:
    order = sorted(
        lines, key=lambda line: (line.pair.baseline != BEST, line.pair.baseline, line.pair.metric)
    )
    rows = [_row(line) for line in order]
    text = csv_text(COLUMNS, rows)
    if rows and not (path.exists() and path.read_text("utf-8") == text):
        # Results that may only be read, or are being written to, can still be shown.
        with suppress(StoreError, InUse), locked(path.parent, PATIENCE):
            write_atomically(path, text)


def _row(line: Compared) -> dict[str, object]:
    pair = line.pair
    names = {f"against_{field}": value for field, value in pair.against._asdict().items()}
    values = asdict(line.found) | {"relative": line.found.relative, "p_holm": line.p_holm}
    shown = {k: "" if v is None or v != v else v for k, v in values.items()}
    own = {"dataset": pair.dataset, "metric": pair.metric, "digest": pair.digest}
    return own | {"baseline": pair.baseline} | pair.key._asdict() | names | shown
