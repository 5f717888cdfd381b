"""From a grid to its cells: names looked up, axes multiplied, every setting resolved."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, TypeVar

from bslbench.backbones import BACKBONES
from bslbench.catalog import (
    DatasetSpec,
    data_dir,
    get,
    load_catalog,
    missing_files,
    split_name,
)
from bslbench.config import REFERENCE, Cell, Grid, Preset, Scalar, TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.resplit import unsplit
from bslbench.engine.presets import find_presets
from bslbench.errors import ConfigError, suggest
from bslbench.losses import LOSSES
from bslbench.losses.base import NEEDS, declared
from bslbench.noise import Noise
from bslbench.plugins import Plugin, find
from bslbench.references import REFERENCES
from bslbench.toml import validated

T = TypeVar("T")
GRIDS = Path(__file__).parent.parent / "grids"


def find_grid(name: str) -> Grid:
    """Return a grid by the name of one of ours or by the path of a TOML file.

    Raises
    ------
    ConfigError
        If there is none, or it is malformed.
    """
    ours = {path.stem: path for path in GRIDS.glob("*.toml")}
    if name in ours:
        return Grid.from_toml(ours[name])
    if name.endswith(".toml"):
        return Grid.from_toml(Path(name))
    raise ConfigError(f"no grid named '{name}'{suggest(name, ours)} (a file ends in .toml)")


def expand(
    grid: Grid, data: Path | None = None, catalog: Mapping[str, DatasetSpec] | None = None
) -> list[Cell]:
    """Return the cells of a grid, in the order of its axes, no two alike.

    Raises
    ------
    ConfigError
        For a name that is unknown, a setting that nothing in the grid has, or one that cannot act.
    """
    if not grid.losses and not grid.references:
        raise ConfigError(
            f"grid '{grid.name}' has neither losses nor references: --loss sl, --reference ease"
        )
    catalog = load_catalog() if catalog is None else catalog
    losses = _apart([find(name, LOSSES, "loss") for name in grid.losses])
    backbones = _apart([find(name, BACKBONES, "backbone") for name in grid.backbones])
    references = [_reference(name) for name in grid.references]
    _check_rules(grid, losses, backbones, references, catalog)
    _check_keys(grid, losses, backbones, references)
    if grid.selection == "test" and any(noise.labels == "same" for noise in grid.noises()):
        raise ConfigError(f"grid '{grid.name}': valid_noise acts on selection = \"valid\" only")
    presets = find_presets(grid.presets, losses + backbones)
    cells: dict[str, Cell] = {}
    for dataset in grid.datasets:
        loaded = load(dataset, data, catalog)
        made = itertools.chain(
            *(
                _fitted(grid, presets, loaded, reference, noise)
                for reference, noise in itertools.product(references, grid.noises())
            ),
            *(
                _trained(grid, presets, loaded, backbone, loss, noise)
                for backbone, loss, noise in itertools.product(backbones, losses, grid.noises())
            ),
        )
        for cell in made:
            if not any(_excluded(cell, rule) for rule in grid.exclude):
                cells.setdefault(cell.id, cell)
    if not cells:
        raise ConfigError(f"grid '{grid.name}' excludes every cell it has")
    return list(cells.values())


def at_hand(
    grid: Grid, data: Path | None, catalog: Mapping[str, DatasetSpec]
) -> tuple[Grid, list[str]]:
    """Return a grid without the datasets whose files are not here, and the names of these.

    A grid of which nothing is left stays as it is: `expand` says what is missing.
    """
    missing = [
        name
        for name in grid.datasets
        if missing_files(get(catalog, split_name(name)[0]), data_dir(data))
    ]
    left = [name for name in grid.datasets if name not in missing]
    return (grid.model_copy(update={"datasets": left}), missing) if left else (grid, [])


def _listed(given: T | list[T]) -> list[T]:
    return given if isinstance(given, list) else [given]


def _apart(plugins: list[Plugin]) -> list[Plugin]:
    """Return them as they are, once no two have one name: results could not tell these apart."""
    known: dict[str, Plugin] = {}
    for plugin in plugins:
        if (other := known.setdefault(plugin.name, plugin)).spec != plugin.spec:
            places = " and ".join(sorted(p.spec or "ours" for p in (other, plugin)))
            raise ConfigError(f"two are called '{plugin.name}', {places}: rename one")
    return plugins


def _reference(name: str) -> Plugin:
    if name not in REFERENCES:
        raise ConfigError(f"no reference named '{name}'{suggest(name, REFERENCES)}")
    return Plugin(name, REFERENCES[name])


def _check_keys(
    grid: Grid, losses: list[Plugin], backbones: list[Plugin], references: list[Plugin]
) -> None:
    here = losses + backbones + references
    asked = [("set", grid.set, _settings(here))]
    for rule in grid.override:
        named = _listed(rule.when.get("loss", [plugin.name for plugin in here]))
        fit = [plugin for plugin in here if plugin.name in named or plugin in backbones]
        fit += _meant(rule.when)
        training = set(TrainSettings.model_fields)
        if rule.when.keys() <= {"loss"}:  # one for a backbone may be for losses left out here
            trained = (plugin for plugin in fit if plugin in losses or plugin.name in LOSSES)
            training = set().union(*(_loss_defaults(loss)[1] for loss in trained))
        asked.append(("override", rule.set, _settings(fit, training)))
    for where, keys, known in asked:
        for key in keys:
            if key in known:
                continue
            if key in TrainSettings.model_fields:
                raise ConfigError(f"grid '{grid.name}': {where}: no loss here takes '{key}'")
            raise ConfigError(
                f"grid '{grid.name}': {where}: no loss, backbone, reference or training "
                f"setting here has a '{key}'{suggest(key, known)}"
            )


def _meant(rule: Mapping[Any, Any]) -> list[Plugin]:
    """Return what a rule names of ours: a grid that is asked for in part may have left it out."""
    ours: dict[str, type] = {**LOSSES, **REFERENCES, **BACKBONES}
    names = (name for key in ("loss", "backbone") for name in _listed(rule.get(key, [])))
    return [Plugin(name, ours[name]) for name in names if name in ours]


def _settings(
    plugins: list[Plugin], training: Iterable[str] = TrainSettings.model_fields
) -> set[str]:
    return set(training).union(*(plugin.parameters() for plugin in plugins))


def _check_rules(
    grid: Grid,
    losses: list[Plugin],
    backbones: list[Plugin],
    references: list[Plugin],
    catalog: Mapping[str, DatasetSpec],
) -> None:
    """Name an override or exclusion that no cell could be meant by."""
    here = losses + backbones + references
    named: dict[str, Collection[str]] = {
        "dataset": catalog,
        "loss": {*LOSSES, *REFERENCES, *(plugin.name for plugin in losses)},
        "backbone": {*BACKBONES, REFERENCE, *(plugin.name for plugin in backbones)},
    }
    rules: list[tuple[str, str, Any]] = []
    for override in grid.override:
        rules += [("override", key, given) for key, given in override.when.items()]
    for excluded in grid.exclude:
        known = {"noise", *Cell.columns(), *_settings(here + _meant(excluded))}
        for key in excluded:
            if key not in known:
                raise ConfigError(f"grid '{grid.name}': exclude: no '{key}'{suggest(key, known)}")
        rules += [("exclude", key, given) for key, given in excluded.items()]
    for where, key, given in rules:
        for name in _listed(given) if key in named else ():
            plain = split_name(str(name))[0] if key == "dataset" else name
            if plain not in named[key]:  # one that this grid lacks may be that of a larger one
                raise ConfigError(
                    f"grid '{grid.name}': {where}: no {key} named '{name}'"
                    f"{suggest(str(name), named[key])}"
                )


def _fitted(
    grid: Grid, presets: list[Preset], data: Interactions, reference: Plugin, noise: Noise
) -> Iterator[Cell]:
    known = set(reference.parameters())
    names = _names(data, REFERENCE, reference.name, noise)
    for chosen, seed, origin in _choices(grid, presets, names, known):
        params = reference.resolve(chosen)
        _check_values(reference, params, f"grid '{grid.name}', {reference.name}")
        yield Cell(
            dataset=data.name,
            fingerprint=data.fingerprint,
            backbone=REFERENCE,
            loss=reference.name,
            seed=seed,
            selection=grid.selection,
            eval_users=grid.eval_users,
            loss_params=params,
            noise=noise.of_data,
            origin=dict.fromkeys(known, "default") | origin,
        )


def _trained(
    grid: Grid,
    presets: list[Preset],
    data: Interactions,
    backbone: Plugin,
    loss: Plugin,
    noise: Noise,
) -> Iterator[Cell]:
    defaults, acting = _loss_defaults(loss)
    known = {*acting, *loss.parameters(), *backbone.parameters()}
    where = f"grid '{grid.name}', {loss.name} on {backbone.name}"
    names = _names(data, backbone.name, loss.name, noise)
    for chosen, seed, origin in _choices(grid, presets, names, known):
        settings = {k: v for k, v in chosen.items() if k in TrainSettings.model_fields}
        train = validated(TrainSettings, defaults | settings, where)
        params = loss.resolve(chosen)
        if not loss.source:  # one of the user's is told with its line, when it runs
            _check_values(loss, params, where)
        cell = Cell(
            dataset=data.name,
            fingerprint=data.fingerprint,
            backbone=backbone.name,
            loss=loss.name,
            seed=seed,
            selection=grid.selection,
            eval_users=grid.eval_users,
            train=_sensible(train, loss, backbone, noise, where),
            loss_params=params,
            backbone_params=backbone.resolve(chosen),
            noise=noise,
            loss_version=declared(loss.cls, "version"),
            loss_source=loss.source,
            backbone_source=backbone.source,
            loss_path=loss.spec,
            backbone_path=backbone.spec,
        )
        sources = {key: f"loss {loss.name}" if key in defaults else "default" for key in known}
        yield cell.model_copy(update={"origin": sources | origin})


def _check_values(plugin: Plugin, params: Mapping[str, Scalar], where: str) -> None:
    """Name a value that a loss or reference cannot have, before anything runs."""
    try:
        plugin.cls(**params)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


Names = Mapping[str, str | tuple[str, ...]]


def _names(data: Interactions, backbone: str, loss: str, noise: Noise) -> Names:
    """Return what the rules of overrides and presets are matched with."""
    dataset = (data.name, unsplit(data.name))
    return {"dataset": dataset, "backbone": backbone, "loss": loss, **_of_noise(noise)}


def _of_noise(noise: Noise) -> dict[str, str]:
    return {"noise": noise.text, "valid_noise": noise.labels}


def _choices(
    grid: Grid, presets: list[Preset], names: Names, known: Set[str]
) -> Iterator[tuple[dict[str, Scalar], int, dict[str, str]]]:
    """Yield every choice of the settings in `known` that grid and presets make, for every seed.

    Yields
    ------
    tuple
        The values, the seed, and where each value comes from: from a preset, too, if the grid
        says the same.
    """
    given: dict[str, Scalar | list[Scalar]] = dict(grid.set)
    origin = dict.fromkeys(given, f"grid {grid.name}")
    for override in grid.override:
        if override.matches(**names):
            given |= override.set
            origin |= dict.fromkeys(override.set, f"grid {grid.name}, override")
    twin = {**names, **_of_noise(Noise())}
    for noisy in _listed(grid.noisy_presets):
        preset: dict[str, Scalar] = {}
        source: dict[str, str] = {}
        for one in presets:
            if one.matches(**(names if noisy else twin)):
                preset |= one.set
                source |= dict.fromkeys(one.set, f"{one.source} preset")
        own = {**given, **{key: value for key, value in preset.items() if key not in given}}
        own = {key: value for key, value in own.items() if key in known}
        axes: list[list[Scalar]] = [_listed(value) for value in own.values()]
        for values, seed in itertools.product(itertools.product(*axes), grid.seed_list()):
            chosen = dict(zip(own, values, strict=True))
            agreed = {key for key in chosen if key in preset and chosen[key] == preset[key]}
            yield chosen, seed, {key: (source if key in agreed else origin)[key] for key in chosen}


def _loss_defaults(loss: Plugin) -> tuple[dict[str, Any], set[str]]:
    """Return the training settings that the loss decides, and the names of all that act on it."""
    for need in declared(loss.cls, "needs"):
        if need not in NEEDS:
            raise ConfigError(f"{loss.place}: needs: no '{need}'{suggest(str(need), NEEDS)}")
    if type(version := declared(loss.cls, "version")) is not int:
        raise ConfigError(f"{loss.place}: version = {version!r} is not a whole number")
    score = declared(loss.cls, "score")
    defaults = {"score_train": score, "score_test": score, "scale": declared(loss.cls, "scale")}
    defaults["n_negatives"] = declared(loss.cls, "n_negatives")
    lacking = {"scale"} if defaults["scale"] is None else set()
    if "negatives" not in declared(loss.cls, "needs"):
        defaults |= {"sampler": "none", "n_negatives": 0}
        lacking |= {"sampler", "n_negatives", "l2_negatives", "logq"}
    return defaults, TrainSettings.model_fields.keys() - lacking


def _sensible(
    train: TrainSettings, loss: Plugin, backbone: Plugin, noise: Noise, where: str
) -> TrainSettings:
    """Return the settings with what cannot act made the same everywhere.

    Raises
    ------
    ConfigError
        For a combination that would be ignored or cannot be trained.
    """
    takes_negatives = "negatives" in declared(loss.cls, "needs")
    if train.sampler == "in_batch":
        if train.batch_size < 2:
            raise ConfigError(f"{where}: in_batch negatives need a batch_size of at least 2")
        train = train.model_copy(update={"n_negatives": train.batch_size - 1})
    if takes_negatives and (train.sampler == "none" or train.n_negatives == 0):
        raise ConfigError(f"{where}: the loss needs negatives: set a sampler and n_negatives >= 1")
    if train.optimizer == "adam_lazy" and not getattr(backbone.cls, "row_wise", False):
        raise ConfigError(f"{where}: adam_lazy needs a backbone that reads single rows, such as mf")
    if not takes_negatives and (noise.neg != 1 or noise.fneg is not None):
        raise ConfigError(f"{where}: noise '{noise.text}' is among negatives: the loss draws none")
    if train.sampler != "own" and (noise.neg != 1 or noise.fneg is not None):
        raise ConfigError(
            f'{where}: noise \'{noise.text}\' needs sampler = "own", not "{train.sampler}"'
        )
    if train.logq and train.sampler != "in_batch":
        raise ConfigError(f"{where}: logq acts on in_batch negatives only")
    if train.logq and not ("tau" in loss.parameters() and declared(loss.cls, "logq")):
        raise ConfigError(f"{where}: logq needs a loss in which negatives count by exp(n / tau)")
    if train.logq and train.scale not in (None, 1.0):
        raise ConfigError(f"{where}: logq needs scores as they are: no scale")
    return train


def _excluded(cell: Cell, rule: Mapping[str, Scalar | list[Scalar]]) -> bool:
    flat = cell.flat() | {"noise": cell.noise.text}
    if unsplit(cell.dataset) in _listed(rule.get("dataset", "")):  # as `_names` has it
        flat["dataset"] = unsplit(cell.dataset)
    return all(key in flat and flat[key] in _listed(value) for key, value in rule.items())
