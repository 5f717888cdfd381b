"""What a study came to, as files to commit: its trials, and the best settings as presets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bslbench.config import Grid
from bslbench.engine.grid_files import csv_text
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import COLUMNS, Trial, column_of
from bslbench.engine.tuning.proposals import best_of, widened
from bslbench.engine.tuning.study import Study
from bslbench.errors import ConfigError, RunFailed
from bslbench.files import locked, write_atomically
from bslbench.noise import Noise
from bslbench.toml import toml_value

TUNED = "tuned.toml"


def write_outcome(
    study: Study,
    entered: Sequence[Contender],
    trials: Mapping[str, Sequence[Trial]],
    folder: Path,
) -> None:
    """Write ``trials.csv`` and ``tuned.toml``.

    Raises
    ------
    RunFailed
        If no trial of a loss is complete.
    """
    names = dict.fromkeys(column_of(name) for contender in entered for name in contender.space)
    rows = []
    for contender in entered:
        ended = trials[contender.name]
        _, steps = widened(contender.space, ended, study.startup, contender.takes)
        for trial in ended:
            rows.append(
                {
                    "loss": contender.name,
                    "trial": trial.number,
                    "state": trial.state,
                    "score": trial.score if trial.curve else "",
                    "epochs": max(trial.curve, default=-1) + 1,
                    "seconds": round(trial.seconds, 3),
                    "cell": trial.cell,
                    "reason": trial.reason,
                    "widened": "; ".join(
                        step.told(len(ended), study.lag)
                        for step in steps
                        if step.known == trial.number + 1
                    ),
                    **{column_of(name): value for name, value in trial.params.items()},
                }
            )
    with locked(folder):
        write_atomically(folder / "trials.csv", csv_text([*COLUMNS, *names], rows))
        write_atomically(folder / TUNED, tuned_toml(study, entered, trials))


def tuned_toml(
    study: Study, entered: Sequence[Contender], trials: Mapping[str, Sequence[Trial]]
) -> str:
    """Return the best settings of each loss as presets, all that the study fixed among them."""
    cell, noise = entered[0].cell, Noise.parse(study.noise, study.valid_noise)
    lines = [
        f"# The best trial of each loss of the study {study.name}, by Recall@20 on valid.",
        f"# Data {cell.fingerprint[:12]}, protocol {cell.protocol}.",
    ]
    for contender in entered:
        best = best_of(trials[contender.name])
        if best is None:
            ended = trials[contender.name]
            why = next((f": {trial.reason}" for trial in ended if trial.reason), "")
            raise RunFailed(f"{contender.name}: no trial of study '{study.name}' was finished{why}")
        chosen = contender.trial(best.params)
        at = f", at {noise.level}" if study.noise else ""
        source = f"tuned ({study.name}, trial {best.number}{at})"
        when = {key: getattr(chosen, key) for key in ("dataset", "backbone", "loss")}
        if study.noise:
            when |= {"noise": study.noise, "valid_noise": noise.labels}
        opened = ("score_train", "score_test") if "score" in best.params else ()
        values = chosen.flat()
        keys = [k for k in values if k in {*contender.fixed, *best.params, *opened}]
        lines += ["", "[[preset]]", f"source = {toml_value(source)}"]
        lines += [f"when = {toml_value(when)}", ""]
        lines += ["[preset.set]", *(f"{key} = {toml_value(values[key])}" for key in keys)]
    return "\n".join(lines) + "\n"


def final_grid(study: Study, seeds: int | list[int], folder: Path) -> Grid:
    """Return the grid of the final runs: the best settings, with seeds that no trial had.

    Raises
    ------
    ConfigError
        If a seed is that of the trials.
    """
    grid = study.grid(seeds=seeds, presets=str(folder / TUNED))
    if study.trial_seed in grid.seed_list():
        raise ConfigError(f"--seeds: {study.trial_seed} is the seed of the study's trials")
    return grid
