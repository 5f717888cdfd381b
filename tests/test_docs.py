"""Every command that the README and the docs show: all parse, and what is quick is run.

The commands of a page are run in their order, in a folder of its own, against datasets of the same
names with a few users each. What is not run is listed below, with the reason.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer

from bslbench import cli
from bslbench.data.load import load

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in sorted(ROOT.glob("docs/*.md"))),
]

NOT_RUN = {
    "bslbench tune": "a study is minutes long; tests/test_tune.py runs small ones",
    "bslbench report --grid fair": "of the study above",
    "bslbench train --grid gate": "minutes, for its twenty seeds",
    "bslbench check": "of the grid above; tests/test_check.py",
    "bslbench compare": "needs a study; tests/test_pack.py",
    "bslbench choose": "is minutes long; tests/test_choose.py runs a short one",
    "bslbench recommend": "of the choice above; tests/test_choose.py",
    "bslbench unpack": "of somebody's pack; tests/test_cli_tune.py",
    "bslbench verify": "of somebody's pack; tests/test_pack.py",
    "bslbench train --grid mine.toml --jobs": "starts processes; tests/test_executors.py",
    "bslbench train --grid mine.toml --executor": "starts a cluster; tests/test_on_ray.py",
    "bslbench train --grid mine.toml --results": "is a Slurm job",
    "bslbench verdict --grid robustness": "of grids that take days; tests/test_verdict.py",
    "bslbench verdict --grid movielens-mf": "of packs; tests/test_verdict.py",
}
"""The beginnings of commands that are only parsed, and why."""

ELSEWHERE = {
    "make quickstart": "CI runs it",
    "make test": "this is it",
    "pip install": "installs",
    "python -m benchmarks": "is minutes long; tests/test_benchmarks.py runs small ones",
}
"""The beginnings of commands that are not ours."""

SMALL = "synthetic?users=60&items=80&interactions=900"

BEFORE = {
    "docs/eval.md": ["bslbench train --dataset synthetic --loss sl --set epochs=1"],
    "docs/compare.md": [
        "bslbench train --dataset movielens-1m --loss sl --set epochs=1 --name mine"
    ],
    "docs/cluster.md": ["bslbench train --grid mine.toml --limit 1"],
    "docs/status.md": ["bslbench train --dataset yelp2018 --loss sl --set epochs=1"],
    "docs/verdict.md": ["bslbench train --dataset yelp2018 --loss sl --set epochs=1"],
}
"""What a page takes for granted."""


@dataclass(frozen=True)
class Command:
    """A command as a page shows it."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    def begins(self, with_any: dict[str, str]) -> bool:
        return any(self.text.startswith(start) for start in with_any)


def commands(page: str) -> Iterator[Command]:
    """Yield the commands of a page's shell blocks, without comments, continued lines as one."""
    text = ROOT.joinpath(page).read_text("utf-8")
    blocks = [m[1] for m in re.finditer(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.M | re.S)]
    blocks += [m[0] for m in re.finditer(r"^    bslbench .*\n", text, re.M)]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            if words:
                yield Command(page, shlex.join(words[words[0] == "srun" :]))


def mentions(page: str) -> Iterator[Command]:
    """Yield the commands in a page's sentences; of alternatives, ``list losses|grids``, each."""
    text = ROOT.joinpath(page).read_text("utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for found in re.findall(r"`(bslbench [^`]+)`", text):
        *words, last = found.replace("\n", " ").removesuffix("...").split()
        for one in last.split("|"):
            yield Command(page, " ".join([*words, one]))


SHOWN = [command for page in PAGES for command in commands(page)]
MENTIONED = [command for page in PAGES for command in mentions(page)]


def resolved(words: list[str]):
    """Return the command that words call, its context's parent, its name and its arguments."""
    command = typer.main.get_command(cli.app)
    context = command.make_context("bslbench", list(words[1:]))
    while hasattr(command, "commands"):
        arguments = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, arguments)
        if hasattr(command, "commands"):
            context = command.make_context(name, arguments, parent=context)
    return command, context, name, arguments


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: f"{command.page}: {command.text}")
def test_every_command_shown_parses(command: Command) -> None:
    if command.words[0] != "bslbench":
        assert command.begins(ELSEWHERE), f"unknown program: {command.text}"
        return
    found, context, name, arguments = resolved(command.words)
    found.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("command", MENTIONED, ids=lambda c: f"{c.page}: {c.text}")
def test_every_command_mentioned_is_one(command: Command) -> None:
    found, _, _, arguments = resolved(command.text.split())
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= known


def test_the_harness_sees_the_commands() -> None:
    assert len(SHOWN) > 50 and len(MENTIONED) > 20
    assert {"bslbench report --out table.tex", "bslbench train --grid yelp2018-fast"} <= {
        command.text for command in SHOWN
    }
    for start in (*NOT_RUN, *ELSEWHERE):
        assert any(command.begins({start: ""}) for command in SHOWN), f"not shown: {start}"
    assert set(BEFORE) <= set(PAGES)


def test_a_wrong_command_does_not_parse() -> None:
    for text in ("bslbench train --datset yelp2018", "bslbench list loses", "bslbench report x"):
        with pytest.raises(Exception, match=r"datset|loses|argument"):
            test_every_command_shown_parses(Command("", text))
    with pytest.raises(AssertionError):
        test_every_command_mentioned_is_one(Command("", "bslbench report --tabel main"))


@pytest.mark.parametrize("page", [p for p in PAGES if any(c.page == p for c in SHOWN)])
def test_the_commands_of_a_page_run(page: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSLBENCH_DATA", str(tmp_path / "data"))
    prepare(tmp_path, page)
    asked = [Command(page, text) for text in BEFORE.get(page, [])]
    asked += [c for c in SHOWN if c.page == page]
    for command in asked:
        if not command.begins(NOT_RUN | ELSEWHERE):
            monkeypatch.setattr(sys, "argv", quick(command))
            try:
                cli.main()
            except SystemExit as stop:
                assert not stop.code, f"{command.text}: {capsys.readouterr().err}"


def quick(command: Command) -> list[str]:
    """Return the command at a size for a test: two epochs, few cells, few synthetic data."""
    words = command.words
    if words[1] == "train":
        if {"--loss", "--grid"} & set(words):  # references take no epochs
            words = [*words, "--set", "epochs=2"]  # the last of several counts
        if words[3].endswith("-synthetic"):  # grids of hundreds of cells
            words += ["--limit", "8"]
        if not {"--dataset", "--grid"} & set(words):
            words += ["--dataset", "synthetic"]
        if command.page != "docs/eval.md":  # that one asks for a run by its name
            words = [SMALL if word == "synthetic" else word for word in words]
    return words


def of_page(page: str) -> list[str]:
    """Return the Python code of a page, block by block."""
    text = ROOT.joinpath(page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def test_the_check_of_a_loss_of_your_own_passes(tmp_path: Path, monkeypatch) -> None:
    loss, check = of_page("docs/own-loss.md")
    (tmp_path / "my_loss.py").write_text(loss)
    monkeypatch.syspath_prepend(tmp_path)
    exec(check, {})
    del sys.modules["my_loss"]


def prepare(folder: Path, page: str) -> None:
    """Write what commands refer to: small datasets of known names, a loss, a grid, a table."""
    rng = np.random.default_rng(0)
    catalog = []
    for name in ("yelp2018", "gowalla", "movielens-1m"):
        for where in (folder / "data", folder / "stick"):
            where.joinpath(name).mkdir(parents=True)
            for split, each in (("train", range(8)), ("test", range(8, 10))):
                lines = [f"{u} {(u * 7 + i * 3) % 40}" for u in range(30) for i in each]
                where.joinpath(name, f"{split}.txt").write_text("\n".join(lines) + "\n")
        catalog += [f'["{name}"]', 'title = "small"', 'reader = "pairs"', 'licence = "ours"']
        catalog += [f'[{name}.files.{s}]\nname = "{s}.txt"' for s in ("train", "test")]
    (folder / "datasets.toml").write_text("\n".join(catalog) + "\n")
    readme = ROOT.joinpath("README.md").read_text("utf-8")
    own = page if page == "docs/own-loss.md" else "README.md"
    [loss] = [code for code in of_page(own) if code.startswith("# my_loss.py\n")]
    [grid] = re.findall(r"^```toml\n(.*?)^```", readme, re.M | re.S)
    (folder / "my_loss.py").write_text(loss)
    (folder / "mine.toml").write_text(grid)
    users, items = rng.integers(40, size=2000), rng.integers(30, size=2000)
    orders = pd.DataFrame(
        {"customer": users, "sku": items, "time": range(2000), "when": range(2000)}
    )
    orders.to_parquet(folder / "orders.parquet")
    if page == "docs/backbones.md":
        [model] = of_page(page)
        (folder / "my_model.py").write_text(model)
    if page == "docs/verdict.md":
        (folder / "docs").mkdir()
    if page == "docs/eval.md":
        data = load("synthetic")
        for name, count in (("u", data.n_users), ("i", data.n_items)):
            np.save(folder / f"{name}.npy", rng.standard_normal((count, 8)).astype(np.float32))
        top = [(u, i, i + 1) for u in range(data.n_users) for i in range(50)]
        lists = pd.DataFrame(top, columns=["user", "item", "rank"])
        lists.to_csv(folder / "recommended.csv", index=False)


def test_the_docs_build_as_a_site(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("material", reason="no mkdocs-material here")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "index.html").read_text("utf-8")
    assert "fonts.googleapis.com" not in index
    built = {path.stem for path in tmp_path.glob("*.html")} - {"404"}
    assert built == {path.stem for path in ROOT.glob("docs/*.md")}
