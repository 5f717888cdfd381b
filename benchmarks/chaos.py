"""Kill training at random moments, again and again, and compare what is left in the end.

``python -m benchmarks.chaos --kills 100 --seed 0`` runs a small grid in several ways, kills whole
calls and single workers with SIGKILL, starts them again, and checks that

- the tables end in the same bytes as those of an undisturbed run in one process,
- no run that had finished was ever touched again,
- nobody saw a traceback.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep

from benchmarks import PROGRAM

GRID = ["--dataset", "synthetic?users=200&items=120&interactions=4000", "--seeds", "2"]
GRID += ["--loss", "sl", "--loss", "bpr", "--loss", "bsl", "--loss", "bsl_inbatch"]
GRID += ["--set", "n_negatives=20", "--set", "dim=16", "--set", "dropout=0.1", "--set", "l2=1e-3"]
N_CELLS = 8

MODES: dict[str, list[list[str]]] = {
    "inline": [["--jobs", "1"]],
    "processes": [["--jobs", "2"]],
    "shards": [["--shard", "1/2"], ["--shard", "2/2"]],
    "twice": [["--jobs", "2"], ["--jobs", "1"]],
    "ray": [["--executor", "ray", "--ray-address"]],
}
"""By name: the options of the calls that share one grid at the same time."""


def command(root: Path, epochs: int, *options: str) -> list[str]:
    """Return a call of `train` that keeps states often."""
    where = ["--set", f"epochs={epochs}", "--results", str(root), "--keep-every", "0.2"]
    return [*PROGRAM, "train", *GRID, *where, *options]


def undisturbed(root: Path, epochs: int) -> None:
    """Train the grid in one process."""
    subprocess.run(command(root, epochs, "--threads", "1"), check=True, capture_output=True)


def tables(root: Path) -> dict[str, bytes]:
    """Return what must not depend on what happened."""
    return {
        name: (root / "adhoc" / name).read_bytes()
        for name in ("metrics.csv", "grid.toml")
        if (root / "adhoc" / name).exists()
    }


@dataclass
class Call:
    """One call of `train`, in a process group of its own."""

    arguments: list[str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)
    hurt: bool = False
    """Whether a worker of it has been killed, so that a cell may have failed."""

    def __post_init__(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.arguments, stdout=out, stderr=out, start_new_session=True
            )

    def workers(self) -> list[int]:
        """Return the processes that train for this call: grandchildren, or Ray's."""
        parents = dict(_processes())
        pool = [pid for pid, parent in parents.items() if parent == self.process.pid]
        own = [pid for pid, parent in parents.items() if parent in pool]
        return own or ([pid for pid in parents if _is_rays(pid)] if "ray" in self.arguments else [])

    def kill_worker(self, rng: random.Random) -> bool:
        """Kill one of its workers; tell whether there was one."""
        workers = self.workers()
        if workers:
            _kill(rng.choice(workers))
            self.hurt = True
        return bool(workers)

    def kill_all(self) -> None:
        """Kill the call and all that it has started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _processes() -> Iterator[tuple[int, int]]:
    """Yield each process and its parent."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it has just ended


def _is_rays(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::work")
    return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@dataclass
class Chaos:
    """Calls on one grid, killed and started again until it is finished."""

    root: Path
    calls: Sequence[Sequence[str]]
    epochs: int
    rng: random.Random
    log: Path
    finished: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each finished run: the inode and the time of its ``metrics.csv``."""

    def run(self, kills: int) -> int:
        """Kill up to `kills` times, then let the grid finish; return how often it was killed."""
        running = [self.start(command(self.root, self.epochs, *call)) for call in self.calls]
        done = 0
        next_kill = monotonic() + self.rng.uniform(0.0, 3.0)
        while running:
            sleep(0.02)
            for call in [call for call in running if call.process.poll() is not None]:
                assert 0 <= call.process.returncode <= call.hurt, self.log.read_text()
                running.remove(call)
                if call.process.returncode:
                    running.append(self.start(call.arguments))
            if done < kills and monotonic() >= next_kill and running:
                call = self.rng.choice(running)
                group = self.rng.random() < 0.3 or not call.kill_worker(self.rng)
                if group:
                    call.kill_all()
                    running.remove(call)
                    running.append(self.start(call.arguments))
                done += 1
                self.check()
                next_kill = monotonic() + self.rng.uniform(0.05, 3.0 if group else 0.6)
        self.check()
        assert len(self.finished) == N_CELLS, self.finished
        assert "Traceback" not in self.log.read_text(), self.log.read_text()
        return done

    def start(self, arguments: list[str]) -> Call:
        return Call(arguments, self.log)

    def check(self) -> None:
        """Fail if a finished run has been touched."""
        for run, was in self.finished.items():
            stat = (self.root / "runs" / run / "metrics.csv").stat()
            assert (stat.st_ino, stat.st_mtime_ns) == was, f"{run} was trained twice"
        for path in self.root.glob("runs/*/metrics.csv"):
            stat = path.stat()
            self.finished[path.parent.name] = stat.st_ino, stat.st_mtime_ns


def survive(folder: Path, mode: str, kills: int, seed: int, epochs: int, ray: str = "") -> int:
    """Kill so many times, in one grid after the other; return in how many grids.

    Each grid ends in the bytes that ``folder/undisturbed`` has.
    """
    done = grids = 0
    while done < kills:
        root = folder / f"{mode}-{seed}-{grids}"
        calls = [[*call, ray] if ray else call for call in MODES[mode]]
        rng = random.Random(f"{mode}-{seed}-{grids}")
        chaos = Chaos(root, calls, epochs, rng, root.with_suffix(".log"))
        done += chaos.run(min(25, kills - done))
        assert tables(root) == tables(folder / "undisturbed"), f"other bytes: {root}"
        grids += 1
    return grids


@contextmanager
def cluster() -> Iterator[str]:
    """Run a Ray cluster of two nodes on this machine; yield its address."""
    import_module("ray")
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    made = import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=small)
    made.add_node(**small)
    try:
        yield made.address
    finally:
        made.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=100, help="of each mode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", choices=MODES, nargs="*", default=list(MODES))
    parser.add_argument("--epochs", type=int, default=150)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed(Path(folder) / "undisturbed", asked.epochs)
        for mode in asked.mode:
            started = monotonic()
            with cluster() if mode == "ray" else nullcontext("") as ray:
                grids = survive(Path(folder), mode, asked.kills, asked.seed, asked.epochs, ray)
            print(
                f"{mode}: {asked.kills} kills, {grids} grids of {N_CELLS} cells, "
                f"seed {asked.seed}: same bytes, none trained twice, {monotonic() - started:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
