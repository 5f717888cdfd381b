"""The page of a grid, in a browser: it sorts, filters, shows each seed, and needs no network."""

import re
import shutil
from collections.abc import Iterator
from functools import cache

import pytest

from bslbench.report.page import report_page, table_page
from bslbench.report.table import Column, Entry, Table
from tests.stores import cell, popularity, seeds, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    """The page of a grid with two datasets, two levels of noise, a failed and a missing run."""
    tmp_path = tmp_path_factory.mktemp("results")
    scored = seeds([0.30, 0.32], "sl", tau=0.1) + seeds([0.10, 0.12], "mse")
    scored += seeds([0.9, 0.9], "sl", tau=0.1, dataset="gowalla")
    scored += seeds([0.05, 0.04], "<b>mine</b>", backbone="lightgcn")
    scored += seeds([0.07], "ccl", backbone="lightgcn")
    scored += seeds([0.2], "sl", tau=0.1, noise_pos=0.4) + seeds([0.25], "mse", noise_pos=0.4)
    scored += [(popularity(), {"Recall@20": 0.02, "NDCG@20": 0.01})]
    lost = [cell("bpr"), cell("bpr", 1)]
    curves = {c["id"]: [(0, 1.0, 0.1, 0.1, 1.0), (1, 0.5, 0.2, 0.1, 2.0)] for c, _ in scored[:2]}
    failed = {lost[0]["id"]: "diverged & <stopped>"}
    write(tmp_path, scored, unfinished=lost, failed=failed, curves=curves)
    return report_page(tmp_path, "trial", None, load=lambda name: pytest.fail("no data needed"))


def test_the_page_holds_all_it_needs(text) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import|fetch\(""", text)
    assert text.count("data:image/svg+xml;base64,") == 5
    assert "12 of 14 runs finished; yelp2018, gowalla" in text
    assert "failed: mf, bpr (clean) on yelp2018, seed 0: diverged &amp; &lt;stopped&gt;" in text
    assert "missing: 1 of 14 runs" in text and "All 14 runs" in text
    assert "data yelp2018 0123456789ab" in text
    assert "figure scores: no run has kept its model" in text
    assert "<b>mine</b>" not in text and "&lt;b&gt;mine&lt;/b&gt;" in text


def test_selection_on_test_is_stamped(tmp_path) -> None:
    write(tmp_path, seeds([0.1], "sl", selection="test"))
    text = report_page(tmp_path, "trial", None, load=lambda name: pytest.fail("no data needed"))
    assert '<p class="stamp">SELECTION ON TEST' in text


def test_the_page_of_one_table() -> None:
    columns = [Column("loss"), Column("Recall@20", "yelp2018", better="higher")]
    text = table_page(Table.of("t", columns, [["sl", 0.2], ["mse", 0.1]], title="A & B"))
    assert "<title>A &amp; B</title>" in text and '<select data-filter="loss">' in text


def test_a_text_with_a_mark_can_be_filtered_by_without_it() -> None:
    columns = [Column("loss"), Column("Recall@20", better="higher")]
    table = Table.of("t", columns, [[Entry(text="ccl", mark="†"), Entry(0.2, mark="?")]])
    text = table_page(table)
    assert '<td data-text="ccl">ccl<sup>†</sup></td>' in text
    assert '<td class="best" data-value="0.2"><b>0.2000</b><sup>?</sup></td>' in text


@cache
def browser():
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
    return playwright, playwright.chromium.launch(
        executable_path=CHROMIUM, args=ARGUMENTS, timeout=120_000
    )


@pytest.fixture(scope="module", autouse=True)
def closed_in_the_end() -> Iterator[None]:
    yield
    if browser.cache_info().currsize:
        playwright, chromium = browser()
        chromium.close()
        playwright.stop()


@pytest.fixture
def page(text, tmp_path):
    """The page, opened; any error of its script and any request fails the test."""
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    file = tmp_path / "page.html"
    file.write_text(text, "utf-8")
    _, chromium = browser()
    opened = chromium.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("request", lambda request: wrong.append(request.url))
    opened.goto(file.as_uri())
    yield opened
    opened.close()
    assert [url for url in wrong if not url.startswith((file.as_uri(), "data:"))] == []


def rows(page, *columns: str) -> list[tuple[str, ...]]:
    """Return what some columns of the first table show, row by row."""
    return [
        tuple(row)
        for row in page.evaluate(
            """(names) => {
              const table = document.querySelector("table.data");
              const heads = [...table.tHead.rows[0].cells].map((head) => head.dataset.name);
              const shown = [...table.tBodies[0].rows].filter((row) => row.checkVisibility());
              return shown.map((row) => names.map(
                (name) => row.cells[heads.indexOf(name)].querySelector("summary, b")?.innerText
                  ?? row.cells[heads.indexOf(name)].innerText));
            }""",
            list(columns),
        )
    ]


def test_sorting_finds_the_best_row(page) -> None:
    head = page.get_by_role("button", name="Recall@20").first
    head.click()  # more is better, so the first click puts the most on top
    found = rows(page, "dataset", "loss", "noise", "Recall@20")
    assert found[0][:3] == ("gowalla", "sl", "clean") and found[0][3].startswith("0.9000")
    assert [row[3][:6] for row in found[1:3]] == ["0.3100", "0.2500"]
    assert found[-1][1] == "bpr"  # no value
    head.click()
    again = rows(page, "loss", "Recall@20")
    assert again[0][0] == "popularity" and again[-1][0] == "bpr"
    page.get_by_role("button", name="loss").first.click()
    assert rows(page, "loss")[0] == ("<b>mine</b>",)
    marked = page.locator("table.data").first.locator('th[aria-sort="ascending"]')
    assert marked.count() == 1 and marked.get_attribute("data-name") == "loss"


def test_filters_add_up_and_best_stays_marked(page) -> None:
    assert page.locator(".count").inner_text() == "9 of 9 rows"
    page.get_by_label("dataset").select_option("yelp2018")
    page.get_by_label("noise").select_option("clean")
    page.get_by_label("backbone").select_option("mf")
    assert rows(page, "loss") == [("sl",), ("mse",), ("bpr",)]
    assert page.locator(".count").inner_text() == "3 of 9 rows"
    best = page.locator("table.data").first.locator("td.best:visible")
    assert [text[:6] for text in best.all_inner_texts()] == ["0.3100", "0.1550"]
    page.get_by_label("loss").select_option("<b>mine</b>")
    assert rows(page, "loss") == []
    page.get_by_role("button", name="all rows").click()
    assert len(rows(page, "loss")) == 9
    page.get_by_label("loss").select_option("ccl")  # shown with a mark
    assert rows(page, "loss") == [("ccl†",)]


def test_each_seed_on_demand(page) -> None:
    seed = page.get_by_text("seed 1: 0.3200").first
    assert not seed.is_visible()
    page.locator("summary", has_text="0.3100").first.click()
    assert seed.is_visible()
    page.get_by_role("button", name="each seed").click()
    assert page.get_by_text("seed 1: 0.1200").first.is_visible()
    page.get_by_role("button", name="each seed").click()
    assert not seed.is_visible()


def test_figures_are_drawn_and_the_page_fits_a_phone(page) -> None:
    page.set_viewport_size({"width": 380, "height": 700})
    widths = page.evaluate("[...document.images].map((i) => [i.naturalWidth, i.clientWidth])")
    assert all(natural > 100 and shown <= 380 for natural, shown in widths)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
