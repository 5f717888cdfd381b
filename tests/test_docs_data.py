"""The commands in the pages on data, references and evaluation run as they stand there."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bslbench import cli
from bslbench.data.load import load

DOCS = Path(__file__).parents[1] / "docs"


def commands(page: str) -> list[list[str]]:
    """Return the arguments of each ``bslbench`` in the shell blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("bslbench ")]


def prepare() -> None:
    """Make the files that the pages speak of."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(40, size=900), rng.integers(30, size=900)
    columns = {"customer": users, "sku": items, "when": rng.integers(10**6, size=900)}
    pq.write_table(pa.table(columns), "orders.parquet")
    data = load("synthetic")
    np.save("u.npy", rng.normal(size=(data.n_users, 4)))
    np.save("i.npy", rng.normal(size=(data.n_items, 4)))
    lines = [f"{user},{item},{item}" for user in range(100) for item in range(30)]
    Path("recommended.csv").write_text("\n".join(["user,item,rank", *lines]))


@pytest.mark.parametrize("page", ["data.md", "eval.md", "references.md"])
def test_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSLBENCH_DATA", "data")
    prepare()
    short = ["--set", "epochs=1", "--set", "n_negatives=5"]
    asked = commands(page)
    if page == "eval.md":
        asked.insert(0, ["train", "--dataset", "synthetic", "--loss", "sl"])
    assert len(asked) >= 4
    for arguments in asked:
        if "yelp2018" in arguments or arguments == ["report"]:
            continue  # large data, which are not here
        extra = short if arguments[0] == "train" and "--loss" in arguments else []
        monkeypatch.setattr(sys, "argv", ["bslbench", *arguments, *extra])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, arguments
