"""Files that are not what they should be: each is read right, or one line says what is wrong.

``python -m benchmarks.fuzz --cases 10000 --seed 0`` spoils files of all the kinds that the commands
read (bytes flipped, lines cut, wrong types, huge ids, other encodings, nothing at all) and checks
that every command ends in time, with exit code 0, or with exit code 2, one line and nothing
half-written. Case n of a seed is always the same, but for times in results: ``--only n`` runs it
again and shows all.
"""

import argparse
import contextlib
import faulthandler
import gzip
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import FrameType
from unittest import mock

import bslbench  # noqa: F401  before torch: it sets how OpenMP threads wait

# isort: split
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from bslbench import cli, cli_choose
from bslbench.engine.embeddings import of_run
from bslbench.engine.grid import expand, find_grid
from bslbench.engine.inputs import Options
from bslbench.engine.pack import pack_grid
from bslbench.engine.store import Run
from bslbench.errors import BslbenchError

SECONDS = 120
STEP = 500
"""Cases between two lines that say how far it is."""
OWN = "mine"
Files = dict[str, bytes]


class Hang(Exception):
    """A command that took too long."""


@dataclass(frozen=True)
class Target:
    """A kind of file, and what reads it.

    Attributes
    ----------
    files
        What there is to spoil, and what the reader needs beside it.
    spoil
        Names of the files that are spoilt.
    command
        What reads them: arguments of ``bslbench``, or a function.
    """

    files: Files
    spoil: tuple[str, ...]
    command: list[str] | Callable[[], object]


def rows(n: int = 120) -> list[tuple[str, int, int, float]]:
    """Interactions that make a dataset: user, item, time, rating."""
    draws = random.Random(0)
    pairs = draws.sample([(u, i) for u in range(12) for i in range(15)], n)
    return [(f"u{u}", i, draws.randrange(10**9), draws.choice([1.0, 4.5])) for u, i in pairs]


def text(header: list[str], lines: list[tuple[object, ...]], delimiter: str) -> bytes:
    return "".join(delimiter.join(map(str, line)) + "\n" for line in [header, *lines]).encode()


def parquet(columns: Mapping[str, object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def targets(folder: Path) -> dict[str, Target]:
    """Return every kind of file; those of a dataset and a grid are made in an empty folder."""
    data = rows()
    names = ["user", "item", "time", "rating"]
    columns = dict(zip(names, map(list, zip(*data, strict=True)), strict=True))
    add = ["data", "add", "new"]
    plain = text(names, list(data), ",")
    typed = ["user_id:token", "item_id:token", "timestamp:float", "rating:float"]
    inputs = {
        "d.csv": plain,
        "d.tsv": plain.replace(b",", b"\t"),
        "d.inter": text(typed, list(data), "\t"),
        "d.parquet": parquet(columns),
        "typed.parquet": parquet(
            {
                "user": pa.array([user.encode().rjust(16) for user, *_ in data], pa.binary(16)),
                "item": pa.array([Decimal(item) for _, item, *_ in data], pa.decimal128(38, 2)),
                "time": pa.array([str(time) for *_, time, _ in data], pa.string_view()),
            }
        ),
    }
    found = {
        name: Target({name: content}, (name,), [*add, name]) for name, content in inputs.items()
    }
    rated = [*add, "d.csv", "--min-rating", "3", "--split", "leave-one-out", "--k-core", "2"]
    found["d.csv, rated"] = Target({"d.csv": plain}, ("d.csv",), rated)
    bare = plain.partition(b"\n")[2]
    named = [*add, "d.data", "--columns", "user,item,time,rating"]
    found["d.data"] = Target({"d.data": bare}, ("d.data",), named)
    zipped = gzip.compress(plain, mtime=0)
    found["d.csv.gz"] = Target({"d.csv.gz": zipped}, ("d.csv.gz",), [*add, "d.csv.gz"])

    (folder / "d.csv").write_bytes(plain)
    assert call(["data", "add", OWN, "d.csv"])[0] == 0
    train = ["train", "--dataset", OWN, "--reference", "popularity", "--name", "g"]
    assert call(train)[0] == 0
    kept = files_of(folder)
    users, items = sorted({u for u, *_ in data}), sorted({str(i) for _, i, *_ in data})
    lists = [(u, i, rank) for u in users for rank, i in enumerate(items, 1)]
    recommended = {
        "l.csv": text(["user", "item", "rank"], list(lists), ","),
        "l.run": "".join(f"{u} Q0 {i} {rank} 0.5 tag\n" for u, i, rank in lists).encode(),
        "l.parquet": parquet(
            dict(zip(("user", "item", "rank"), map(list, zip(*lists, strict=True)), strict=True))
        ),
    }
    for name, content in recommended.items():
        command = ["eval", "--lists", name, "--dataset", OWN]
        found[name] = Target(kept | {name: content}, (name,), command)
    draws = torch.Generator().manual_seed(0)
    tables = [torch.randn(len(ids), 4, generator=draws) for ids in (users, items)]
    arrays = {}
    for name, table in zip(("u.npy", "i.npy"), tables, strict=True):
        sink = io.BytesIO()
        np.save(sink, table.numpy())
        arrays[name] = sink.getvalue()
    scored = ["--score", "inner", "--dataset", OWN]
    embeddings = ["eval", "--users", "u.npy", "--items", "i.npy", *scored]
    found["npy"] = Target(kept | arrays, ("u.npy", "i.npy"), embeddings)
    both = save(dict(zip(("users", "items"), tables, strict=True)))
    command = ["eval", "--users", "e.safetensors", "--items", "e.safetensors", *scored]
    found["safetensors"] = Target(kept | {"e.safetensors": both}, ("e.safetensors",), command)

    stored = tuple(name for name in kept if name.startswith("data/"))
    found["stored data"] = Target(kept, stored, ["data", "show", OWN])
    found["catalog"] = Target(kept, ("datasets.toml",), ["data", "show", OWN])
    found["catalog, add"] = Target(kept | {"d.csv": plain}, ("datasets.toml",), [*add, "d.csv"])
    tables_of = tuple(f"results/g/{name}" for name in ("grid.toml", "metrics.csv", "runs.csv"))
    found["report"] = Target(kept, tables_of, ["report", "--grid", "g"])
    found["status"] = Target(kept, ("results/g/grid.toml",), ["status", "--grid", "g"])
    ranks = tuple(name for name in kept if name.endswith("ranks.npz"))
    found["ranks"] = Target(kept, ranks, ["eval", str(Path(ranks[0]).parent)])
    of_run = tuple(
        n for n in kept if n.startswith("results/runs/") and n.endswith((".json", ".csv"))
    )
    found["runs"] = Target(kept, of_run, train)
    found["train, tables"] = Target(kept, tables_of, train)
    found["pack"] = Target(
        {"p.zip": pack_grid(Path("results"), "g")}, ("p.zip",), ["unpack", "p.zip"]
    )
    found |= embeddings_targets(kept)
    found |= study_targets()
    found |= race_targets({"d.csv": plain, "l.csv": recommended["l.csv"]})
    grid = (
        'datasets = ["synthetic"]\nlosses = ["sl", "bpr"]\nreferences = ["ease"]\nseeds = 2\n'
        "presets = false\n[set]\nepochs = 3\ntau = [0.1, 0.2]\n[[override]]\n"
        'when = { loss = "ease" }\nset = { lam = 3.0 }\n'
    )
    found["grid"] = Target(
        {"g.toml": grid.encode()}, ("g.toml",), lambda: expand(find_grid("g.toml"))
    )
    return found


def files_of(folder: Path) -> Files:
    """What lies in a folder, but for locks and the file that its dataset was made from."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "d.csv")
    }


def embeddings_targets(kept: Files) -> dict[str, Target]:
    """Return a run with its model, and a folder of embeddings, both made where a dataset is."""
    train = ["train", "--dataset", OWN, "--loss", "bpr", "--save-model", "--name", "m"]
    assert call([*train, "--set", "epochs=1", "--set", "dim=4"])[0] == 0
    [path] = Path("results/runs").glob("*/model.safetensors")
    run = Run(path.parent)
    model, _, _ = of_run(run, Options())
    model.write(Path("embeddings"), "")
    folder = files_of(Path("embeddings"))
    of_model = {str(run.file(name)): content for name, content in files_of(run.folder).items()}
    ask = ["recommend", "--user", "u1", "--run"]
    return {
        "run with a model": Target(kept | of_model, tuple(of_model), [*ask, run.folder.name]),
        "embeddings": Target(folder, tuple(folder), [*ask, "."]),
    }


def study_targets() -> dict[str, Target]:
    """Return a study, made where a dataset is."""
    tune = ["tune", "--dataset", OWN, "--loss", "bpr", "--name", "s", "--trials", "1"]
    tune += ["--seeds", "1", "--set", "epochs=1", "--set", "dim=4"]
    assert call(tune)[0] == 0
    kept = files_of(Path())
    of_study = tuple(n for n in kept if n.startswith("results/s/") and "study" in n)
    told = ("results/s/trials.csv", "results/s/study.toml")
    curves = tuple(n for n in kept if n.endswith("curve.csv"))
    report = ["report", "--grid", "s"]
    return {
        "study": Target(kept, of_study, [*tune, "--dry-run"]),
        "report, study": Target(kept, told, [*report, "--table", "tuning"]),
        "report, figures": Target(kept, (*told[:1], *curves), [*report, "--figures", "f"]),
    }


def race_targets(files: Files) -> dict[str, Target]:
    """Return a race that has begun, and the lists of today that it is held against."""
    choose = ["choose", "d.csv", "--name", "race", "--loss", "bpr", "--set", "dim=4"]
    with mock.patch.object(cli_choose, "_run"):
        assert call(choose)[0] == 0
    kept = files_of(Path()) | files
    of_race = tuple(name for name in kept if name.startswith("results/race/race/"))
    against = [*choose, "--dry-run", "--against", "l.csv"]
    return {
        "race": Target(kept, of_race, [*choose, "--dry-run"]),
        "race, against": Target(kept, ("l.csv",), against),
    }


def flip(data: bytes, draws: random.Random) -> bytes:
    """Change single bits."""
    changed = bytearray(data)
    for _ in range(draws.choice([1, 1, 2, 8])):
        if changed:
            changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, draws: random.Random) -> bytes:
    """Put something in place of something."""
    start = draws.randrange(len(data) + 1)
    end = min(len(data), start + draws.choice([0, 1, 4, 30]))
    return data[:start] + draws.choice(STRANGE) + data[end:]


def truncate(data: bytes, draws: random.Random) -> bytes:
    """Cut off the end or the beginning."""
    place = draws.randrange(len(data) + 1)
    return draws.choice([data[:place], data[place:], data[: len(data) - 1]])


def cut_lines(data: bytes, draws: random.Random) -> bytes:
    """Cut, drop, repeat or join lines."""
    lines = data.splitlines(keepends=True) or [b""]
    at = draws.randrange(len(lines))
    line = lines[at]
    half = line[: draws.randrange(len(line) + 1)]
    lines[at : at + 1] = draws.choice(
        [[], [line, line], [half], [half, b"\n"], [line.rstrip(b"\r\n")], [b"\n", line]]
    )
    return b"".join(lines)


def retype(data: bytes, draws: random.Random) -> bytes:
    """Put another value in the place of one."""
    for delimiter in draws.sample([b",", b"\t", b" ", b"="], 4):
        fields = data.split(delimiter)
        if len(fields) > 2:
            at = draws.randrange(1, len(fields))
            _, newline, rest = fields[at].partition(b"\n")
            fields[at] = draws.choice(STRANGE) + newline + rest
            return delimiter.join(fields)
    return data


def encode(data: bytes, draws: random.Random) -> bytes:
    """Write it in another encoding, or with other line ends."""
    readable = data.decode("latin-1")
    return draws.choice(
        [
            readable.encode("utf-16"),
            readable.encode("utf-16-be"),
            readable.encode("utf-8-sig"),
            ("é" + readable).encode("latin-1"),
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\r"),
        ]
    )


def replace(data: bytes, draws: random.Random) -> bytes:
    """Write something else altogether."""
    return draws.choice([b"", b"\n", b"\0" * 50, draws.randbytes(200), b"{}", b"PAR1PAR1", b"[]"])


STRANGE = [
    b"", b" ", b"x", b"\xff\xfe", b"\0", b'"', b"'", b",", b"\t", b"\n", b"nan", b"inf", b"-1",
    b"1e400", b"9" * 30, b"99999999999", b"3.7", b"true", b"null", "ü".encode(), b"2020-01-01",
    b"[", b"}", b"]]", b"=", b"#", b"a" * 300, b"2147483648",
]  # fmt: skip
SPOIL = [flip, overwrite, truncate, cut_lines, retype, encode, replace]


def spoilt(target: Target, draws: random.Random) -> Files:
    """Return the files of a target, one of them spoilt once, twice or three times."""
    files = dict(target.files)
    name = draws.choice(target.spoil)
    for _ in range(draws.choice([1, 1, 1, 2, 3])):
        files[name] = draws.choice(SPOIL)(files[name], draws)
    return files


def call(command: list[str] | Callable[[], object]) -> tuple[int, str]:
    """Run a command in this process, and return its exit code and what it said of errors."""
    if not isinstance(command, list):
        try:
            command()
        except BslbenchError as error:
            return error.exit_code, f"error: {error}\n"
        return 0, ""
    before, sys.argv = sys.argv, ["bslbench", *command]
    code = 0
    errors = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    return code, errors.getvalue()


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(target: Target, files: Files, folder: Path) -> str:
    """Run a target on files in a folder, and say what was wrong with how it took them."""
    for leftover in folder.iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        with limited(SECONDS):
            code, errors = call(target.command)
    except Exception:
        return traceback.format_exc()
    if code not in (0, 2):
        return f"exit code {code}: {errors}"
    lines = errors.strip().splitlines()
    if code == 2 and not (len(lines) == 1 and lines[0].startswith("error: ")):
        return f"not one line: {errors!r}"
    adds = isinstance(target.command, list) and target.command[:2] == ["data", "add"]
    return half_written(files, folder, added=code == 0) if adds else ""


def half_written(files: Files, folder: Path, *, added: bool) -> str:
    """Say what is there of a dataset that could not be added, or missing of one that was."""
    catalog = folder / "datasets.toml"
    content = catalog.read_bytes() if catalog.exists() else b""
    before = files.get("datasets.toml", b"")
    strangers = [path.name for path in (folder / "data").rglob("*") if "new" in path.parts]
    if not added:
        return f"left behind: {strangers}" if strangers or content != before else ""
    code, errors = call(["data", "show", "new"])
    return "" if code == 0 else f"added, but cannot be read: {errors}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with this case")
    parser.add_argument("--only", type=int, metavar="N", help="this case alone, shown")
    options = parser.parse_args(arguments)
    faulthandler.enable()  # should a library crash on what it reads
    with tempfile.TemporaryDirectory() as scratch, environment(Path(scratch)) as work:
        last = options.first + options.cases
        numbers = range(options.first, last) if options.only is None else [options.only]
        failures = run(numbers, options.seed, work, in_full=options.only is not None)
    if failures:
        sys.exit(f"{failures} cases failed")


@contextlib.contextmanager
def environment(scratch: Path) -> Iterator[Path]:
    """Have data and cache in the scratch folder, and yield one to work in."""
    work = scratch / "work"
    work.mkdir()
    before = dict(os.environ)
    os.environ |= {"BSLBENCH_DATA": "data", "XDG_CACHE_HOME": str(scratch / "cache")}
    try:
        yield work
    finally:
        os.environ.clear()
        os.environ |= before


def run(numbers: Sequence[int], seed: int, folder: Path, *, in_full: bool) -> int:
    """Run the cases in a folder, print what went wrong, and return how many did."""
    failures, ended = 0, Counter[str]()
    with contextlib.chdir(folder):
        kinds = targets(folder)
        for number in numbers:
            if number and number % STEP == 0:
                print(f"{number} cases", file=sys.stderr, flush=True)
            draws = random.Random(f"{seed}:{number}")
            kind = list(kinds)[number % len(kinds)]
            files = spoilt(kinds[kind], draws)
            if wrong := fault(kinds[kind], files, folder):
                failures += 1
                shown = wrong if in_full else "\n".join(wrong.splitlines()[-3:])
                print(f"case {number} ({kind}): {shown}", flush=True)
            ended[f"{kind}: {'failed' if wrong else 'fine'}"] += 1
            if in_full:
                changed = {n: c for n, c in files.items() if c != kinds[kind].files[n]}
                print(kind, changed)
    print(json.dumps(dict(sorted(ended.items())), indent=1))
    return failures


if __name__ == "__main__":
    main()
