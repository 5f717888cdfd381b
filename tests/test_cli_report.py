"""The command `report` as a user meets it."""

from pathlib import Path

import pytest

from bslbench import cli
from tests.stores import seeds, write


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `bslbench report` in a folder with results; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "results", seeds([0.1, 0.2], "sl") + seeds([0.1, 0.1], "bpr"))

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bslbench", "report", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.mark.parametrize(
    ("name", "start"), [("a.tex", "% needs"), ("a.csv", "backbone,"), ("a.md", "**trial**")]
)
def test_a_table_in_a_file_of_any_format(report, tmp_path: Path, name: str, start: str) -> None:
    code, out, err = report("--out", name, "--baseline", "bpr")
    assert (code, out) == (0, ""), err
    text = (tmp_path / name).read_text()
    assert text.startswith(start) and "vs bpr" in text


def test_published_figures_beside_ours(report) -> None:
    code, out, _ = report("--against", "published", "--format", "csv")
    assert code == 0 and out.startswith("dataset,backbone,loss,settings,")
    assert "\nyelp2018,mf,sl,,2,0.15" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.pdf"], "no format for '.pdf'"),
        (["--baseline", "spl"], "no baseline 'spl' in the table; did you mean 'sl'?"),
        (["--against", "published", "--baseline", "sl"], "--against makes its own table"),
        (["--against", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--out", "nowhere/a.md"], "cannot write nowhere/a.md: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line(report, arguments: list[str], message: str) -> None:
    code, out, err = report(*arguments)
    assert code == 2 and not out
    assert message in err and len(err.strip().splitlines()) == 1


def test_figures_in_a_folder_or_a_file(report, tmp_path: Path) -> None:
    code, out, err = report("--figures", "drawn", "--metric", "Recall@20")
    assert code == 0, err
    assert "drawn/groups.pdf\n" in out and "no epochs: no finished run has a learning curve" in out
    assert (tmp_path / "drawn" / "groups.svg").exists()
    assert report("--figure", "groups", "--out", "groups.png")[:2] == (0, "")
    assert (tmp_path / "groups.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--figure", "grups", "--figures", "."],
            "no figure named 'grups'; did you mean 'groups'?",
        ),
        (["--figure", "tau", "--out", "a.pdf"], "no figure named 'tau'"),
        (["--figure", "epochs", "--out", "a.pdf"], "no finished run has a learning curve"),
        (["--figure", "groups"], "name a folder by --figures, or a file by --out"),
        (["--figures", ".", "--baseline", "sl"], "leave out the options of tables"),
        (["--figures", ".", "--metric", "a", "--metric", "b"], "a figure shows one --metric"),
    ],
)
def test_a_mistake_with_figures_is_one_line(report, arguments: list[str], message: str) -> None:
    code, out, err = report(*arguments)
    assert code == 2 and not out
    assert message in err and len(err.strip().splitlines()) == 1


def test_the_table_of_comparisons_and_their_marks(report, tmp_path: Path) -> None:
    code, out, err = report("--table", "significance", "--baseline", "sl")
    assert code == 0 and "not compared: 2 of 2 pairs" in out, err
    code, out, _ = report("--baseline", "best")
    assert code == 0 and "differences are not tested: the ranks of the runs are not" in out
    code, _, err = report("--table", "significance", "--baseline", "spl")
    assert code == 2 and "no baseline 'spl' in the table; did you mean 'sl'?" in err
