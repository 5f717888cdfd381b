"""Losses of the user's own: found, hashed by their bytes, blamed for their own errors."""

from pathlib import Path

import pytest

from bslbench.backbones import BACKBONES
from bslbench.errors import ConfigError, RunFailed
from bslbench.losses import LOSSES
from bslbench.plugins import blaming, find

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


def test_a_value_of_the_wrong_type_and_a_missing_one_are_named(file: Path) -> None:
    plugin = find(f"{file}:Cauchy", LOSSES, "loss")
    with pytest.raises(ConfigError, match=r"Cauchy: power = 1.5 is not of type int"):
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
