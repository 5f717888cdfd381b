"""One table in every format, down to a compiled PDF."""

import csv
import io
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bslbench.errors import ConfigError
from bslbench.report.render import format_of, render
from bslbench.report.table import Column, Entry, Table

COLUMNS = [
    Column("backbone"),
    Column("loss"),
    Column("seeds", only="shown"),
    Column("Recall@20", "yelp2018", better="higher"),
    Column("NDCG@20", "yelp2018", better="higher"),
    Column("Recall@20", "synthetic?users=1e5&items=1e4", better="higher"),
    Column("vs bpr", spec="+.1%", align="right"),
    Column("selection", only="csv"),
]
RAW = "50%&{more}_$x^2~<b>#|*\\[red]"
ROWS = [
    ["mf", "bsl_inbatch", "2", Entry(0.15, 0.01, mark="ab"), 0.05, None, Entry(-0.25), "valid"],
    ["mf", RAW, "1/2", Entry(0.3, each=(("seed 0", 0.3),)), 0.04, 0.5, "base", "valid"],
    ["lightgcn", "sl", "2", 0.1, 0.01, 1 / 3, Entry(0.5, interval=(0.25, 0.75)), "valid"],
]
NOTES = ["[a]: better than sl, p ≤ 0.05 ± 1 → † τ ρ ≈ 2 × √2", "* ﬁ é – 中"]


@pytest.fixture
def table() -> Table:
    return Table.of(
        "my trial",
        COLUMNS,
        ROWS,
        title="Trial & error",
        sections=True,
        stamp="SELECTION ON TEST",
        says="test split",
        problems=["failed: mf, sl_x"],
        notes=NOTES,
        footer=["2 seeds: 0, 1"],
    )


def cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in line.split(separator)]


def test_best_and_second_by_what_is_shown_and_the_columns_direction() -> None:
    columns = [Column("x", better="higher"), Column("y", better="lower"), Column("z")]
    rows = [[0.30001, 0.2, 1.0], [0.29999, 0.1, 2.0], [0.1, None, 3.0], [0.2, float("nan"), 4.0]]
    places = [[entry.place for entry in row] for row in Table.of("t", columns, rows).rows]
    assert places == [[1, 2, 0], [1, 1, 0], [0, 0, 0], [2, 0, 0]]


def test_negative_values_and_percentages_are_ordered_by_value() -> None:
    rows = [[-0.5], [0.05], [-0.1]]
    placed = Table.of("t", [Column("x", spec="+.1%", better="higher")], rows)
    assert [row[0].place for row in placed.rows] == [0, 1, 2]


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="table 't': a row of 1 entries for 2 columns"):
        Table.of("t", [Column("a"), Column("b")], [["x"]])


def test_every_format_shows_all_that_stands_around_the_table(table: Table) -> None:
    for fmt in ("console", "markdown", "latex", "html"):
        text = render(table, fmt, styled=False, width=300).replace("\\_", "_")
        for part in ("SELECTION ON TEST", "failed: mf, sl_x", "2 seeds: 0, 1", "Trial", "1/2"):
            assert part in text, (fmt, part)
        assert "selection" not in text
        assert text.endswith("\n")


def test_a_table_without_values_explains_none() -> None:
    text = render(Table.of("t", [Column("a")], [["x"]]), "markdown")
    assert "best" not in text and "deviation" not in text


def test_console_marks_by_style_or_by_sign(table: Table, monkeypatch) -> None:
    text = render(table, "console", width=250, styled=True)
    assert "\x1b[1m0.3000\x1b[0m" in text
    assert "\x1b[4m0.1500\x1b[0mᵃᵇ ±0.0100" in text
    plain = render(table, "console", width=250, styled=False)
    assert "0.3000*" in plain and "0.1500+ᵃᵇ ±0.0100" in plain and "best *, second +" in plain
    assert "+50.0% [+25.0%, +75.0%]" in plain and RAW in plain
    assert "\x1b" not in plain
    monkeypatch.setattr("sys.stdout", io.StringIO())  # no terminal
    assert render(table, "console") == plain


def test_a_narrow_console_breaks_no_word(table: Table) -> None:
    text = render(table, "console", width=20, styled=False)
    assert {"bsl_inbatch", "0.1500+ᵃᵇ", "±0.0100"} <= set(text.split())
    assert "0.1500+ᵃᵇ ±0.0100" not in text


def test_markdown(table: Table) -> None:
    lines = render(table, "markdown").splitlines()
    assert lines[0] == "**Trial & error**"
    assert cells(lines[2], "|")[3:6] == ["seeds", "yelp2018 Recall@20", "yelp2018 NDCG@20"]
    assert cells(lines[3], "|")[7].endswith("-:")
    row = cells(lines[4], "|")
    assert row[1:6] == [
        "mf",
        "bsl_inbatch",
        "2",
        "<u>0.1500</u><sup>ab</sup> ± 0.0100",
        "**0.0500**",
    ]
    assert row[6] == "-"
    assert r"50%&{more}_$x^2~\<b\>#\|\*" in lines[5] and "**0.3000**" in lines[5]
    assert cells(lines[6], "|")[1] == "lightgcn" and lines[5].startswith("|  ")
    assert lines[8] == "- **SELECTION ON TEST**"
    assert lines[9].startswith("- test split; mean ± sd (sample standard deviation) over seeds;")


def test_latex(table: Table) -> None:
    lines = render(table, "latex").splitlines()
    assert r"\label{tab:my-trial}" in lines and r"\caption{Trial \& error}" in lines
    assert r"\begin{tabular}{llllllr}" in lines
    start = lines.index(r"\toprule")
    assert lines[start + 1].startswith(r"&& & \multicolumn{2}{c}{yelp2018} & \multicolumn{1}{c}{s")
    assert lines[start + 2] == r"\cmidrule(lr){4-5} \cmidrule(lr){6-6}"
    heads, first, second, third = (lines[start + n] for n in (3, 5, 6, 8))
    assert (
        lines[start + 4] == lines[start + 7] == r"\midrule" and lines[start + 9] == r"\bottomrule"
    )
    assert cells(heads, "&")[3] == "Recall@20"
    assert r"\underline{0.1500}\textsuperscript{ab} {\scriptsize$\pm$\,0.0100} &" in first
    assert r"$-$25.0\%" in first
    assert r"50\%\&\{more\}\_\$x\textasciicircum{}2\textasciitilde{}" in second
    assert third.startswith("lightgcn")
    assert len({len(line) for line in (heads, first, second, third)}) == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles_as_it_is(table: Table, tmp_path: Path) -> None:
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        "\\input{table}\nTable~\\ref{tab:my-trial}.\n\\end{document}\n"
    )
    (tmp_path / "table.tex").write_text(render(table, "latex"), "utf-8")
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Output written on paper.pdf (1 page" in done.stdout
    assert "Overfull" not in done.stdout


def test_csv_has_every_digit_and_what_programs_want(table: Table) -> None:
    first, second, third = csv.DictReader(io.StringIO(render(table, "csv")))
    group = "synthetic?users=1e5&items=1e4"
    assert list(first) == [
        "backbone",
        "loss",
        "yelp2018 Recall@20 mean",
        "yelp2018 Recall@20 sd",
        "yelp2018 Recall@20 mark",
        "yelp2018 NDCG@20 mean",
        "yelp2018 NDCG@20 sd",
        f"{group} Recall@20 mean",
        f"{group} Recall@20 sd",
        "vs bpr",
        "vs bpr low",
        "vs bpr high",
        "selection",
        "stamp",
    ]
    assert third[f"{group} Recall@20 mean"] == "0.3333333333333333"
    assert first["yelp2018 Recall@20 mark"] == "ab" and first[f"{group} Recall@20 mean"] == ""
    assert (first["backbone"], second["backbone"], second["loss"]) == ("mf", "mf", RAW)
    assert (first["vs bpr"], second["vs bpr"], third["vs bpr high"]) == ("-0.25", "", "0.75")


def test_html(table: Table) -> None:
    text = render(table, "html")
    parser = _Outline()
    parser.feed(text)
    assert not parser.open
    assert len(parser.rows) == 5 and len({len(row) for row in parser.rows[1:]}) == 1
    assert parser.rows[0] == ["", "yelp2018", "synthetic?users=1e5&items=1e4", ""]
    assert parser.rows[3][1] == RAW and parser.rows[3][0] == "mf"
    assert '<td data-value="0.15"><u>0.1500</u><sup>ab</sup> <span class="sd">± 0.0100' in text
    assert "<b>0.3000</b></summary><ul><li>seed 0: 0.3000</li></ul></details>" in text


class _Outline(HTMLParser):
    """The texts of a table's cells, row by row, and the elements left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_formats_by_name_and_by_suffix() -> None:
    with pytest.raises(ConfigError, match="did you mean 'latex'"):
        render(Table.of("t", [], []), "latexx")
    assert [format_of(Path(f"a{s}")) for s in (".md", ".tex", ".html")] == [
        "markdown",
        "latex",
        "html",
    ]
    with pytest.raises(ConfigError, match=r"a\.pdf: no format for '\.pdf'; known: \.md"):
        format_of(Path("a.pdf"))
