"""How grids stand, read from the store alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from bslbench.engine.grid import expand
from bslbench.engine.running import Part
from bslbench.engine.status import overview
from bslbench.engine.store import Store
from bslbench.errors import ConfigError, DataError
from tests.test_engine import grid
from tests.test_executors import run
from tests.test_tune import study, tuned


def test_every_state_is_shown(tmp_path: Path) -> None:
    asked = grid(losses=["sl"], seeds=4)
    run(asked, tmp_path, part=Part(limit=1))
    done, running, failed, _ = (Store(tmp_path).run(cell.id) for cell in expand(asked))
    for folder in (running, failed):
        folder.folder.mkdir()
    failed.file("failure.json").write_text('{"reason": "non-finite loss"}')
    point = {"epoch": 1, "epochs": 4, "recall": 0.0612}
    running.file("progress.json").write_text(json.dumps(point))
    info = done.info()
    for key in info["outcome"]:
        if key.startswith("seconds_"):
            info["outcome"][key] = 10.0
    done.file("run.json").write_text(json.dumps(info))
    with FileLock(running.file(".lock")):
        first, *rest = overview(tmp_path, "trial").splitlines()
    # four phases of ten seconds; half a run and two whole ones are left
    assert first == "trial: 4 cells: 1 done, 1 running, 1 failed, 1 missing, about 1.7 min left"
    assert rest == [
        f"  running  {running.folder.name}  epoch 1 of 4, Recall@20 0.0612",
        f"  failed  {failed.folder.name}  non-finite loss",
    ]
    assert "2 missing" in overview(tmp_path)  # nobody holds its lock any more, and no state is kept
    running.file("state.pt").touch()
    first, second, _ = overview(tmp_path).splitlines()
    assert first == "trial: 4 cells: 1 done, 1 cut off, 1 failed, 1 missing, about 1.7 min left"
    assert second == f"  cut off  {running.folder.name}  epoch 1 of 4, Recall@20 0.0612"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no grids in .*bslbench train makes the first"):
        overview(tmp_path)
    run(grid(), tmp_path)
    with pytest.raises(ConfigError, match=r"no results of a grid 'trail'.* 'trial'"):
        overview(tmp_path, "trail")
    (tmp_path / "trial" / "grid.toml").write_text("cells = [")
    with pytest.raises(DataError, match=r"grid.toml is not whole; train the grid again"):
        overview(tmp_path)


def test_a_study_shows_its_trials_before_it_has_a_grid(tmp_path: Path) -> None:
    tuned(study(), tmp_path, 1)
    tuned(study(losses=["sl"]), tmp_path, 2)
    assert overview(tmp_path) == "study: study: 3 trials done, 1 to 2 of each of 2"
    assert overview(tmp_path, "study") == overview(tmp_path)
    (tmp_path / "study" / "study.db").write_text("no database, whatever it is called")
    with pytest.raises(DataError, match=r"study.db is damaged: no trials can be read from it$"):
        overview(tmp_path)


def test_status_imports_nothing_heavy(tmp_path: Path) -> None:
    run(grid(), tmp_path)
    code = (
        f"import sys; sys.argv = ['bslbench', 'status', '--results', {str(tmp_path)!r}]\n"
        "from bslbench import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'numba', 'numpy', 'scipy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trial: 1 cells: 1 done\n"
