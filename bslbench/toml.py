"""TOML read and written, and what it holds taken into a model, each error as one line."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bslbench.errors import ConfigError, suggest


def toml_value(value: object) -> str:
    """Return a text, a number, a bool, or a list or table of them, as TOML in one line.

    Examples
    --------
    >>> print(toml_value({"loss": "sl", "tau": [0.1, 0.2], "name": "naïve"}))
    { loss = "sl", tau = [0.1, 0.2], name = "naïve" }
    """
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml_value(part)}' for key, part in value.items())} }}"
    # Of other characters JSON makes surrogate pairs, which TOML refuses; DEL alone it lets through.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    ConfigError
        Naming the file, and the line that is wrong.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


Model = TypeVar("Model", bound=BaseModel)

MEMBERS = {"bool", "int", "float", "str"}
"""What pydantic adds to the place of an error, where a value may be of several types."""


def validated(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """Build a pydantic model, its first error as one line that names the place and the mend."""
    try:
        return model.model_validate(content)
    except ValidationError as failure:
        errors = failure.errors()
        error = next((e for e in errors if e["type"] == "finite_number"), errors[0])
        parts = [str(part) for part in error["loc"]]
        place = ".".join(p for p in parts if p not in MEMBERS and not p.startswith("list["))
        if error["type"] == "extra_forbidden":
            nested = len(error["loc"]) > 1  # in a model of its own
            hint = "" if nested else suggest(place, model.model_fields)
            raise ConfigError(f"{where}: unknown key '{place}'{hint}") from failure
        said = error["msg"].removeprefix("Value error, ")
        if error["type"] == "string_pattern_mismatch":
            said = "letters, digits and ._- alone, the first a letter or a digit"
        raise ConfigError(f"{where}: {place}: {said}") from failure
