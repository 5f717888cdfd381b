"""Losses, backbones and references by name; the first two ours or the user's own."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bslbench.config import Cell, Scalar, TrainSettings
from bslbench.errors import ConfigError, RunFailed, suggest

OF_BACKBONES = {"data", "dim", "generator"}
"""Arguments of a backbone that the engine fills in."""
TAKEN = {*TrainSettings.model_fields, *Cell.columns(), "noise"}
TAKEN |= {"id", "run_id", "status", "settings_from"}
"""What no parameter of a user's class can be called: settings, and columns of the results."""


@dataclass(frozen=True)
class Plugin:
    """A loss or backbone class and where it came from.

    Attributes
    ----------
    name
        Name in the results: that of our table, else the class's.
    cls
        An ``nn.Module`` or a reference; its constructor's arguments are its hyper-parameters.
    spec
        What was asked for, ``FILE.py:CLASS`` with an absolute path or ``MODULE:CLASS``.
    path
        The user's file; empty for ours.
    source
        sha256 of the user's file; empty for ours.
    """

    name: str
    cls: type[Any]
    spec: str = ""
    path: str = ""
    source: str = ""

    @property
    def place(self) -> str:
        """What an error calls it: the name, of the user's own behind its file."""
        return f"{self.path}: {self.name}" if self.path else self.name

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Return the hyper-parameters by name."""
        try:
            signature = inspect.signature(self.cls.__init__, eval_str=True)
        except Exception:  # an annotation that is text and cannot be evaluated
            signature = inspect.signature(self.cls.__init__)
        given = signature.parameters
        filled_in = {"self"} | (OF_BACKBONES if given.keys() >= OF_BACKBONES else set())
        return {
            name: parameter
            for name, parameter in given.items()
            if name not in filled_in
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }

    def resolve(self, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return every hyper-parameter's value: the one given, else its default.

        Raises
        ------
        ConfigError
            If one has neither, or a value is none that a cell can have or does not fit the
            annotated or default type.
        """
        resolved: dict[str, Scalar] = {}
        for name, parameter in self.parameters().items():
            if name not in given and parameter.default is parameter.empty:
                raise ConfigError(f"{self.place} needs a value for '{name}': --set {name}=...")
            value = given.get(name, parameter.default)
            if not isinstance(value, Scalar):
                raise ConfigError(
                    f"{self.place}: {name} = {value!r}: a hyper-parameter is a number, a text, "
                    "true or false"
                )
            kind = parameter.annotation if parameter.annotation in (bool, int, float, str) else None
            if kind is None and parameter.default is not parameter.empty:
                kind = type(parameter.default)
            resolved[name] = fitted(value, kind, f"{self.place}: {name}")
        return resolved


def fitted(value: Scalar, kind: type | None, what: str) -> Scalar:
    """Return `value` as a `kind` if nothing is lost by it."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in (bool, int, float, str) and type(value) is not kind:
        raise ConfigError(f"{what} = {value!r} is not of type {kind.__name__}")
    return value


def find(name: str, table: Mapping[str, type[nn.Module]], what: str) -> Plugin:
    """Return the entry of `table`, or the class behind ``FILE.py:CLASS`` or ``MODULE:CLASS``.

    Raises
    ------
    ConfigError
        If there is no such name, file, module or class, or the class is no ``nn.Module``.
    RunFailed
        If the user's file raises while it is imported; the message has their file and line.
    """
    if ":" not in name:
        if name not in table:
            raise ConfigError(f"no {what} named '{name}'{suggest(name, table)}")
        return Plugin(name, table[name])
    place, _, class_name = name.rpartition(":")
    if place.endswith(".py"):
        place = str(Path(place).resolve())
        module = _import_file(Path(place))
    else:
        module = _import_module(place)
    path = Path(getattr(module, "__file__", None) or place)  # one that is built in has no file
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        own = [
            n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, nn.Module)
        ]
        raise ConfigError(f"{path}: no torch.nn.Module '{class_name}'{suggest(class_name, own)}")
    if not place.endswith(".py"):
        path = Path(inspect.getfile(cls))  # which the module may only hand on
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    plugin = Plugin(class_name, cls, f"{place}:{class_name}", str(path), source)
    if taken := TAKEN & plugin.parameters().keys():
        raise ConfigError(
            f"{path}: {class_name} has a parameter '{min(taken)}', which settings or results have "
            "already: rename it"
        )
    return plugin


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    # The name covers place and content: a file that has changed is another module.
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]
    module_name = f"bslbench_user_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        with blaming(str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"no module '{name}' can be imported: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise RunFailed(f"module '{name}' cannot be imported: {reason}") from error


@contextmanager
def blaming(*paths: str) -> Iterator[None]:
    """Turn an exception that passed through one of the user's files into a `RunFailed` naming it.

    The message is one line with the file, the line and the error.
    """
    try:
        yield
    except SyntaxError as error:
        if error.filename in paths:
            raise RunFailed(f"{error.filename}, line {error.lineno}: {error.msg}") from error
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in paths]
        if not frames:
            raise
        where = f"{frames[-1].filename}, line {frames[-1].lineno}"
        raise RunFailed(f"{where}: {type(error).__name__}: {error}") from error
