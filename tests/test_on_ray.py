"""Grids on a real Ray cluster: nodes that go, nodes that do not see the results, the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bslbench.config import Cell
from bslbench.engine import on_ray
from bslbench.engine.executors import executor_for
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.running import Outcome, run_grid
from bslbench.engine.store import Store
from bslbench.errors import ConfigError
from bslbench.training import Evaluation
from tests.test_engine import USER_LOSSES, Quiet, grid

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one core each on this machine, this process joined to them."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    cluster.spare = [cluster.add_node(**small) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def on_cluster(asked: Any, root: Path, watcher: Quiet, **options: Any) -> Outcome:
    execute = executor_for("ray", timeout=options.pop("timeout", None))
    how = Options(**options)
    return run_grid(asked.name, expand(asked), Store(root), watcher, execute, options=how)


def bytes_of(root: Path) -> bytes:
    return (root / "trial" / "metrics.csv").read_bytes()


SLOW = """
import os, time, torch

class Slow(torch.nn.Module):
    def __init__(self, margin: float = 0.0):
        super().__init__()
        self.margin = margin

    def forward(self, pos, neg, batch):
        if os.path.exists({flag!r}):
            time.sleep(0.1)
        return (self.margin - pos + neg).relu().mean()
"""


def test_nodes_that_go_cost_only_what_they_ran(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, mine = tmp_path / "slow", tmp_path / "mine.py"
    mine.write_text(SLOW.format(flag=str(slow)))
    asked = grid(losses=[f"{mine}:Slow"], seeds=6, set={"margin": [0.1, 0.2], "epochs": 6})
    run_grid(asked.name, expand(asked), Store(tmp_path / "inline"), Quiet())
    slow.touch()

    class Saboteur(Quiet):
        """Takes two nodes of three away while at least two cells are running."""

        running: ClassVar[set[str]] = set()

        def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
            self.running.add(cell.id)
            while cluster.spare and len(self.running) > 1:
                cluster.remove_node(cluster.spare.pop(), allow_graceful=False)

        def ended(self, cell: Cell, failure: str = "") -> None:
            self.running.discard(cell.id)

    results = []
    result_of = on_ray._Driver.result

    def watched(*arguments: Any) -> Any:
        results.append(result_of(*arguments))
        if results[-1] is None:  # a cell was lost: from here on the rest may hurry
            slow.unlink(missing_ok=True)
        return results[-1]

    monkeypatch.setattr(on_ray._Driver, "result", watched)
    outcome = on_cluster(asked, tmp_path / "ray", Saboteur())
    assert not cluster.spare and None in results  # lost, and tried again
    # A cell that its node had finished before it went is found so, and not trained again.
    assert (outcome.finished + outcome.skipped, outcome.failed) == (12, {})
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "inline")
    assert not list((tmp_path / "ray").glob(".ray-*"))


@pytest.mark.usefixtures("cluster")
def test_results_come_back_from_nodes_that_do_not_see_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_all", lambda ray, asked: False)
    asked = grid(losses=["sl", f"{USER_LOSSES}:DirectAU"], references=["popularity"])
    run_grid(asked.name, expand(asked), Store(tmp_path / "inline"), Quiet())
    outcome = on_cluster(asked, tmp_path / "ray", Quiet(), save_model=True)
    assert (outcome.finished, outcome.failed) == (3, {})
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "inline")
    outcome = on_cluster(asked, tmp_path / "ray", Quiet(), save_model=True)
    assert (outcome.finished, outcome.skipped) == (0, 3)


def test_a_cluster_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    execute = executor_for("ray", ray_address="127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        run_grid("trial", expand(grid()), Store(tmp_path), Quiet(), execute)


@pytest.mark.usefixtures("cluster")
def test_failures_and_timeouts_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import torch\nclass Broken(torch.nn.Module):\n"
        "    def forward(self, pos, neg, batch):\n        return pos.sum() / None\n"
    )
    asked = grid(losses=[f"{broken}:Broken"])
    outcome = on_cluster(asked, tmp_path / "results", Quiet())
    [reason] = outcome.failed.values()
    assert "broken.py, line 4: TypeError" in reason
    asked = grid(set={"epochs": 1_000_000, "patience": 1_000_000})
    outcome = on_cluster(asked, tmp_path / "results", Quiet(), timeout=4)
    assert list(outcome.failed.values()) == ["it took longer than the timeout of 4 s"]
