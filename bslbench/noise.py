"""Noise: what a grid may say of it, and how it is written."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bslbench.errors import suggest

Labels = Literal["clean", "same"]

NOISES = ("pos", "pos_popular", "pos_published", "neg", "fneg")
"""What `Noise.parse` reads; the first three are one field and its kind."""

RARELY: dict[str, bool | str] = {
    "noise_kind": "uniform",
    "noise_hidden": False,
    "valid_noise": "clean",
}
"""What `Noise.flat` gives only where it is something else."""
COLUMNS = frozenset(("noise_pos", "noise_neg", "noise_fneg", *RARELY))
"""All that `Noise.flat` may give."""


class Noise(BaseModel):
    """What is wrong with the training signal, nothing by default (docs/protocol.md, "Noise").

    Examples
    --------
    >>> Noise.parse("pos_popular=0.2,neg=5").text
    'pos_popular=0.2,neg=5'
    >>> Noise.parse("neg=1") == Noise.parse("") == Noise()
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pos: float = Field(0.0, ge=0, allow_inf_nan=False, description="false positives per positive")
    kind: Literal["uniform", "popular", "published"] = Field(
        "uniform", description="how false positives are drawn"
    )
    neg: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="weight of the user's positives as negatives"
    )
    fneg: float | None = Field(
        None, ge=0, le=1, description="share of negatives that are hidden train pairs"
    )
    labels: Labels = Field("clean", description="`same`: valid has false positives at train's rate")

    @model_validator(mode="after")
    def _one_way(self) -> "Noise":
        if self.neg != 1 and self.fneg is not None:
            raise ValueError("neg and fneg both say which negatives are false: give one of them")
        return self

    @classmethod
    def parse(cls, text: str, labels: Labels = "clean") -> "Noise":
        """Read ``pos=0.2,neg=5``; empty or ``clean`` is no noise.

        What cannot act is the same as clean: ``pos=0``, ``neg=1``, and `labels` without false
        positives.

        Raises
        ------
        ValueError
            With what is wrong in one line.
        """
        fields: dict[str, Any] = {}
        for part in text.split(",") if text not in ("", "clean") else []:
            key, _, value = part.partition("=")
            if key not in NOISES:
                raise ValueError(f"'{text}': no noise '{key}'{suggest(key, NOISES)}")
            name, _, kind = key.partition("_")
            if name in fields:
                raise ValueError(f"'{text}': '{name}' is given twice")
            fields |= {name: value, "kind": kind or "uniform"} if name == "pos" else {name: value}
        try:
            noise = cls.model_validate(fields)
        except ValidationError as failure:
            error = failure.errors()[0]
            place = "".join(f"{name}: " for name in error["loc"])
            message = error["msg"].removeprefix("Value error, ")
            raise ValueError(f"'{text}': {place}{message}") from None
        acting = {"labels": labels} if noise.pos else {"kind": "uniform"}
        return noise.model_copy(update=acting)

    @property
    def text(self) -> str:
        """What `parse` reads; empty for none."""
        pos = "pos" if self.kind == "uniform" else f"pos_{self.kind}"
        values = [(pos, self.pos, 0), ("neg", self.neg, 1), ("fneg", self.fneg, None)]
        return ",".join(f"{k}={str(v).removesuffix('.0')}" for k, v, clean in values if v != clean)

    @property
    def level(self) -> str:
        """What settings are tuned for: `text`, and whether the labels that select have it too.

        Examples
        --------
        >>> Noise.parse("pos=0.2", "same").level
        'pos=0.2 on noisy valid'
        """
        return self.text + (" on noisy valid" if self.labels == "same" else "")

    @property
    def of_data(self) -> "Noise":
        """The part that changes the train split, which is all that a reference sees."""
        fneg = None if self.fneg is None else 0.0
        return self.model_copy(update={"neg": 1.0, "fneg": fneg})

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> "Noise":
        """Return the noise whose columns, as `flat` gives them, are among these.

        Examples
        --------
        >>> Noise.of({"noise_fneg": 0.0, "noise_hidden": True}).text
        'fneg=0'
        """
        hidden = columns.get("noise_fneg", 0.0)
        return cls(
            pos=columns.get("noise_pos", 0.0),
            kind=columns.get("noise_kind", "uniform"),
            neg=columns.get("noise_neg", 1.0),
            fneg=hidden if hidden or columns.get("noise_hidden") else None,
            labels=columns.get("valid_noise", "clean"),
        )

    def flat(self) -> dict[str, bool | float | str]:
        """Return the columns of the results; what is rarely given only where it is."""
        columns: dict[str, bool | float | str] = {
            "noise_pos": self.pos,
            "noise_neg": self.neg,
            "noise_fneg": self.fneg or 0.0,
        }
        rarely = {
            "noise_kind": self.kind,
            "noise_hidden": self.fneg is not None,
            "valid_noise": self.labels,
        }
        return columns | {name: value for name, value in rarely.items() if value != RARELY[name]}
