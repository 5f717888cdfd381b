"""``python -m benchmarks.compiling``: what a first ``bslbench train`` spends on compiling kernels.

It is called twice with one cache of kernels, empty at first: the second call should compile none.
What workers of ``--jobs`` compile is not seen.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

OPTIONS = ["--dataset", "synthetic", "--loss", "sl", "--set", "epochs=1"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compiling",
        usage="%(prog)s [OPTIONS OF bslbench train]",
        description=__doc__,
        epilog=f"default: {' '.join(OPTIONS)}",
    )
    options = parser.parse_known_args(arguments)[1] or OPTIONS
    with TemporaryDirectory() as folder:
        for name in ("first", "second"):
            cache, results = Path(folder) / "kernels", Path(folder) / name
            seconds = trained([*options, "--results", str(results)], cache)
            print(f"{name} call: {sum(seconds.values()):.1f} s of compiling")
            for kernel, spent in sorted(seconds.items(), key=lambda item: -item[1]):
                print(f"  {spent:5.2f} {kernel}")


def trained(options: list[str], cache: Path) -> dict[str, float]:
    """Train in a process of its own with this cache; return the seconds that each kernel took."""
    code = "from benchmarks.compiling import call; call()"
    child = [sys.executable, "-c", code, "train", *options]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(child, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def call() -> None:
    """Run bslbench by this process's arguments; print the seconds each kernel took, as JSON."""
    from numba.core import event

    from bslbench import cli

    recorded: Any = event.install_recorder("numba:compile")  # type: ignore[no-untyped-call]
    with recorded as recorder:
        try:
            cli.main()
        except SystemExit as end:
            if end.code:
                raise
    seconds: dict[str, float] = {}
    started = []
    for time, happened in recorder.buffer:
        if happened.is_start:
            started.append(time)
            continue
        start = started.pop()
        if not started:  # what a kernel calls is compiled within
            name = happened.data["dispatcher"].py_func.__name__
            seconds[name] = seconds.get(name, 0.0) + time - start
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
