"""What stands around every table: what is missing or failed, and what it was made from."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from statistics import fmean

from bslbench.engine.store import Store
from bslbench.report.levels import noise_text
from bslbench.report.results import Results

NAMED = 6
"""How many losses and levels with runs missing are named."""


def problems(results: Results) -> Iterator[str]:
    """Yield a line per failed run with its reason, and one for the runs not trained yet."""
    status = dict(zip(results.record["run_id"], results.record["status"], strict=True))
    unfinished = [run for run in results.runs if run.id not in results.finished]
    store = Store(results.folder)
    failed = [run for run in unfinished if status.get(run.id) == "failed"]
    for run in failed:
        reason = store.run(run.id).failure().get("reason", "not at hand")
        yield f"failed: {run.title}, seed {run.seed}: {' '.join(reason.split())}"
    missing = [run for run in unfinished if status.get(run.id) != "failed"]
    if missing:
        of_all = Counter((run.key.loss, run.key.noise) for run in results.runs)
        lacking = Counter((run.key.loss, run.key.noise) for run in missing)
        each = [
            f"{n} of {of_all[loss, noise]} of {loss}{' at ' * bool(noise)}{noise}"
            for (loss, noise), n in lacking.items()
        ]
        more = f" and {len(each) - NAMED} more" if len(each) > NAMED else ""
        yield (
            f"missing: {len(missing)} of {len(status)} runs ({', '.join(each[:NAMED])}{more}); "
            "train the grid again to finish them"
        )


def footer(results: Results) -> Iterator[str]:
    """Yield seeds, selection, noise, versions, hardware and data, a line each."""
    record = results.record

    def seen(column: str) -> str:
        values = dict.fromkeys(record[column]) if column in record else {}
        return ", ".join(value for value in values if value) or "unknown"

    seeds = sorted({run.seed for run in results.runs})
    yield f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: {', '.join(map(str, seeds))}"
    if any(run.selection == "valid" for run in results.runs):
        yield (
            f"selection on valid: best epoch by {results.primary} on validation pairs, "
            "test scored once"
        )
    yield from _noise_in_test(results)
    names = ["protocol", "bslbench", "torch", "numpy", "python", "revision"]
    yield ", ".join(f"{name} {seen(name)}" for name in names)
    yield f"on {seen('device')}, {seen('cpu')}, threads {seen('threads')}"
    data = dict.fromkeys(zip(record["dataset"], record["fingerprint"], strict=True))
    yield f"data {', '.join(f'{name} {fingerprint[:12]}' for name, fingerprint in data)}"


def _noise_in_test(results: Results) -> Iterator[str]:
    """Yield what share of test pairs false positives are, by level, if any run has these."""
    record = results.record
    if "noise_in_test" not in record:
        return
    shares = dict(zip(record["run_id"], record["noise_in_test"], strict=True))
    levels: defaultdict[str, list[float]] = defaultdict(list)
    for run in results.runs:
        if run.fields.get("noise_pos") and shares.get(run.id):
            level = {k: run.fields[k] for k in ("noise_pos", "noise_kind") if k in run.fields}
            levels[f"{run.dataset} {noise_text(level)}"].append(float(shares[run.id]))
    if levels:
        each = ", ".join(f"{level} {100 * fmean(own):.2g} %" for level, own in levels.items())
        yield f"test pairs that noise has put into train, so that no loss can find them: {each}"
