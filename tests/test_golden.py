"""Five steps of every loss x backbone x sampler, as committed under this protocol version.

If this fails, a number has moved. Where that is meant, raise ``PROTOCOL`` in bslbench/config.py or,
where it is one loss's alone, its ``version``, so that old rows do not stand as finished, and write
the trace anew: ``python -m tests.test_golden``. Where other draws by the same rule have moved it,
old rows are as good as new ones, and the package's version alone is raised.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bslbench.backbones import BACKBONES
from bslbench.config import PROTOCOL, TrainSettings
from bslbench.losses import LOSSES
from bslbench.training import Interrupted, train
from tests.fixtures import tiny

TRACE = Path(__file__).with_name("golden.json")
STEPS = 5
CASES = [
    (loss, backbone, sampler)
    for loss, backbone in itertools.product(LOSSES, BACKBONES)
    for sampler in (["own", "pool", "in_batch"] if "negatives" in LOSSES[loss].needs else ["none"])
]


def trace(loss: str, backbone: str, sampler: str) -> list[float]:
    """Return the losses of five steps and the norms of both tables after them."""
    data = tiny()
    settings = TrainSettings.model_validate(
        {"batch_size": 32, "n_negatives": 21, "lr": 0.01, "l2": 0.01, "dropout": 0.1, "dim": 8}
        | {"sampler": sampler, "score_train": LOSSES[loss].score, "scale": LOSSES[loss].scale}
    )
    model = BACKBONES[backbone](data, settings.dim, torch.Generator().manual_seed(0))
    count = itertools.count(1)
    kept: dict[str, Any] = {}
    with pytest.raises(Interrupted):
        train(
            settings,
            data,
            model,
            LOSSES[loss](),
            seed=0,
            evaluate=lambda backbone: (0.0, 0.0),
            keep=kept.update,
            stop=lambda: next(count) == STEPS,
        )
    norms = [table.detach().norm().item() for table in model.tables()]
    return [*kept["progress"]["losses"], *norms]


@pytest.mark.parametrize(("loss", "backbone", "sampler"), CASES)
def test_five_steps_are_those_committed(loss: str, backbone: str, sampler: str) -> None:
    golden = json.loads(TRACE.read_text())
    assert golden["protocol"] == PROTOCOL, "write the trace anew: python -m tests.test_golden"
    expected = golden["traces"][f"{loss} {backbone} {sampler}"]
    assert trace(loss, backbone, sampler) == pytest.approx(expected, rel=1e-4)


def write() -> None:
    """Write the trace of this protocol version."""
    traces = {" ".join(case): [float(f"{x:.6g}") for x in trace(*case)] for case in CASES}
    lines = [f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in traces.items()]
    body = ",\n".join(lines)
    TRACE.write_text(f'{{"protocol": {PROTOCOL}, "traces": {{\n{body}\n}}}}\n')


if __name__ == "__main__":
    write()
