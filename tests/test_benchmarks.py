"""The plain formulation computes what ours does, and the benchmarks run."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.__main__ import main
from benchmarks.cases import as_text
from benchmarks.compiling import trained
from benchmarks.half import of_rounded
from benchmarks.report import SEEDS, cells, fabricate
from bslbench.backbones import MF
from bslbench.config import TrainSettings
from bslbench.data.readers import user_lists
from bslbench.engine.store import Store
from bslbench.kernels.sddmm import sddmm_reference
from bslbench.losses import SL, Batch
from bslbench.report.main_table import main_table
from bslbench.sampling import SAMPLERS

from .fixtures import tiny
from .test_sddmm import draw


class SLWithItems(SL):
    """Softmax loss that asks for the ids of its negatives, so that both ways get the same."""

    needs = frozenset({"negatives", "neg_items"})


@pytest.mark.parametrize("l2", [0.0, 1e-3])
@pytest.mark.parametrize("sampler", ["own", "in_batch"])
def test_plain_has_our_loss_and_gradients(sampler: str, l2: float) -> None:
    data = tiny()
    settings = TrainSettings(sampler=sampler, n_negatives=20, dim=16, scale=None, l2=l2)
    backbone = MF(data, 16, torch.Generator().manual_seed(0))
    users, items = (torch.from_numpy(x[:50].astype("int64")) for x in data.train.nonzero())
    loss = SLWithItems(tau=0.11)
    scored = SAMPLERS[sampler](settings, loss, data, 0)(backbone, users, items, 0, 0)
    zero = torch.tensor(0)
    ours = loss(scored.pos, scored.neg, Batch(users, items, zero, zero))
    ours = ours + l2 / (2 * len(users)) * scored.squared
    ours.backward()

    tables = tuple(table.detach().clone().requires_grad_() for table in backbone.tables())
    if sampler == "own":
        assert scored.neg_items is not None
        theirs = plain.own_loss(tables, users, items, scored.neg_items, tau=0.11, l2=l2)
    else:
        theirs = plain.in_batch_loss(tables, users, items, tau=0.11, l2=l2)
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(backbone.tables(), tables, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_plain_parse_reads_what_our_reader_does() -> None:
    text = as_text(tiny())
    users, items = user_lists(text.encode(), "text")
    assert plain.parse(text) == (users.tolist(), items.tolist())


def test_a_plain_step_moves_the_tables() -> None:
    def table(n: int) -> Tensor:
        return torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).requires_grad_()

    tables = table(5), table(7)
    before = [t.detach().clone() for t in tables]
    pairs = torch.arange(5), torch.arange(5)
    plain.stepper(tables, pairs, n_rows=8, n_neg=3, l2=1e-3)()
    assert all((t != b).any() for t, b in zip(tables, before, strict=True))


def test_rounded_rows_are_multiplied_and_gradients_pass_to_the_whole_ones() -> None:
    draws = torch.Generator().manual_seed(0)
    tables = [torch.randn(n, 23, generator=draws, requires_grad=True) for n in (6, 50)]
    index, _ = draw(6, 50, 2, 9)
    found = torch.cat(of_rounded(tables[0], tables[1], index, cosine=False)[:2], 1)
    rounded = [table.detach().bfloat16().double().requires_grad_() for table in tables]
    wanted = torch.cat(sddmm_reference(rounded[0], rounded[1], index, cosine=False)[:2], 1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    for scores in (found, wanted):
        scores.square().sum().backward()
    for table, other in zip(tables, rounded, strict=True):
        assert table.grad is not None and other.grad is not None
        torch.testing.assert_close(table.grad.double(), other.grad, rtol=1e-4, atol=1e-4)
    exact = torch.cat(sddmm_reference(tables[0], tables[1], index, cosine=False)[:2], 1)
    assert 1e-4 < (found - exact).abs().max() < 0.2


def test_one_round_on_a_tiny_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["mf-own", "mf-in-batch", "evaluation", "parse", "cached-load", "loss-sl"]
    sizes = ["--batch-size", "50", "--negatives", "10", "--dim", "8", "--rounds", "1"]
    dataset = ["--dataset", "synthetic?users=100&items=80&interactions=1500"]
    main(["--only", *names, *sizes, *dataset, "--json", str(tmp_path / "figures.json")])
    kept = json.loads((tmp_path / "figures.json").read_text())
    rows = {row["name"]: row for row in kept["rows"]}
    assert set(names) <= set(rows)
    assert all(row["ms"] > 0 for row in rows.values())
    assert rows["mf-own"]["ratio"] == rows["mf-own"]["plain_ms"] / rows["mf-own"]["ms"]
    assert kept["scaling"] == []
    assert "plain over ours" in capsys.readouterr().out


def test_a_fabricated_store_reads_like_a_real_one(tmp_path: Path) -> None:
    made = cells(40)
    fabricate(Store(tmp_path), made, n_users=30, epochs=3)
    table = main_table(tmp_path, "fabricated")
    assert len({cell.id for cell in made}) == 40 and not table.problems
    assert {row[table.column("seeds")].text for row in table.rows} == {str(SEEDS)}
    assert all(Store(tmp_path).run(cell.id).finished(cell) for cell in made)


def test_the_second_call_on_a_machine_compiles_nothing(tmp_path: Path) -> None:
    options = [
        "--dataset",
        "synthetic?users=60&items=40&interactions=400",
        "--reference",
        "popularity",
        "--results",
    ]
    first, second = (
        trained([*options, str(tmp_path / name)], tmp_path / "kernels") for name in ("1", "2")
    )
    assert first["best_keys"] > 0
    assert second == {}
