"""What a run is: grids as users write them, cells as they are run, every setting spelt out."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from bslbench.noise import COLUMNS, Labels, Noise
from bslbench.toml import read_toml, validated

PROTOCOL = 1
"""Version of what is measured; part of every cell id, raised when a number would move."""

Scalar = bool | int | float | str
Score = Literal["cosine", "inner"]
Selection = Literal["valid", "test"]
GRID_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a grid can be called: its folder in the results."""

REFERENCE = "reference"
"""Stands as the backbone of recommenders that no gradient trains."""
EXTERNAL = "external"
"""Stands as the backbone of recommenders that were trained elsewhere."""
UNTRAINED = frozenset({REFERENCE, EXTERNAL})
"""Stand as the backbone of what is no loss on a backbone of ours."""
LATER: dict[str, Any] = {"later": True}
"""``json_schema_extra`` of a field younger than the protocol's version: at its default it stays out
of the id, so that cells from before it keep theirs."""


class Strict(BaseModel):
    """Frozen, and no key is ignored in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


OF_THE_LOSS = {"n_negatives", "score_train", "score_test", "scale", "sampler"}
"""Settings that take the loss's own default where neither grid nor preset says anything."""


class TrainSettings(Strict):
    """Every setting of one training run; the defaults are the published protocol's.

    Those `OF_THE_LOSS` hold for the losses that declare none.
    """

    epochs: int = Field(1000, ge=1, description="at most this many epochs")
    batch_size: int = Field(1024, ge=1, description="interactions per step, B")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")
    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="constant, or linearly to zero at `epochs`"
    )
    optimizer: Literal["adam", "adam_lazy"] = Field(
        "adam",
        description="adam, or adam_lazy: the same for rows as they are read, for large tables",
        json_schema_extra=LATER,
    )
    ema_decay: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay of the weights' average over epochs, then ranked and kept; 0 for none",
        json_schema_extra=LATER,
    )
    l2: float = Field(0.0, ge=0, description="weight of the squared norms of the batch's rows")
    l2_negatives: bool = Field(True, description="L2 counts the drawn negatives too")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the users' rows")
    dim: int = Field(64, ge=1, description="embedding size, d")
    init: Literal["xavier", "als"] = Field(
        "xavier", description="start of the tables; als, a warm start, enters no comparison"
    )
    sampler: Literal["own", "pool", "in_batch", "none"] = Field(
        "own", description="negatives of each row's own, one pool per batch, or the other rows'"
    )
    n_negatives: int = Field(800, ge=0, description="negatives per row (own) or batch (pool), M")
    logq: bool = Field(False, description="in-batch: subtract log popularity")
    score_train: Score = Field("cosine", description="score in training")
    score_test: Score = Field("cosine", description="score in evaluation")
    scale: float | None = Field(1.0, gt=0, description="factor on the scores in training")
    eval_every: int = Field(1, ge=1, description="epochs between evaluations")
    patience: int = Field(50, ge=0, description="evaluations without improvement before stopping")

    @field_validator("ema_decay")
    @classmethod
    def _no_average(cls, decay: float | None) -> float | None:
        return decay or None  # one id for both

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError(f"{str(value).lower()} is neither a number nor a name")
        return value


PARTS = {"train", "loss_params", "backbone_params", "noise"}
"""Fields of a cell that have fields of their own."""


FRAMING = TrainSettings.model_fields.keys() - {"lr", "l2", "dropout", "scale"}
"""The settings of training that are no search when they differ: all but these four."""


class Cell(Strict):
    """One run, fully resolved: nothing is left to a default elsewhere.

    `id` hashes everything that could change a number, and nothing else: where a value came from
    (`origin`) and where the user's code lies (`loss_path`, `backbone_path`) stay out.
    """

    dataset: str
    fingerprint: str
    backbone: str
    loss: str
    seed: int
    selection: Selection
    train: TrainSettings | None = None
    loss_params: dict[str, Scalar] = {}
    backbone_params: dict[str, Scalar] = {}
    noise: Noise = Field(Noise(), json_schema_extra=LATER)
    eval_users: int = Field(0, json_schema_extra=LATER)
    loss_version: int = Field(1, json_schema_extra=LATER)
    loss_source: str = ""
    backbone_source: str = ""
    device: Literal["cpu"] = "cpu"
    dtype: Literal["float32"] = "float32"
    protocol: int = PROTOCOL
    loss_path: str = Field(default="", exclude=True)
    backbone_path: str = Field(default="", exclude=True)
    origin: dict[str, str] = Field(default={}, exclude=True)

    @cached_property
    def id(self) -> str:
        """Readable stem and 12 hex digits of the sha256 over the resolved configuration."""
        digest = hashlib.sha256(self.canonical().encode()).hexdigest()[:12]
        names = [self.dataset, self.backbone, self.loss, self.noise.text, f"s{self.seed}"]
        stem = "-".join(filter(None, names))
        return "".join(c if c.isalnum() or c in "-_." else "_" for c in stem) + f"-{digest}"

    def changed(self, **changes: Any) -> "Cell":
        """Return the cell with some fields changed: another one, with an id of its own."""
        return Cell(**{name: getattr(self, name) for name in Cell.model_fields} | changes)

    def canonical(self) -> str:
        """Return the resolved configuration as JSON with sorted keys: what the id is made of."""
        return json.dumps(_resolved(self), sort_keys=True)

    @classmethod
    def columns(cls) -> set[str]:
        """Return the names that `flat` gives to what every cell has."""
        fields = {name for name, field in cls.model_fields.items() if not field.exclude}
        return fields - PARTS | COLUMNS

    def flat(self) -> dict[str, Scalar]:
        """Return every field of the cell by its plain name, as in the columns of the results."""
        fields = self.model_dump(exclude=PARTS)
        train = self.train.model_dump(exclude_none=True) if self.train else {}
        return self.noise.flat() | fields | train | self.backbone_params | self.loss_params


def _resolved(model: BaseModel) -> dict[str, Any]:
    """Return what `model_dump` does, but for `LATER` fields at their default."""
    fields = model.model_dump()
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if field.json_schema_extra == LATER and value == field.default:
            del fields[name]
        elif isinstance(value, BaseModel):
            fields[name] = _resolved(value)
    return fields


def _no_empty_axis(settings: dict[str, Any]) -> dict[str, Any]:
    for key, value in settings.items():
        if value == []:
            raise ValueError(f"{key} has no value: an empty list leaves no cell")
    return settings


def _with_plain_noise(rule: dict[str, Any]) -> dict[str, Any]:
    """Write a rule's noise as `Noise.text` does: ``neg=5.0`` and ``neg=5`` are one."""
    if "noise" not in rule:
        return rule
    wanted = rule["noise"] if isinstance(rule["noise"], list) else [rule["noise"]]
    return rule | {"noise": [Noise.parse(str(text)).text for text in wanted]}


class Rule(Strict):
    """Names the cells that something is for: those of a dataset, backbone, loss or noise.

    `valid_noise` beside a noise: only where the labels that select are as noisy, or clean.
    """

    when: dict[Literal["dataset", "backbone", "loss", "noise", "valid_noise"], str | list[str]]

    @field_validator("when")
    @classmethod
    def _plain_noise(cls, when: dict[str, Any]) -> dict[str, Any]:
        return _with_plain_noise(when)

    def matches(self, **names: str | tuple[str, ...]) -> bool:
        """Tell whether each key of `when` names the cell's value, or one of several."""

        def several(given: str | list[str] | tuple[str, ...]) -> set[str]:
            return {given} if isinstance(given, str) else set(given)

        return all(several(names[key]) & several(wanted) for key, wanted in self.when.items())


class Override(Rule):
    """Settings of a grid for some of its cells; a list is one more axis."""

    set: dict[str, Scalar | list[Scalar]]

    _values = field_validator("set")(_no_empty_axis)


class Preset(Rule):
    """Settings that a grid may leave open, and where they come from, as ``run.json`` names it."""

    source: str
    set: dict[str, Scalar]


class Grid(Strict):
    """Loss x backbone x dataset x noise x seed, with settings; a list in `set` is one more axis.

    Examples
    --------
    >>> grid = Grid(name="trial", datasets=["synthetic"], losses=["sl"], seeds=2)
    >>> grid.seed_list()
    [0, 1]
    """

    name: str = Field("adhoc", pattern=GRID_NAME)
    description: str = ""
    datasets: list[str] = Field(["synthetic"], min_length=1)
    backbones: list[str] = Field(["mf"], min_length=1)
    losses: list[str] = Field([], description="names, or FILE.py:CLASS, or PACKAGE.MODULE:CLASS")
    references: list[str] = []
    noise: list[str] = Field([""], min_length=1, description='levels such as "pos=0.2,neg=5"')
    valid_noise: Labels | list[Labels] = Field(
        "clean", description="whether valid has false positives at the rate of train"
    )
    seeds: int | list[int] = Field(1, description="how many, from 0, or which")
    selection: Selection = "valid"
    eval_users: int = Field(
        0, ge=0, description="evaluate a sample of so many users, the same for all runs; 0: all"
    )
    set: dict[str, Scalar | list[Scalar]] = {}
    override: list[Override] = []
    exclude: list[dict[str, Scalar | list[Scalar]]] = Field(
        [], description="cells with all these values are left out; of a list, with any"
    )
    presets: bool | str = Field(
        True,
        description="what fills the settings that the grid leaves open: the published ones (true), "
        "a recipe over them (fast, thorough, tuned), a file of presets, or nothing (false)",
    )
    noisy_presets: bool | list[bool] = Field(
        True,
        description="whether a noisy cell takes presets made for its noise, or those of its clean "
        "twin; a list: both",
    )

    _values = field_validator("set")(_no_empty_axis)

    @field_validator("name")
    @classmethod
    def _not_the_store(cls, name: str) -> str:
        if name == "runs":
            raise ValueError("'runs' is the folder of the runs themselves")
        return name

    @field_validator("seeds", mode="before")
    @classmethod
    def _a_number(cls, seeds: object) -> object:
        if any(isinstance(seed, bool) for seed in (seeds if isinstance(seeds, list) else [seeds])):
            raise ValueError("say how many, 1 or more, or a list of which")
        return seeds

    @field_validator("seeds")
    @classmethod
    def _some(cls, seeds: int | list[int]) -> int | list[int]:
        if seeds == [] or (isinstance(seeds, int) and seeds < 1):
            raise ValueError("say how many, 1 or more, or a list of which")
        return seeds

    @field_validator("noise")
    @classmethod
    def _readable(cls, noise: list[str]) -> list[str]:
        return [Noise.parse(text).text for text in noise]

    @field_validator("exclude")
    @classmethod
    def _plain_noise(cls, exclude: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [_with_plain_noise(rule) for rule in exclude]

    def noises(self) -> list[Noise]:
        """Return the levels of noise, each with each kind of validation labels."""
        labels = [self.valid_noise] if isinstance(self.valid_noise, str) else self.valid_noise
        levels = [Noise.parse(text, kind) for text in self.noise for kind in labels]
        return [noise for i, noise in enumerate(levels) if noise not in levels[:i]]

    def seed_list(self) -> list[int]:
        """Return the seeds: 0 up to n - 1 for a number n."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @classmethod
    def from_toml(cls, path: Path) -> "Grid":
        """Read a grid file; its name is the file's unless it says otherwise.

        Raises
        ------
        ConfigError
            Naming the file, and the line or the key that is wrong.
        """
        return validated(cls, {"name": path.stem} | read_toml(path), str(path))


Value = TypeVar("Value")


def by_loss(settings: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """Take apart settings written ``KEY`` and ``LOSS.KEY``: those for all are under "", and first.

    Examples
    --------
    >>> by_loss({"bpr.n_negatives": 1, "lr": 0.1})
    {'': {'lr': 0.1}, 'bpr': {'n_negatives': 1}}
    """
    parts: dict[str, dict[str, Value]] = {"": {}}
    for key, value in settings.items():
        owner, _, name = key.rpartition(".")
        parts.setdefault(owner, {})[name] = value
    return parts
