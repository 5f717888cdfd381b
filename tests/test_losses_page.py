"""docs/losses.md: its table is that of the classes, its examples run.

After a change of a class: ``python -m tests.test_losses_page``.
"""

import re
from pathlib import Path

import pytest

from bslbench.losses import LOSSES
from bslbench.report.listing import losses_as_markdown

PAGE = Path(__file__).parents[1] / "docs" / "losses.md"
TABLE = re.compile(r"(<!-- table -->\n)(.*?)(<!-- end of the table -->)", re.S)


def test_the_table_is_made_from_the_classes() -> None:
    found = TABLE.search(PAGE.read_text("utf-8"))
    assert found is not None
    assert found[2] == losses_as_markdown(), "write it anew: python -m tests.test_losses_page"


def test_every_row_has_as_many_cells_as_the_head() -> None:
    heads, _, *rows = losses_as_markdown().splitlines()
    assert len(rows) == len(LOSSES)
    assert {len(re.split(r"(?<!\\)\|", row)) for row in [heads, *rows]} == {8}


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_run(number: int) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    assert len(blocks) == 2
    exec("import torch\n" + blocks[number], {})


def write() -> None:
    """Write the table of the page anew."""
    text = PAGE.read_text("utf-8")
    PAGE.write_text(TABLE.sub(lambda m: m[1] + losses_as_markdown() + m[3], text), "utf-8")


if __name__ == "__main__":
    write()
