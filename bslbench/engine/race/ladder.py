"""The samples that a race climbs, and how its losses are trained on each of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from bslbench.backbones import BACKBONES
from bslbench.config import PROTOCOL, Scalar, Strict
from bslbench.data.load import load
from bslbench.data.sample import share_of
from bslbench.data.splits import hold_out
from bslbench.engine.inputs import Options
from bslbench.engine.tuning.contenders import Contender, contenders
from bslbench.engine.tuning.space import Range, Space
from bslbench.engine.tuning.study import Study
from bslbench.errors import ConfigError, DataError
from bslbench.losses import LOSSES
from bslbench.losses.base import declared
from bslbench.plugins import find
from bslbench.references import REFERENCES
from bslbench.sampling.own import are_few

SHORT_LIST = ("bpr", "bce", "mse", "sl", "bsl")
"""The losses of a race that names none: one of each kind (docs/choose.md says why these)."""

SHARES = ("1%", "5%", "25%", "100%")
LEAST_USERS = 200
"""A sample with fewer users to evaluate tells no loss from another."""

MOST_USERS = 50_000
"""Of more users than this a sample is evaluated, here and in the final runs."""

STEPS = 400
"""Steps of an epoch that the batch size aims at, a power of two between these two."""
BATCHES = (128, 8192)
LEAST_BATCH = 32

FAST: dict[str, Scalar] = {
    "lr_schedule": "linear",
    "sampler": "own",
    "n_negatives": 64,
    "dropout": 0.1,
    "dim": 64,
}
"""How every loss is trained unless `set` says otherwise: much as by ``fast``, in less time."""

MANY_ROWS = 65_536
"""Of more rows than this in both tables, or where a batch names few of the items, Adam replays
those that it reads (`adam_lazy`)."""

IALS: dict[str, Scalar] = {"ials.nu": 1.0, "ials.iterations": 16}
"""Held fixed, so that few trials are enough for the rest: as its authors recommend."""

COUNTED = 0.25
"""Share of the training that what a loss counts in epochs or steps may take."""

SPACE: Space = {"lr": Range("log", 1e-3, 5e-2)}
"""Of the common space, what few epochs with a decay want otherwise: the same for every loss."""


class Race(Strict):
    """What makes a race what it is; its budget may grow.

    Attributes
    ----------
    name
        Its folder in the results.
    sources
        sha256 of the user's own code among losses and backbone, by how it was asked for.
    set
        Settings held fixed for all losses that have them.
    seed
        Of the points tried.
    """

    name: str
    dataset: str
    fingerprint: str
    backbone: str = "mf"
    losses: list[str]
    sources: dict[str, str] = Field(default_factory=dict)
    set: dict[str, Scalar] = Field(default_factory=dict)
    seed: int = 0
    protocol: int = PROTOCOL


class Rung(Strict):
    """One sample, and how many settings of each loss are tried on it.

    Attributes
    ----------
    users, n_users, items, pairs
        Users to evaluate on valid, all of its users, its items and train pairs.
    batch_size
        In proportion to the pairs: an epoch has as many steps on each rung, a user's row is
        updated as often and at the same distances, so that a learning rate means the same.
    rounds
        Settings of each loss.
    """

    dataset: str
    share: str
    users: int
    n_users: int
    items: int
    pairs: int
    batch_size: int = 0
    rounds: int = 0


def ladder(race: Race, options: Options) -> list[Rung]:
    """Return the rungs of a race, the smallest sample first and all users last.

    Raises
    ------
    DataError
        If nobody can be evaluated.
    """
    n_users = load(race.dataset, options.data, options.catalog).n_users
    shares = [share for share in SHARES[:-1] if share_of(share, "") * n_users >= LEAST_USERS]
    rungs = [_rung(race, share, options) for share in [*shares, SHARES[-1]]]
    rungs = [rung for rung in rungs[:-1] if rung.users >= LEAST_USERS] + rungs[-1:]
    whole = rungs[-1]
    if not whole.users:
        raise DataError(f"{race.dataset}: no user has both train and validation pairs")
    batch = int(race.set.get("batch_size", _batch(whole.pairs)))
    sizes = (max(min(LEAST_BATCH, batch), round(batch * r.pairs / whole.pairs)) for r in rungs)
    return [r.model_copy(update={"batch_size": size}) for r, size in zip(rungs, sizes, strict=True)]


def _rung(race: Race, share: str, options: Options) -> Rung:
    name = f"{race.dataset}{'&' if '?' in race.dataset else '?'}sample={share}"
    data = hold_out(load(name, options.data, options.catalog), "valid")
    able = (np.diff(data.valid.indptr) > 0) & (data.user_degrees > 0)
    return Rung(
        dataset=data.name,
        share=share,
        users=int(able.sum()),
        n_users=data.n_users,
        items=data.n_items,
        pairs=int(data.train.nnz),
    )


def _batch(pairs: int) -> int:
    low, high = BATCHES
    return min(max(2 ** round(math.log2(pairs / STEPS)), low), high) if pairs > STEPS else low


def shortened(race: Race, rung: Rung, epochs: int) -> dict[str, Scalar]:
    """Return what losses would count beyond `COUNTED` of a training, held to it: ``LOSS.KEY``.

    What they would tune of it is held too; what `set` holds fixed stays as it is.

    Raises
    ------
    ConfigError
        If a loss of the user's declares a count that it cannot have.
    """
    held: dict[str, Scalar] = {}
    length = {"epochs": epochs, "steps": epochs * math.ceil(rung.pairs / rung.batch_size)}
    for asked in race.losses:
        plugin = find(asked, LOSSES, "loss")
        for name, unit in declared(plugin.cls, "counted").items():
            if name not in plugin.parameters() or unit not in length:
                raise ConfigError(
                    f"{plugin.place}: counted: '{name}': '{unit}' is no parameter in epochs or "
                    "steps"
                )
            key, most = f"{plugin.name}.{name}", max(1, int(COUNTED * length[unit]))
            default = plugin.parameters()[name].default
            if not isinstance(default, int | float) or {name, key} & race.set.keys():
                continue
            if default > most or name in (declared(plugin.cls, "space") or ()):
                held[key] = min(default, most)
    return held


def lazy(race: Race, rung: Rung) -> bool:
    """Tell whether `adam_lazy` trains a rung, the same mathematics in less time, unless set."""
    backbone = find(race.backbone, BACKBONES, "backbone")
    n_negatives = int((FAST | race.set)["n_negatives"])
    few = are_few(rung.batch_size * (1 + n_negatives), rung.items)
    large = rung.n_users + rung.items > MANY_ROWS
    able = getattr(backbone.cls, "row_wise", False)
    return bool((few or large) and able and "optimizer" not in race.set)


def study(race: Race, number: int, rung: Rung, epochs: int, references: Sequence[str]) -> Study:
    """Return the study that a rung is: what is tuned over what, by the rules of tuning."""
    given: dict[str, Any] = FAST | {"epochs": epochs, "eval_every": math.ceil(epochs / 3)}
    if lazy(race, rung):
        given["optimizer"] = "adam_lazy"
    if "ials" in references:
        given |= IALS
    absent = REFERENCES.keys() - set(references)
    asked = {key: value for key, value in race.set.items() if key.rpartition(".")[0] not in absent}
    return Study(
        name=f"{race.name}/rung-{number}",
        dataset=rung.dataset,
        backbone=race.backbone,
        losses=race.losses,
        references=list(references),
        set=given | shortened(race, rung, epochs) | asked | {"batch_size": rung.batch_size},
        seed=race.seed,
        startup=8,
    )


def entered(asked: Study, rung: Rung, options: Options) -> list[Contender]:
    """Return the losses, and the references that have something to tune, as a race trains them.

    Raises
    ------
    ConfigError
        If what is set leaves nothing to tune, or does not go together.
    """
    eval_users = MOST_USERS if rung.users > MOST_USERS else 0
    try:
        found = contenders(asked, options.data, options.catalog)
    except ConfigError as error:  # study and grid are ours: what can be wrong in them was set
        text = str(error).replace(f"study '{asked.name}'", "--set")
        raise ConfigError(text.replace(f"grid '{asked.grid().name}'", "--set")) from error
    return [
        replace(
            contender,
            space={key: SPACE.get(key, entry) for key, entry in contender.space.items()},
            cell=contender.cell.changed(eval_users=eval_users),
        )
        for contender in found
    ]
