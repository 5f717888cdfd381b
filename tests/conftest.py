"""Fixtures for all tests: their own cache folder, and the real data where these lie."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import bslbench  # noqa: F401  before torch: it sets how OpenMP threads wait

# isort: split
import torch

if not torch.cuda.is_available():  # Triton reads it when it is imported and at every kernel
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache folder, a new one for each session: real data are parsed once in it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "bslbench"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real datasets: BSLBENCH_DATA, else shared/data beside the checkout."""
    given = os.environ.get("BSLBENCH_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: set BSLBENCH_DATA ({folder} is not there)")
    return folder
