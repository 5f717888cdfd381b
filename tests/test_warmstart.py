"""The warm start by alternating least squares."""

import sys

import numpy as np
import pytest
import torch

from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.warmstart import als_tables
from tests.fixtures import on_threads

from .fixtures import NONE, checkerboard


def test_finds_the_held_out_item_of_the_checkerboard() -> None:
    pytest.importorskip("implicit")
    users, items = als_tables(checkerboard(), dim=8, seed=0)
    scores = users @ items.T  # (20, 20)
    same = torch.arange(20)[:, None] % 2 == torch.arange(20) % 2
    assert scores[same].min() > scores[~same].max()


def test_mean_norm_dtype_and_bits_whatever_the_threads() -> None:
    pytest.importorskip("implicit")
    tables = []
    for threads in (1, 2):
        with on_threads(threads):
            tables.append(als_tables(checkerboard(), dim=8, seed=3))
    for one, two in zip(*tables, strict=True):
        assert torch.equal(one, two)
        assert one.dtype == torch.float32
        assert float(one.norm(dim=1).mean()) == pytest.approx(0.5, rel=1e-5)
    other, _ = als_tables(checkerboard(), dim=8, seed=4)
    assert not torch.equal(tables[0][0], other)


def test_rows_without_train_interactions_are_small_but_not_zero() -> None:
    pytest.importorskip("implicit")
    pairs = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    users, items = als_tables(
        Interactions.from_pairs("gaps", 4, 3, pairs, NONE, NONE), dim=16, seed=0
    )
    for row in (users[3], items[2]):
        assert 0 < float(row.norm()) < 0.02


def test_without_implicit_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(ConfigError, match=r"bslbench\[als\]"):
        als_tables(checkerboard(), dim=8, seed=0)
