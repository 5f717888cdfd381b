"""Fixtures for all tests: their own cache folder, the command line, the real data."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# On a worker's one core the kernels could not be tried on several threads otherwise.
os.environ["NUMBA_NUM_THREADS"] = "4"

from bslbench import cli  # before torch: bslbench sets how OpenMP threads wait
from bslbench.engine.machine import n_cores, set_threads
from bslbench.errors import DataError
from tests.fixtures import Command

# isort: split
import torch

worker = os.environ.get("PYTEST_XDIST_WORKER", "")  # gw0, gw1, ...
# A core for each: on all of them they would be in each other's way.
if worker and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
set_threads(n_cores())

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


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Skip what needs a real dataset of which the folder has nothing."""
    try:
        return (yield)
    except DataError as error:
        first = Path(re.split("[:,]", str(error))[0])
        if "real_data" in pyfuncitem.fixturenames and not first.parent.exists():
            pytest.skip(str(error))
        raise


@pytest.fixture
def bslbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in an empty folder; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSLBENCH_DATA", "data")

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bslbench", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command
