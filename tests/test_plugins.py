"""Losses of the user's own: found, hashed by their bytes, blamed for their own errors."""

import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from bslbench.backbones import BACKBONES
from bslbench.engine.cell import run_cell
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.plan import probe
from bslbench.engine.store import Store
from bslbench.errors import ConfigError, RunFailed
from bslbench.losses import LOSSES
from bslbench.noise import COLUMNS, Noise
from bslbench.plugins import Plugin, blaming, find
from bslbench.training import Interrupted
from tests.test_engine import grid

SOURCE = """
import torch

class Cauchy(torch.nn.Module):
    def __init__(self, width: float = 1.0, sharp: bool = False, power: int = 2):
        super().__init__()
        self.width = width

    def forward(self, pos, neg, batch):
        return (neg - pos).clamp_min(0).mean() / self.width
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_loss.py"
    path.write_text(SOURCE)
    return path


def test_finds_a_class_in_a_file_and_reads_its_hyper_parameters(file: Path) -> None:
    plugin = find(f"{file}:Cauchy", LOSSES, "loss")
    assert plugin.name == "Cauchy"
    assert plugin.resolve({"width": 2}) == {"width": 2.0, "sharp": False, "power": 2}
    assert isinstance(plugin.resolve({"width": 2})["width"], float)


def test_the_source_is_the_bytes_not_the_path(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.py"
    copy.write_bytes(file.read_bytes())
    one, two = (find(f"{path}:Cauchy", LOSSES, "loss") for path in (file, copy))
    assert one.source == two.source
    file.write_text(SOURCE + "# changed\n")
    assert find(f"{file}:Cauchy", LOSSES, "loss").source != two.source


def test_finds_a_class_in_a_package() -> None:
    assert find("torch.nn:Identity", LOSSES, "loss").name == "Identity"


def test_ours_have_no_source() -> None:
    assert find("sl", LOSSES, "loss").source == find("mf", BACKBONES, "backbone").source == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sk", "no loss named 'sk'; did you mean 'sl'"),
        ("missing.py:Loss", "missing.py: no such file"),
        ("no_such_package:Loss", "no module 'no_such_package'"),
        ("sys:Loss", "sys: no torch.nn.Module 'Loss'"),
        ("{file}:Couchy", "no torch.nn.Module 'Couchy'; did you mean 'Cauchy'"),
    ],
)
def test_unknown_names_are_named_with_a_suggestion(file: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(name.format(file=file), LOSSES, "loss")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import torch\n\n1 / 0\n", r"my_loss.py, line 3: ZeroDivisionError: division by zero"),
        ("def broken(:\n", r"my_loss.py, line 1: invalid syntax"),
    ],
)
def test_an_error_while_importing_is_the_users_with_file_and_line(
    file: Path, source: str, message: str
) -> None:
    file.write_text(source)
    with pytest.raises(RunFailed, match=message):
        find(f"{file}:Loss", LOSSES, "loss")


def test_a_parameter_named_like_a_training_setting_is_refused(file: Path) -> None:
    file.write_text(SOURCE.replace("width", "lr"))
    with pytest.raises(ConfigError, match="Cauchy has a parameter 'lr'"):
        find(f"{file}:Cauchy", LOSSES, "loss")


@pytest.mark.parametrize("name", ["id", "dataset", "noise", "noise_pos", "valid_noise", "status"])
def test_a_parameter_named_like_a_column_of_the_results_is_refused(file: Path, name: str) -> None:
    file.write_text(SOURCE.replace("width", name))
    with pytest.raises(ConfigError, match=f"has a parameter '{name}', which settings or results"):
        find(f"{file}:Cauchy", LOSSES, "loss")


def test_every_column_of_noise_is_known() -> None:
    noise = Noise.parse("pos_popular=0.1,fneg=0.2", "same")
    assert set(noise.flat()) == COLUMNS and set(Noise().flat()) < COLUMNS


def test_a_value_of_the_wrong_type_and_a_missing_one_are_named(file: Path) -> None:
    plugin = find(f"{file}:Cauchy", LOSSES, "loss")
    with pytest.raises(ConfigError, match=r"my_loss.py: Cauchy: power = 1.5 is not of type int"):
        plugin.resolve({"power": 1.5})
    file.write_text(SOURCE.replace("float = 1.0", "float"))
    with pytest.raises(ConfigError, match="Cauchy needs a value for 'width'"):
        find(f"{file}:Cauchy", LOSSES, "loss").resolve({})


def test_blames_only_the_files_it_was_given() -> None:
    with pytest.raises(ZeroDivisionError), blaming("elsewhere.py"):
        _ = 1 / 0
    mine = pytest.raises(RunFailed, match=r"test_plugins.py, line \d+: ZeroDivisionError")
    with mine, blaming(__file__):
        _ = 1 / 0


def plugin_of(file: Path, source: str) -> Plugin:
    file.write_text(source)
    return find(f"{file}:Cauchy", LOSSES, "loss")


@pytest.mark.parametrize("name", ["data", "dim", "generator"])
def test_what_only_backbones_are_given_is_a_parameter_of_a_loss(file: Path, name: str) -> None:
    source = SOURCE.replace("width: float = 1.0", f"width: float = 1.0, {name}: int = 3")
    if name == "dim":
        with pytest.raises(ConfigError, match="has a parameter 'dim', which settings"):
            plugin_of(file, source)
    else:
        assert plugin_of(file, source).resolve({})[name] == 3
    assert not find("mf", BACKBONES, "backbone").parameters()


def test_annotations_that_are_text_are_read(file: Path) -> None:
    future = "from __future__ import annotations\n"
    plugin = plugin_of(file, future + SOURCE.replace("width: float = 1.0", "width: float = 1"))
    assert plugin.resolve({"width": 0.3}) == {"width": 0.3, "sharp": False, "power": 2}
    unknown = plugin_of(file, future + SOURCE.replace("width: float", "width: Unknown"))
    assert unknown.resolve({"width": 0.3})["width"] == 0.3


@pytest.mark.parametrize("default", ["None", "(1, 2)", "[]"])
def test_a_default_that_no_cell_can_have_is_named(file: Path, default: str) -> None:
    plugin = plugin_of(file, SOURCE.replace("width: float = 1.0", f"width={default}"))
    with pytest.raises(ConfigError, match=r"Cauchy: width = .*: a hyper-parameter is a number"):
        plugin.resolve({})


def test_a_module_that_hands_a_class_on_is_not_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "handing_on"
    package.mkdir()
    (package / "__init__.py").write_text("from handing_on.losses import Cauchy\n")
    (package / "losses.py").write_text(SOURCE)
    (package / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = find("handing_on:Cauchy", LOSSES, "loss")
    assert plugin.path == str(package / "losses.py")
    assert plugin.source == hashlib.sha256(SOURCE.encode()).hexdigest()
    with pytest.raises(RunFailed, match=r"module 'handing_on\.broken' cannot be imported: Zero"):
        find("handing_on.broken:Cauchy", LOSSES, "loss")


def test_two_of_one_name_are_refused(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(SOURCE)
    with pytest.raises(ConfigError, match=r"two are called 'Cauchy', .*my_loss.py:Cauchy and .*"):
        expand(grid(losses=[f"{file}:Cauchy", f"{other}:Cauchy"]))
    assert len(expand(grid(losses=[f"{file}:Cauchy", f"{file}:Cauchy"]))) == 1


def test_a_need_that_nobody_can_meet_is_named(file: Path) -> None:
    file.write_text(
        SOURCE.replace("    def __init__", '    needs = {"negative"}\n\n    def __init__')
    )
    with pytest.raises(ConfigError, match="Cauchy: needs: no 'negative'; did you mean 'negatives'"):
        expand(grid(losses=[f"{file}:Cauchy"]))


RANDOM = """
import torch

class Random(torch.nn.Module):
    needs = frozenset({"negatives", "all_items"})

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(()))

    def forward(self, pos, neg, batch):
        kept = torch.nn.functional.dropout(neg, 0.5)
        return self.weight.square() + (kept.mean(1) - pos[:, 0] + batch.all_scores.mean(1)).mean()
"""


def test_what_a_loss_draws_is_the_cells_own(tmp_path: Path) -> None:
    """Whatever was drawn before it, and however often it was interrupted."""
    (tmp_path / "random_loss.py").write_text(RANDOM)
    asked = grid(losses=[f"{tmp_path / 'random_loss.py'}:Random"], set={"score_train": "inner"})
    [cell] = expand(asked)
    stops = [iter([False, False, True]), iter([False] * 10**6)]
    tables = []
    for number in range(2):
        torch.manual_seed(number)
        before = torch.random.get_rng_state()
        store = Store(tmp_path / str(number))
        for stop in stops[number:]:
            with suppress(Interrupted):
                run_cell(cell, store, Options(), stop=lambda own=stop: next(own))
        assert torch.equal(before, torch.random.get_rng_state())  # and the caller's goes on
        tables.append(store.run(cell.id).file("metrics.csv").read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("(neg - pos).mean(1)", r"a tensor of shape \[512\]"),
        ("pos.detach().mean()", "a tensor without gradient"),
        ("0.0", "float"),
    ],
)
def test_what_cannot_be_minimised_is_named(file: Path, returned: str, message: str) -> None:
    file.write_text(SOURCE.replace("(neg - pos).clamp_min(0).mean() / self.width", returned))
    [cell] = expand(grid(losses=[f"{file}:Cauchy"]))
    with pytest.raises(RunFailed, match=rf"my_loss.py, line 9: forward returned {message}, not"):
        probe(cell, Options())
