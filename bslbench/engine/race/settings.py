"""What is held fixed in a race (``--set``), checked before anything is read or run."""

from collections.abc import Mapping, Sequence

from bslbench.config import Scalar, TrainSettings, by_loss
from bslbench.engine.race.cost import REFERENCE_ROWS
from bslbench.errors import ConfigError, suggest
from bslbench.plugins import Plugin, blaming
from bslbench.references import REFERENCES
from bslbench.toml import validated


def fixed(
    given: Mapping[str, Scalar | list[Scalar]], losses: Sequence[Plugin], backbone: Plugin
) -> dict[str, Scalar]:
    """Return the settings, once it is sure that there is something to take each of them.

    Parameters
    ----------
    given
        By ``KEY`` or ``LOSS.KEY``.

    Raises
    ------
    ConfigError
        For several values, a key that nothing has, or a value that cannot be.
    RunFailed
        If a loss of the user's raises while it is made.
    """
    references = [Plugin(name, REFERENCES[name]) for name in REFERENCE_ROWS]
    settings: dict[str, Scalar] = {}
    for key, value in given.items():
        if isinstance(value, list):
            raise ConfigError(f"--set: {key}: give one value: what is set is not tuned")
        name = _known(key, [*losses, backbone, *references])
        if name in TrainSettings.model_fields:
            validated(TrainSettings, {name: value}, "--set")
        settings[key] = value
    for plugin in [*losses, *references]:
        _check_values(plugin, settings)
    try:  # it takes data to make a backbone, so that its types alone are checked
        backbone.resolve({key: settings[key] for key in backbone.parameters() if key in settings})
    except ConfigError as error:
        raise ConfigError(f"--set: {error}") from error
    return settings


def _known(key: str, plugins: Sequence[Plugin]) -> str:
    """Return the name of the setting that a key means."""
    owner, _, name = key.rpartition(".")
    owners = [plugin.name for plugin in plugins]
    if owner and owner not in owners:
        raise ConfigError(f"--set: nothing here is called '{owner}'{suggest(owner, owners)}")
    known = set(TrainSettings.model_fields)
    for plugin in plugins:
        if owner in ("", plugin.name):
            known |= plugin.parameters().keys()
    if name not in known:
        what = f"{owner} has no" if owner else "nothing here has a"
        raise ConfigError(f"--set: {what} '{name}'{suggest(name, known)}")
    return name


def _check_values(plugin: Plugin, settings: Mapping[str, Scalar]) -> None:
    """Make a loss or reference of what is set for it."""
    parts = by_loss(settings)
    given = parts[""] | parts.get(plugin.name, {})
    if values := {name: given[name] for name in plugin.parameters() if name in given}:
        try:
            with blaming(plugin.path):
                plugin.cls(**plugin.resolve(values))
        except ConfigError as error:
            raise ConfigError(f"--set: {error}") from error
