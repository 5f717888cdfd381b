"""Packs: whole or refused; a new loss against one; a sample of its runs made again."""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bslbench.config import Cell
from bslbench.engine.executors import inline
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.machine import bits_rest_on
from bslbench.engine.pack import pack_grid, read_pack
from bslbench.engine.running import run_grid
from bslbench.engine.store import Store, sha256
from bslbench.engine.tuning.against import join, open_pack, rival
from bslbench.engine.tuning.contenders import contenders
from bslbench.engine.tuning.ledger import Ledger
from bslbench.engine.tuning.outcome import final_grid, write_outcome
from bslbench.engine.tuning.search import Budget, search
from bslbench.engine.tuning.study import Study
from bslbench.engine.verify import Check, _bands, _settings, check_metrics, rerun
from bslbench.errors import ConfigError, DataError
from bslbench.losses import LOSSES
from bslbench.report.results import Results
from bslbench.report.tuning import latex_row, standings, tuning_table
from bslbench.report.verdict.page import judged, page
from bslbench.report.verdict.rules import read_rules
from tests.test_engine import SMALL, Quiet
from tests.test_tune import FIXED, Silent

CAUCHY = """
import torch

class Cauchy(torch.nn.Module):
    space = {"c": ("log", 0.1, 10.0)}
    def __init__(self, c: float = 1.0):
        super().__init__()
        self.c = c
    def forward(self, pos, neg, batch):
        return ((1 - pos + neg) / self.c).square().log1p().mean()
"""


def carry_out(study: Study, root: Path, rounds: int, seeds: Any) -> tuple[Silent, list[Cell]]:
    """A study and its final runs."""
    entered, store, watcher = contenders(study), Store(root), Silent()
    Ledger(root / study.name).open(study, entered)
    made = search(study, entered, Budget(rounds), store, watcher, inline)
    write_outcome(study, entered, made, root / study.name)
    cells = expand(final_grid(study, seeds, root / study.name))
    run_grid(study.name, cells, store, Quiet())
    return watcher, cells


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    content = {"name": "study", "dataset": SMALL, "losses": ["sl", "bpr"], "startup": 2}
    study = Study.model_validate(content | {"references": ["popularity"], "set": FIXED})
    carry_out(study, folder, 3, 3)
    return folder


@pytest.fixture(scope="module")
def packed(root: Path) -> bytes:
    return pack_grid(root, "study")


def changed(packed: bytes, path: str, change: Callable[[bytes], bytes], mend: bool) -> bytes:
    """A pack with other bytes in one file, its checksum put right or not."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(out, "w") as new:
        files = {name: old.read(name) for name in old.namelist()}
        files[path] = change(files[path])
        manifest = json.loads(files["pack.json"])
        if mend and path != "pack.json":
            manifest["files"][path] = sha256(files[path])
            files["pack.json"] = json.dumps(manifest).encode()
        for name, content in files.items():
            new.writestr(name, content)
    return out.getvalue()


def run_of(packed: bytes, loss: str) -> str:
    return next(c.id for c in read_pack(packed, "it").cells if c.loss == loss)


def test_a_pack_is_the_same_bytes_and_gives_the_same_tables(
    root: Path, packed: bytes, tmp_path: Path
) -> None:
    assert packed == pack_grid(root, "study")
    pack = read_pack(packed, "it")
    assert [cell.loss for cell in pack.cells].count("sl") == 3
    pack.unpack(tmp_path, "copy")
    for name in ("metrics.csv", "runs.csv", "trials.csv", "tuned.toml"):
        assert (tmp_path / "copy" / name).read_bytes() == (root / "study" / name).read_bytes()
    check_metrics(pack, tmp_path)
    shown, copied = (tuning_table(r, n) for r, n in ((root, "study"), (tmp_path, "copy")))
    assert shown.rows == copied.rows


def test_a_page_of_verdicts_has_the_standings_of_its_studies(root: Path) -> None:
    full, short = tuning_table(root, "study"), standings(root, "study")
    ranked = [[row[table.column("loss")].text for row in table.rows] for table in (full, short)]
    assert ranked[0] == ranked[1] and ranked[0][0] == "popularity"
    assert not {"NDCG@20", "trials"} & {column.name for column in short.columns}
    assert short.notes[0] == "first: popularity; behind it: 2 of 2"
    text = page(judged(root, ["study"], read_rules()))
    assert "## Losses after equal tuning\n\n**study: after equal tuning**\n\n|" in text
    assert "- first: popularity; behind it: 2 of 2\n" in text


def test_equal_files_are_in_it_once(packed: bytes) -> None:
    pack = read_pack(packed, "it")
    places = [f"runs/{cell.id}/ranks.npz" for cell in pack.cells if cell.loss == "popularity"]
    assert len({pack.files[place] for place in places}) == 1 < len(places)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert [name for name in archive.namelist() if name in places] == places[:1]
    manifest = json.loads(zipfile.ZipFile(io.BytesIO(packed)).read("pack.json"))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as old:  # as version 1 wrote it
        old.writestr("pack.json", json.dumps(manifest | {"pack": 1}))
        for path, content in pack.files.items():
            old.writestr(path, content)
    assert read_pack(whole.getvalue(), "it").files == pack.files


def lacking(packed: bytes) -> bytes:
    """A pack without one of its files."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name != "grid/runs.csv":
                new.writestr(name, old.read(name))
    return out.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p[:500], "cannot be read as a pack"),
        (lambda p: b"", "cannot be read as a pack"),
        (lambda p: changed(p, "grid/runs.csv", lambda b: b + b"\n", False), "grid/runs.csv is not"),
        (lacking, "grid/runs.csv is not the file that was packed"),
        (
            lambda p: changed(
                p, "pack.json", lambda b: b.replace(b'"protocol": 1', b'"protocol": 2'), 0
            ),
            "made under version 2 of the protocol, this is version 1",
        ),
        (
            lambda p: changed(p, "pack.json", lambda b: b.replace(b'"pack": 2', b'"pack": 9'), 0),
            "a pack of version 9, not 2",
        ),
    ],
)
def test_what_is_no_pack_is_refused(packed: bytes, damage: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pack(damage(packed), "it")


def test_a_file_outside_its_folder_is_refused(packed: bytes, tmp_path: Path) -> None:
    name = "grid/../../evil"
    out = io.BytesIO(packed)
    with zipfile.ZipFile(out) as old:
        manifest = json.loads(old.read("pack.json"))
        files = {n: old.read(n) for n in old.namelist()} | {name: b"x"}
    manifest["files"][name] = sha256(b"x")
    files["pack.json"] = json.dumps(manifest).encode()
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as new:
        for path, content in files.items():
            new.writestr(path, content)
    with pytest.raises(DataError, match=r"grid/../../evil is not the file that was packed"):
        read_pack(evil.getvalue(), "it")


def test_other_settings_or_metrics_than_stated_are_found(packed: bytes, tmp_path: Path) -> None:
    run = run_of(packed, "sl")
    other = changed(
        packed, f"runs/{run}/run.json", lambda b: b.replace(b'"dim": 8', b'"dim": 9'), True
    )
    with pytest.raises(DataError, match=f"{run} has the settings of "):
        _ = read_pack(other, "it").cells
    better = changed(packed, f"runs/{run}/metrics.csv", lambda b: b.replace(b"0.", b"0.9"), True)
    pack = read_pack(better, "it")
    pack.unpack(tmp_path / "a", "study")
    with pytest.raises(DataError, match=r"the metrics of .* are not those of its run.json"):
        check_metrics(pack, tmp_path / "a")
    metrics = pack.files[f"runs/{run}/metrics.csv"]
    signed = changed(
        better,
        f"runs/{run}/run.json",
        lambda b: json.dumps(json.loads(b) | {"metrics_sha256": sha256(metrics)}).encode(),
        True,
    )
    pack = read_pack(signed, "it")
    pack.unpack(tmp_path / "b", "study")
    with pytest.raises(DataError, match=f"{run}: its ranks give "):
        check_metrics(pack, tmp_path / "b")


def test_a_pack_goes_into_results_that_have_nothing_else_of_its_names(
    root: Path, packed: bytes, tmp_path: Path
) -> None:
    pack = read_pack(packed, "study.zip")
    committed = tmp_path / "study"  # a grid's folder without its runs, as in a repository
    committed.mkdir()
    for name in ("grid.toml", "metrics.csv"):
        (committed / name).write_bytes((root / "study" / name).read_bytes())
    pack.unpack(tmp_path, "study")
    assert pack_grid(tmp_path, "study") == packed
    run = Store(tmp_path).run(run_of(packed, "bpr"))
    run.file("ranks.npz").write_bytes(b"others")
    run.file("metrics.csv").unlink()
    with pytest.raises(ConfigError, match=r"ranks.npz is there and is not that of study.zip"):
        pack.unpack(tmp_path, "study")
    assert not run.file("metrics.csv").exists()


def test_runs_that_are_there_with_the_same_results_stay(packed: bytes, tmp_path: Path) -> None:
    pack = read_pack(packed, "study.zip")
    pack.unpack(tmp_path, "study")
    run = Store(tmp_path).run(run_of(packed, "bpr"))
    mine = json.dumps(run.info() | {"seconds": "of my own machine"})
    run.file("run.json").write_text(mine)
    run.file("curve.csv").write_text("of my own machine\n")
    pack.unpack(tmp_path, "again")
    assert run.file("run.json").read_text() == mine
    assert (tmp_path / "again/grid.toml").is_file()
    run.file("ranks.npz").unlink()
    with pytest.raises(ConfigError, match="is there and is not that"):
        pack.unpack(tmp_path, "third")


def test_a_grid_without_its_runs_is_the_pack_in_its_folder(packed: bytes, tmp_path: Path) -> None:
    pack = read_pack(packed, "it")
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("grid.toml", "runs.csv"):
        (folder / name).write_bytes(pack.files[f"grid/{name}"])
    with pytest.raises(ConfigError, match="runs are not finished"):
        open_pack("study", tmp_path)
    (folder / "study.zip").write_bytes(packed)
    found = open_pack("study", tmp_path)
    assert found.files == pack.files and found.where == str(folder / "study.zip")
    Store(tmp_path).run(pack.cells[0].id).folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match="runs are not finished"):  # some are: train the others
        open_pack("study", tmp_path)


def test_a_grid_that_is_not_finished_is_not_packed(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no results of a grid 'studi'.*did you mean 'study'"):
        pack_grid(root, "studi")
    cells = expand(final_grid(Study(name="part", dataset=SMALL, losses=["sl"]), 1, root / "study"))
    Store(tmp_path).write_grid("part", cells)
    with pytest.raises(ConfigError, match="1 of 1 runs are not finished"):
        pack_grid(tmp_path, "part")


# A new loss


def test_a_new_loss_gets_the_same_effort_and_a_row(
    root: Path, packed: bytes, tmp_path: Path
) -> None:
    (tmp_path / "cauchy.py").write_text(CAUCHY)
    (tmp_path / "study.zip").write_bytes(packed)
    pack = open_pack(str(tmp_path / "study.zip"), Path("nowhere"))
    study, rounds, seeds = rival(pack, f"{tmp_path / 'cauchy.py'}:Cauchy", "mine")
    assert (rounds, seeds, study.startup, study.set) == (
        3,
        [0, 1, 2],
        2,
        {"l2_negatives": False} | FIXED,
    )
    watcher, cells = carry_out(study, tmp_path, rounds, seeds)
    assert watcher.started_titles == [f"Cauchy, trial {n}" for n in range(3)]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        *(trial.cell for trial in watcher.made),
        *(cell.id for cell in cells),
    }
    both = tmp_path / "compared"
    for _ in range(2):  # what stands there is replaced
        join(pack, study, cells, Store(tmp_path), both)
    table = tuning_table(both, "mine")
    losses = [row[table.column("loss")].text for row in table.rows]
    assert sorted(losses) == ["Cauchy", "bpr", "popularity", "sl"]
    place = table.column("trials", "tuning")
    counts = [row[place].text.split()[0] for row in table.rows if row[place].text]
    assert counts == ["3"] * 3
    assert latex_row(table, "Cauchy").startswith("mf & Cauchy & 3 & ")
    old, new = (
        Results.load(folder, name).scores(["Recall@20"])
        for folder, name in ((root, "study"), (both, "mine"))
    )
    assert old.items() < new.items()
    with pytest.raises(ConfigError, match="has a loss 'sl' already: give the new class another"):
        rival(pack, "sl", "again")


def test_other_data_and_other_budgets_are_refused(packed: bytes, tmp_path: Path) -> None:
    other = changed(
        packed,
        "grid/study.toml",
        lambda b: b.replace(b'fingerprint = "', b'fingerprint = "00'),
        True,
    )
    with pytest.raises(DataError, match=r"made from other data than synthetic.*: fingerprint 00"):
        rival(read_pack(other, "it"), "mse", "mine")
    fewer = changed(packed, "grid/trials.csv", lambda b: b"".join(b.splitlines(True)[:-1]), True)
    with pytest.raises(ConfigError, match="different numbers of trials: sl 3, bpr 2"):
        rival(read_pack(fewer, "it"), "mse", "mine")
    cells = expand(
        final_grid(Study(name="s", dataset=SMALL, losses=["sl"], set=FIXED), 1, Path()).model_copy(
            update={"presets": False, "name": "untuned"}
        )
    )
    run_grid("untuned", cells, Store(tmp_path), Quiet())
    with pytest.raises(ConfigError, match="its losses were not tuned"):
        rival(open_pack("untuned", tmp_path), "mse", "mine")
    with pytest.raises(DataError, match=r"gone.zip: No such file"):
        open_pack("gone.zip", tmp_path)


# Verify


def test_a_run_made_again_has_the_same_bytes(packed: bytes, tmp_path: Path) -> None:
    pack = read_pack(packed, "it")
    pack.unpack(tmp_path, "study")
    told: list[str] = []
    checks = list(rerun(pack, tmp_path, 2, 0, Options(), told.append))
    assert [check.verdict for check in checks] == ["same bytes"] * 2
    assert told == [check.cell.id for check in checks]
    assert told != [c.cell.id for c in rerun(pack, tmp_path, 2, 1, Options(), told.append)]


def test_runs_of_an_older_version_of_a_loss_are_not_made_again(
    packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = read_pack(packed, "it")
    pack.unpack(tmp_path, "study")
    for loss in {cell.loss for cell in pack.cells} & LOSSES.keys():
        monkeypatch.setattr(LOSSES[loss], "version", 2)
    made = list(rerun(pack, tmp_path, 100, 0, Options(), lambda name: None))
    assert not {check.cell.loss for check in made} & LOSSES.keys()


def test_what_draws_nothing_has_no_band(packed: bytes, tmp_path: Path) -> None:
    pack = read_pack(packed, "it")
    pack.unpack(tmp_path, "study")
    bands = _bands(pack.cells, Store(tmp_path))
    seeds = Counter(cell.loss for cell in pack.cells)
    assert seeds == {"sl": 3, "bpr": 3, "popularity": 3}
    assert {cell.loss for cell in pack.cells if _settings(cell) in bands} == {"sl", "bpr"}


@pytest.mark.parametrize(
    ("found", "same_machine", "band", "verdict"),
    [
        (0.5, True, 0.1, "differs"),
        (0.55, False, 0.1, "within the band"),
        (0.65, False, 0.1, "differs"),
        (0.5, False, None, "cannot be told"),
    ],
)
def test_what_can_be_said_of_other_bytes(
    packed: bytes, found: float, same_machine: bool, band: float | None, verdict: str
) -> None:
    cell = read_pack(packed, "it").cells[0]
    assert Check(cell, 0.5, found, same_machine, False, band).verdict == verdict


@pytest.mark.parametrize("name", ["cpu", "bslbench"])
def test_another_maker_or_version_promises_no_equal_bytes(
    packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pack = read_pack(packed, "it")
    pack.unpack(tmp_path, "study")
    here = bits_rest_on()
    other = here | {name: f"not {here[name]}"}  # the same instructions, for one
    monkeypatch.setattr("bslbench.engine.verify.bits_rest_on", lambda: other)
    [check] = rerun(pack, tmp_path, 1, 0, Options(), lambda name: None)
    assert check.same_bytes and not check.same_machine


@pytest.mark.parametrize("name", ["metrics.csv", "runs.csv", "grid.toml"])
def test_a_forged_table_is_found(packed: bytes, tmp_path: Path, name: str) -> None:
    better = changed(packed, f"grid/{name}", lambda b: b.replace(b"0.", b"0.9", 1), True)
    pack = read_pack(better, "it")
    pack.unpack(tmp_path, "study")
    with pytest.raises(DataError, match=f"it: grid/{name} is not what its runs give"):
        check_metrics(pack, tmp_path)


def test_a_pack_from_before_losses_had_versions_is_whole(packed: bytes, tmp_path: Path) -> None:
    def without(table: bytes) -> bytes:
        return table.replace(b"loss_version", b"gone").replace(b"gone = 1\n", b"")

    older = changed(packed, "grid/grid.toml", without, True)
    assert b"loss_version" not in read_pack(older, "it").files["grid/grid.toml"]
    pack = read_pack(older, "it")
    pack.unpack(tmp_path, "study")
    check_metrics(pack, tmp_path)


@pytest.mark.parametrize("content", [b"", b"cells = [", b"cells = 1", b"cells = [1979-05-27]"])
def test_a_pack_with_a_damaged_grid_is_refused(
    packed: bytes, tmp_path: Path, content: bytes
) -> None:
    pack = read_pack(changed(packed, "grid/grid.toml", lambda b: content, True), "it")
    pack.unpack(tmp_path, "study")
    with pytest.raises(DataError, match=r"grid\.toml is not what its runs give"):
        check_metrics(pack, tmp_path)


@pytest.mark.parametrize("grid", ["/tmp/elsewhere", "../up", ".hidden", "a/b", ""])
def test_a_pack_stays_in_the_results(packed: bytes, grid: str) -> None:
    def renamed(manifest: bytes) -> bytes:
        return json.dumps(json.loads(manifest) | {"grid": grid}).encode()

    with pytest.raises(DataError, match=re.escape(f"it: its grid cannot be called {grid!r}")):
        read_pack(changed(packed, "pack.json", renamed, False), "it")


def test_a_forged_run_is_found_on_the_same_machine(packed: bytes, tmp_path: Path) -> None:
    """Ranks and metrics of another seed under this one's name: consistent, but not so made."""
    first, second = (c.id for c in read_pack(packed, "it").cells if c.loss == "sl" and c.seed < 2)
    pack = read_pack(packed, "it")
    for name in ("metrics.csv", "ranks.npz"):
        packed = changed(
            packed, f"runs/{first}/{name}", lambda b, n=name: pack.files[f"runs/{second}/{n}"], True
        )
    sums = json.loads(pack.files[f"runs/{second}/run.json"])["metrics_sha256"]
    packed = changed(
        packed,
        f"runs/{first}/run.json",
        lambda b: json.dumps(json.loads(b) | {"metrics_sha256": sums}).encode(),
        True,
    )
    forged = read_pack(packed, "it")
    forged.unpack(tmp_path, "study")
    with pytest.raises(DataError, match=r"it: grid/metrics.csv is not what its runs give"):
        check_metrics(forged, tmp_path)
    only = type(forged)(forged.grid, {p: c for p, c in forged.files.items() if first in p}, "it")
    [check] = rerun(only, tmp_path, 3, 0, Options(), lambda text: None)
    assert check.verdict == "differs" and check.same_machine
