"""A ``datasets.toml`` of the user's: an entry added or replaced, every other line left as it is."""

import tomllib
from collections.abc import Mapping
from contextlib import suppress

from bslbench.errors import ConfigError
from bslbench.toml import toml_value


def with_entry(text: str, name: str, entry: str, where: str) -> str:
    """Return the text of a catalog with the entry `name` in it, in place of one that is there.

    Raises
    ------
    ConfigError
        If the text is no TOML, or written such that the old entry cannot be taken out of it.
    """
    before = _parsed(text, where)
    if name in before:
        text = "".join(_replaced(text.splitlines(keepends=True), name, entry))
    else:
        text += "\n" * (bool(text) and not text.endswith("\n")) + "\n" * bool(text) + entry
    others = {key: value for key, value in before.items() if key != name}
    with suppress(ConfigError):
        after = _parsed(text, where)
        if name in after and {k: v for k, v in after.items() if k != name} == others:
            return text
    raise ConfigError(f"{where}: take the entry '{name}' out of it by hand")


def _parsed(text: str, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error


def _replaced(lines: list[str], name: str, entry: str) -> list[str]:
    """Return the lines with `entry` where the tables ``[name]`` and ``[name.*]`` were.

    Comments and blank lines at their end stay: they are of what follows.
    """
    kept: list[str] = []
    last: list[str] = []  # comments and blank lines since a table's last value
    inside = placed = False
    for line in lines:
        if line.lstrip().startswith("["):
            with suppress(tomllib.TOMLDecodeError):  # a line of a value may begin like a header
                inside = name in tomllib.loads(line)
        if not inside:
            kept += [*last, line]
            last = []
        elif not placed:
            kept.append(entry)
            placed = True
        else:
            last = [*last, line] if not line.strip() or line.lstrip().startswith("#") else []
    return [*kept, *last] if placed else [*kept, entry]


def entry_text(
    name: str, fields: Mapping[str, object], files: Mapping[str, Mapping[str, object]]
) -> str:
    """Return one entry as TOML: its fields, and a table for each of its files."""
    name = toml_value(name) if "." in name else name
    tables = {name: fields} | {f"{name}.files.{split}": file for split, file in files.items()}
    return "\n".join(
        "\n".join(
            [
                f"[{header}]",
                *(f"{key} = {toml_value(_printable(value))}" for key, value in table.items()),
                "",
            ]
        )
        for header, table in tables.items()
    )


def _printable(value: object) -> object:
    """Return a value with a question mark for each character of its texts that has no form."""
    if isinstance(value, Mapping):
        return {key: _printable(part) for key, part in value.items()}
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "?" for c in value)
    return value
