"""Columns and entries that several tables have."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from bslbench.config import REFERENCE
from bslbench.evaluation.metrics import METRICS, parse_metric
from bslbench.evaluation.statistics import smallest_p
from bslbench.losses import LOSSES
from bslbench.report.results import Key
from bslbench.report.table import GAP, Column, Entry, Like

EXPERIMENTAL = "†"
"""Marks losses that have met no published figure yet."""


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    Examples
    --------
    >>> listed(["mse", "bce", "bpr"])
    'mse, bce and bpr'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def measured(metric: str, group: str = "") -> Column:
    """Return the column of a metric, which knows which way is better."""
    higher = METRICS[parse_metric(metric)[0]].higher_is_better
    return Column(metric, group, better="higher" if higher else "lower")


def mean_entry(values: Mapping[int, float]) -> Entry:
    """Return mean and sample deviation of the values by seed, a gap if there are none.

    Not a number, as a metric is where no user has anything to find, counts as no value.
    """
    each = {f"seed {seed}": v for seed, v in sorted(values.items()) if not math.isnan(v)}
    if not each:
        return Entry(text=GAP)
    numbers = list(each.values())
    return Entry(
        fmean(numbers), stdev(numbers) if len(numbers) > 1 else None, each=tuple(each.items())
    )


def in_order(keys: Iterable[Key]) -> list[Key]:
    """Return different keys: references first, by backbone, level of noise, loss and settings."""
    different = dict.fromkeys(keys)
    noises = list(dict.fromkeys(key.noise for key in different))
    losses = list(dict.fromkeys(key.loss for key in different))
    settings = list(dict.fromkeys(part for key in different for part in key.settings.split()))

    def by_value(key: Key) -> list[tuple[str, float, int]]:
        """Numbers by their size, words as they first come."""
        pairs = [(part, *part.partition("=")[::2]) for part in key.settings.split()]
        return [(name, _number(value), settings.index(part)) for part, name, value in pairs]

    return sorted(
        different,
        key=lambda k: (
            k.backbone != REFERENCE,
            k.backbone,
            noises.index(k.noise),
            losses.index(k.loss),
            by_value(k),
        ),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def key_columns(keys: Iterable[Key]) -> list[Column]:
    """Return the columns that tell rows apart; settings and noise only where there are any."""
    keys = list(keys)
    always = ("backbone", "loss")
    names = [n for n in Key._fields if n in always or any(getattr(key, n) for key in keys)]
    return [Column(name) for name in names]


def loss_entry(key: Key) -> Entry:
    """Return the name of a loss, marked if it is experimental."""
    return Entry(text=key.loss, mark=EXPERIMENTAL if _experimental(key) else "")


def loss_notes(keys: Iterable[Key]) -> list[str]:
    """Return what the mark of `loss_entry` means, if any of the losses has it."""
    meaning = "experimental, has met no published figure yet (bslbench list losses)"
    return [f"{EXPERIMENTAL}: {meaning}"] if any(map(_experimental, keys)) else []


def _experimental(key: Key) -> bool:
    loss = LOSSES.get(key.loss)  # None: a reference, or a loss of the user's own
    return loss is not None and loss.status == "experimental"


def count(seeds: Sequence[tuple[int, int]]) -> str:
    """Return how many are finished as ``3``, ``2/3`` if any lack; per dataset if they differ."""
    texts = [str(n) if n == asked else f"{n}/{asked}" for n, asked in seeds]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def needed(seeds: int | None) -> Like:
    """Return with how many seeds a difference could be told; with no number, what it takes."""
    return "more users" if seeds is None else Entry(seeds)


def smallest_p_note(n_seeds: Iterable[int]) -> list[str]:
    """Return the note of a table of p-values on what its numbers of paired seeds allow at best."""
    several = sorted({n for n in n_seeds if n > 1})
    each = ", ".join(f"{smallest_p(n):.2g} with {n} seeds" for n in several)
    start = "smallest p that any test over seeds can give without assuming normality"
    return [f"{start}: {each}"] if several else []
