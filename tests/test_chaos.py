"""A grid that is killed at twenty random moments ends as if it had not been."""

import random
import sys
from pathlib import Path

import pytest

from benchmarks.chaos import survive, undisturbed

EPOCHS = 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds workers in /proc")
def test_a_grid_killed_twenty_times_ends_in_the_same_bytes(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    undisturbed(tmp_path / "undisturbed", EPOCHS)
    survive(tmp_path, "processes", kills=20, seed=seed, epochs=EPOCHS)
