"""The identities of the theory as a claim: they hold on a trained model, or they do not."""

import math

from bslbench.report.claims.identities import TAUS, cosines
from bslbench.report.verdict.findings import Finding, Gain, State, decided, not_told
from bslbench.report.verdict.pool import Place, Pool
from bslbench.report.verdict.rules import Claim, Rules
from bslbench.theory import check

AGAINST = "a solver"


def identities(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Judge the largest error of the dualities over temperatures, on the first model that was kept.

    No chance is in it: one model, at whatever settings, will do, and a single error beyond the
    tolerance is enough.
    """
    assert claim.tolerance is not None
    arms = pool.arms(place, claim.loss, where=claim.where)
    if not arms:
        return None
    runs = [run for arm in arms for run in arm.runs.values()]
    cosine = [run for run in runs if run.fields["score_train"] == "cosine"]
    files = [pool.folder_of(run).file("model.safetensors") for run in cosine]
    kept = [file for file in files if file.is_file()]
    if not kept:
        return decided(place, [not_told(AGAINST, "a model trained on cosines: --save-model")])
    scores = cosines(kept[0])
    checks = [check(scores, tau) for tau in TAUS]
    worst = max(max(found.penalised, found.constrained) for found in checks)
    state: State = "there" if worst <= claim.tolerance else "absent"
    nan = math.nan
    note = f"largest error {worst:.1e} at {len(TAUS)} temperatures"
    return decided(place, [Gain(AGAINST, state, nan, nan, nan, nan, 1, "", note=note)])
