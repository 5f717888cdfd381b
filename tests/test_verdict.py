"""Claims judged by fixed rules, on stores in which each of them is true, false or unknown."""

import csv
import io
import itertools
import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from bslbench import cli
from bslbench.engine.grid_files import csv_text
from bslbench.engine.machine import environment
from bslbench.engine.store import Store
from bslbench.errors import ConfigError
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranks import Ranks
from bslbench.losses import LOSSES
from bslbench.noise import Noise
from bslbench.report.verdict.findings import Finding, not_told
from bslbench.report.verdict.judge import verdict
from bslbench.report.verdict.noisy import slopes
from bslbench.report.verdict.page import judged, page, summary_table
from bslbench.report.verdict.pool import Place
from bslbench.report.verdict.rules import read_rules
from tests.stores import cell

N_USERS, N_ITEMS = 80, 10
OTHERS = ("mse", "bce", "bpr")


class Lab:
    """A grid whose runs come out as they are told to."""

    def __init__(self, root, grid="lab"):
        self.root, self.grid = root, grid
        self.cells, self.rows, self.records = [], [], []

    def arm(
        self,
        loss,
        recall=0.2,
        *,
        seeds=10,
        valid=None,
        tail=0.3,
        gini=0.7,
        ratio=0.2,
        rules=1,
        settings_from=None,
        share="",
        ranks=True,
        by_seed=lambda seed: 0.0,
        **fields,
    ):
        """Add the runs of one loss: `recall` on test, `valid` on valid, and so on."""
        score = LOSSES[loss].score if loss in LOSSES else "inner"
        fields = {"dataset": "movielens-1m", "score_train": score, "score_test": score} | fields
        fields = {"n_negatives": 800, "fingerprint": "f" * 64, "protocol": 1} | fields
        level = Noise.of(fields).level
        made = f"tuned (study, trial 3{level and f', at {level}'})"
        for seed in range(seeds):
            own = cell(loss, seed, **fields)
            kept = self.ranks(own, recall + by_seed(seed), ranks)
            self.cells.append(own)
            chosen = (recall if valid is None else valid) + by_seed(seed) / 100
            groups = {group: kept * tail / 5 for group in range(1, 6)}
            groups |= {group: kept * (1 - tail) / 5 for group in range(6, 11)}
            noise = np.random.default_rng(seed).normal(0, 0.002)
            self.add(own, "valid", "Recall", 20, chosen)
            self.add(own, "test", "Recall", 20, kept)
            for group, value in groups.items():
                self.add(own, "test", "Recall", 20, value, group)
            self.add(own, "test", "Gini", 20, gini)
            self.add(own, "train", "NegVar", 0, ratio + noise * ratio)
            self.add(own, "train", "Gap", 0, 1.0)
            record = {
                "run_id": own["id"],
                "status": "finished",
                "settings_from": settings_from or made,
            }
            record |= {"rules": rules, "false_negative_share": share}
            self.records.append(record | {k: own[k] for k in ("dataset", "fingerprint")})
        return self

    def ranks(self, own, recall, write):
        """Keep ranks with that Recall@20; all losses have the same luck with seeds and users."""
        luck = np.random.default_rng(own["seed"]).random(N_USERS)
        hits = np.floor(N_ITEMS * recall + luck).clip(0, N_ITEMS)
        places = np.arange(1, N_ITEMS + 1)
        ranks = np.where(places <= hits[:, None], places, 0).astype(np.uint8).ravel()
        indptr = np.arange(0, N_USERS * N_ITEMS + 1, N_ITEMS)
        users = np.arange(N_USERS, dtype=np.int32)
        kept = Ranks(users, indptr, ranks, np.zeros(3, np.int32), 0, 0.0)
        run = Store(self.root).run(own["id"])
        run.folder.mkdir(parents=True, exist_ok=True)
        if write:
            kept.save(run.file("ranks.npz"))
        canonical = {"seed": own["seed"], "fingerprint": own["fingerprint"]}
        run.file("run.json").write_text(json.dumps({"canonical": canonical}))
        return float(per_user(kept, "Recall", 20).mean())

    def add(self, own, split, metric, k, value, group=""):
        row = {"run_id": own["id"], "split": split, "metric": metric, "k": k}
        self.rows.append(row | {"group": group, "value": value})

    def write(self):
        folder = self.root / self.grid
        folder.mkdir(parents=True)
        lines = [f'name = "{self.grid}"', 'primary = "Recall@20"']
        for own in self.cells:
            lines += ["[[cells]]", *(f"{key} = {json.dumps(value)}" for key, value in own.items())]
        (folder / "grid.toml").write_text("\n".join(lines))
        for name, rows in (("metrics.csv", self.rows), ("runs.csv", self.records)):
            (folder / name).write_text(csv_text(list(rows[0]), rows))

    def judged(self, *grids):
        self.write()
        return judged(self.root, grids, read_rules())


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def of(found, name):
    [one] = [verdict for verdict in found.verdicts if verdict.claim.name == name]
    return one


def standard(lab, sl=0.25, **fields):
    """Add SL and the three others at one place."""
    for loss in OTHERS:
        lab.arm(loss, 0.2, **fields)
    return lab.arm("sl", sl, **fields)


def test_a_claim_holds_if_it_is_there_everywhere(lab):
    standard(lab)
    standard(lab, dataset="yelp2018")
    one = of(lab.judged(), "accuracy")
    assert (one.judgement, one.counts, one.missing) == ("holds", "2 there", ())
    gain = one.findings[0].gain
    assert 0.2 < gain.low < gain.value < gain.high < 0.3 and gain.n_seeds == 10


def test_one_dataset_tells_nothing_however_many_its_splits(lab):
    standard(lab, dataset="yelp2018")
    standard(lab, dataset="yelp2018?split=ood")
    one = of(lab.judged(), "accuracy")
    assert (one.judgement, one.missing) == ("cannot be told", ("1 more dataset",))


def test_a_claim_does_not_hold_if_it_is_absent_or_reversed_at_half_of_the_places(lab):
    standard(lab, sl=0.25, dataset="yelp2018")
    standard(lab, sl=0.15)
    one = of(lab.judged(), "accuracy")
    assert (one.judgement, one.counts) == ("does not hold", "1 there, 1 reversed")


def test_the_opponent_is_the_best_on_valid_not_on_test(lab):
    for dataset in ("yelp2018", "movielens-1m"):
        lab.arm("mse", 0.24, valid=0.1, dataset=dataset)
        lab.arm("bce", 0.20, valid=0.3, dataset=dataset)
        lab.arm("bpr", 0.22, valid=0.2, dataset=dataset).arm("sl", 0.23, dataset=dataset)
    one = of(lab.judged(), "accuracy")
    assert one.judgement == "holds" and {f.gain.against for f in one.findings} == {"bce"}


def test_of_several_settings_the_best_on_valid_stand_for_a_loss(lab):
    standard(lab, dataset="yelp2018")
    standard(lab)
    for dataset in ("yelp2018", "movielens-1m"):  # better on test, worse on valid; untuned alone
        lab.arm("sl", 0.4, valid=0.01, tau=0.5, settings_from="grid", dataset=dataset)
    one = of(lab.judged(), "accuracy")
    assert one.judgement == "holds" and one.findings[0].gain.value < 0.4


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"seeds": 5}, "5 of 10 seeds"),
        ({"settings_from": "default"}, "settings of sl that were tuned; settings of mse"),
        ({"settings_from": "grid"}, "settings of sl that were tuned; settings of mse"),
        ({"ranks": False}, "ranks of 20 runs"),
    ],
)
def test_what_a_verdict_may_not_rest_on_is_said(lab, changes, missing):
    standard(lab, dataset="yelp2018")
    standard(lab, **changes)
    one = of(lab.judged(), "accuracy")
    assert (one.judgement, one.counts) == ("cannot be told", "1 there, 1 cannot be told")
    assert one.missing[0].startswith("movielens-1m, mf: mse: ") and missing in one.missing[0]


def test_the_best_of_all_opponents_takes_all_of_them(lab):
    standard(lab, dataset="yelp2018")
    lab.arm("mse").arm("bpr").arm("sl", 0.25)
    one = of(lab.judged(), "accuracy")
    assert one.missing == ("movielens-1m, mf: the best of mse, bce and bpr: runs of bce",)


def test_the_contrasts_take_twenty_seeds_on_movielens(lab):
    for dataset, seeds in (("yelp2018", 10), ("movielens-1m", 10)):
        lab.arm("sl", 0.2, seeds=seeds, dataset=dataset)
        lab.arm("bsl_reweight", 0.25, seeds=seeds, dataset=dataset)
    found = lab.judged()
    assert of(found, "rho alone").missing == ("movielens-1m, mf: sl: 10 of 20 seeds",)
    assert of(found, "pooling alone").counts == "not tested"


def test_pooling_alone_looks_at_rho_one_only(lab):
    for dataset in ("yelp2018", "gowalla"):
        lab.arm("sl", 0.2, dataset=dataset)
        lab.arm("bsl", 0.15, dataset=dataset, rho=1.0)
        lab.arm("bsl", 0.3, dataset=dataset, rho=1.2)
    one = of(lab.judged(), "pooling alone")
    assert (one.judgement, one.counts) == ("does not hold", "2 reversed")


def test_a_gain_that_seeds_blur_says_what_it_takes(lab):
    standard(lab, dataset="yelp2018")
    for loss in OTHERS:
        lab.arm(loss, 0.2)
    lab.arm("sl", 0.202, by_seed=lambda seed: 0.02 * (-1) ** seed)
    [missing] = of(lab.judged(), "accuracy").missing
    assert "movielens-1m, mf: mse: about " in missing and missing.endswith(" seeds")


def test_runs_that_are_no_evidence_are_left_out_and_counted(lab):
    standard(lab, dataset="synthetic?users=100")
    standard(lab, selection="test")
    standard(lab, init="als")
    standard(lab, eval_users=1000)
    lab.arm("ease", backbone="reference")
    lab.arm("sl", backbone="external")
    found = lab.judged()
    assert {one.judgement for one in found.verdicts} == {"cannot be told"}
    assert summary_table(found).problems == (
        "left out: 40 runs on synthetic",
        "left out: 40 runs with epochs picked on test",
        "left out: 40 runs not started from Xavier",
        "left out: 40 runs evaluated on a sample of users",
        "left out: 10 runs of recommenders without a loss",
        "left out: 10 runs of models from outside",
    )


def test_results_older_than_the_rules_are_refused(lab, tmp_path):
    old = Lab(tmp_path, "old")
    standard(old, rules="")
    old.write()
    with pytest.raises(ConfigError, match=r"made under older rules than version 1; train it again"):
        judged(tmp_path, [], read_rules())
    standard(lab)
    found = lab.judged()
    assert summary_table(found).problems == (
        "refused: grid old, made under older rules than version 1",
    )
    assert found.pool.grids == ["lab"]
    with pytest.raises(ConfigError, match="old: movielens-1m-mf-"):
        judged(tmp_path, ["lab", "old"], read_rules())


def test_runs_carry_the_version_of_the_rules():
    assert environment()["rules"] == read_rules().version


def test_slopes_are_least_squares_of_log_means_and_their_users_its_influence():
    rng = np.random.default_rng(3)
    values = rng.random((4, 2, 60)) + np.array([0.9, 0.6, 0.5, 0.2])[:, None, None]
    x = np.array([0.0, 0.1, 0.2, 0.4])[:, None] + np.zeros((4, 2))
    found = slopes(values, x)

    def slope(seed, users):
        return np.polyfit(x[:, seed], np.log(values[:, seed, users].mean(1)), 1)[0]

    assert found.mean(1) == pytest.approx([slope(s, np.arange(60)) for s in range(2)], rel=1e-9)
    drawn = [rng.integers(60, size=60) for _ in range(2000)]
    spread = np.std([slope(0, users) for users in drawn])
    assert np.std([found[0, users].mean() for users in drawn]) == pytest.approx(spread, rel=0.02)


def noisy(lab, loss, steepness, dataset, *, axis, clean, levels, shares=None, **fields):
    """Add a loss at several levels of noise: log recall falls by `steepness` per unit."""
    for level in (clean, *levels):
        x = shares[level] if shares else level
        noise = {axis: level} if level != clean else {}
        more = {k: v for k, v in fields.items() if noise or k != "valid_noise"}
        recall = 0.3 * math.exp(-steepness * x)
        share = shares[level] if shares else ""
        lab.arm(loss, recall, dataset=dataset, share=share, **noise, **more)


NEG = {1.0: 0.05, 3.0: 0.15, 10.0: 0.4, 20.0: 0.6}


def test_the_slope_over_false_negatives(lab):
    for dataset, loss in itertools.product(("yelp2018", "movielens-1m"), ("sl", *OTHERS)):
        steep = {"sl": 0.5, "mse": 1.0, "bce": 1.5, "bpr": 2.0}[loss]
        levels = {"levels": (3.0, 10.0, 20.0), "shares": NEG}
        noisy(lab, loss, steep, dataset, axis="noise_neg", clean=1.0, **levels)
    one = of(lab.judged(), "noisy negatives")
    assert (one.judgement, one.counts) == ("holds", "2 there")
    gain = one.findings[0].gain
    assert gain.against == "mse" and gain.value == pytest.approx(0.5, abs=0.05)


def test_the_slope_over_false_negatives_starts_at_clean(lab):
    for loss in ("sl", *OTHERS):
        shares = NEG | {0.0: 0.0}
        kind = {"axis": "noise_neg", "clean": 1.0, "levels": (0.0, 10.0), "shares": shares}
        noisy(lab, loss, 1.0 + (loss != "sl"), "yelp2018", **kind)
    [finding] = of(lab.judged(), "noisy negatives").findings
    assert finding.gain.missing == "2 of 3 levels in common"


def test_settings_tuned_at_a_level_stand_before_better_ones_of_another(lab):
    kind = {"axis": "noise_neg", "clean": 1.0, "levels": (3.0, 10.0), "shares": NEG}
    for loss in ("sl", *OTHERS):
        noisy(lab, loss, 1.0 + (loss != "sl"), "yelp2018", **kind)
    for level in kind["levels"]:
        carried = {"settings_from": "tuned (study, trial 3)", "share": NEG[level]}
        lab.arm("mse", 0.3, dataset="yelp2018", noise_neg=level, lr=0.1, **carried)
    [finding] = of(lab.judged(), "noisy negatives").findings
    assert finding.state == "there"


def test_settings_tuned_at_a_level_and_set_otherwise_are_not_tuned(lab):
    kind = {"axis": "noise_neg", "clean": 1.0, "levels": (3.0, 10.0), "shares": NEG}
    for loss in OTHERS:
        noisy(lab, loss, 2.0, "yelp2018", **kind)
    noisy(lab, "sl", 1.0, "yelp2018", **kind | {"levels": (3.0,)})
    other = "tuned (study, trial 3, at neg=10); set otherwise"
    lab.arm("sl", 0.2, dataset="yelp2018", noise_neg=10.0, share=NEG[10.0], settings_from=other)
    [finding] = of(lab.judged(), "noisy negatives").findings
    assert "settings of sl that were tuned at neg=10" in finding.gain.missing


def test_a_slope_takes_settings_tuned_at_each_level(lab):
    for loss in ("sl", *OTHERS):
        kind = {"axis": "noise_neg", "clean": 1.0, "levels": (3.0, 10.0), "shares": NEG}
        carried = {"settings_from": "tuned (study, trial 3)"} if loss == "sl" else {}
        noisy(lab, loss, 1.0 + (loss != "sl"), "yelp2018", **kind, **carried)
    [finding] = of(lab.judged(), "noisy negatives").findings
    assert (finding.state, finding.gain.missing) == (
        "cannot be told",
        "settings of sl that were tuned at neg=3; settings of sl that were tuned at neg=10",
    )


def test_another_length_or_batch_is_no_search(lab):
    for epochs in (10, 20):
        standard(lab, settings_from="default", epochs=epochs, batch_size=1024)
    for size in (1024, 2048):
        standard(lab, settings_from="grid", dataset="yelp2018", batch_size=size, n_negatives=size)
    one = of(lab.judged(), "accuracy")
    assert [finding.state for finding in one.findings] == ["cannot be told"] * 2
    assert "settings of sl that were tuned" in one.findings[0].gain.missing


def test_only_runs_of_one_length_are_compared(lab):
    standard(lab, sl=0.15, epochs=16, batch_size=4096)
    lab.arm("sl", 0.4, epochs=1000, batch_size=4096)  # better, but nothing else ran so long
    standard(lab, sl=0.4, seeds=5, epochs=50, batch_size=1024)  # nor with as many seeds
    [finding] = of(lab.judged(), "accuracy").findings
    assert finding.state == "reversed" and finding.gain.value == pytest.approx(-0.25, abs=0.02)


def test_a_length_that_lacks_the_loss_itself_does_not_stand_for_the_place(lab):
    standard(lab, dataset="yelp2018", epochs=16, batch_size=4096)
    for loss in OTHERS:  # more losses than at the other length, but not the claim's
        lab.arm(loss, 0.2, epochs=40, batch_size=4096)
    lab.arm("sl", 0.25, epochs=16, batch_size=4096)
    one = of(lab.judged(), "accuracy")
    assert [f.place.dataset for f in one.findings] == ["yelp2018", "movielens-1m"]
    assert one.findings[1].missing == ("mse, bce and bpr: runs of one size",)
    lab = Lab(lab.root, "other")
    for loss in OTHERS:
        lab.arm(loss, 0.2, epochs=40, batch_size=4096)
    lab.arm("sl", 0.25, epochs=16, batch_size=4096).arm("bpr", 0.2, epochs=16, batch_size=4096)
    [finding] = of(lab.judged("other"), "accuracy").findings
    assert finding.missing == ("the best of mse, bce and bpr: runs of mse and bce",)


def test_larger_embeddings_are_not_held_against_smaller_ones(lab):
    standard(lab, sl=0.15, dim=64)
    lab.arm("sl", 0.4, dim=256)
    [finding] = of(lab.judged(), "accuracy").findings
    assert finding.state == "reversed"


def test_settings_of_noisy_runs_count_if_they_were_tuned_however_many_there_are(lab):
    for loss in ("sl", *OTHERS):
        kind = {"axis": "noise_neg", "clean": 1.0, "levels": (3.0, 10.0), "shares": NEG}
        noisy(lab, loss, 1.0 + (loss != "sl"), "yelp2018", **kind, settings_from="grid")
        noisy(lab, loss, 3.0, "yelp2018", **kind, settings_from="grid", lr=0.1, seeds=1)
    [finding] = of(lab.judged(), "noisy negatives").findings
    assert finding.state == "cannot be told"
    assert "settings of sl that were tuned at neg=3" in finding.gain.missing


def test_of_two_lengths_that_tell_the_better_one_counts(lab):
    standard(lab, sl=0.15, epochs=16, batch_size=4096)
    standard(lab, sl=0.25, epochs=40, batch_size=4096)
    [finding] = of(lab.judged(), "accuracy").findings
    assert finding.state == "there"


def test_the_length_is_that_of_the_settings_that_are_asked_for(lab):
    for dataset in ("yelp2018", "gowalla"):
        for epochs in (16, 24):
            lab.arm("sl", 0.2, dataset=dataset, epochs=epochs, batch_size=4096)
        lab.arm("bsl", 0.25, dataset=dataset, epochs=16, batch_size=4096, rho=1.0)
        lab.arm("bsl", 0.4, dataset=dataset, epochs=24, batch_size=4096, rho=1.2)
    assert of(lab.judged(), "pooling alone").counts == "2 there"


def test_a_slope_takes_three_levels(lab):
    for loss in ("sl", *OTHERS):
        noisy(lab, loss, 1, "yelp2018", axis="noise_neg", clean=1.0, levels=(3.0,), shares=NEG)
    one = of(lab.judged(), "noisy negatives")
    assert one.missing[1] == "yelp2018, mf: mse: 2 of 3 levels in common"


def test_false_positives_stand_among_the_validation_labels_too(lab):
    kind = {"axis": "noise_pos", "clean": 0.0, "levels": (0.2, 0.4)}
    for dataset in ("yelp2018", "movielens-1m"):
        noisy(lab, "sl", 1.5, dataset, **kind, valid_noise="same")
        noisy(lab, "bsl", 0.5, dataset, **kind, valid_noise="same")
        noisy(lab, "bsl", 9.0, dataset, **kind, tau=0.3)  # clean labels: not what is asked
    one = of(lab.judged(), "noisy positives")
    assert (one.judgement, one.findings[0].gain.value) == ("holds", pytest.approx(1, abs=0.1))


def test_hidden_positives_are_hidden_at_every_level(lab):
    for dataset, loss in itertools.product(("yelp2018", "movielens-1m"), ("sl", *OTHERS)):
        for level in (0.0, 0.1, 0.3):
            recall = 0.3 * math.exp(-(0.5 if loss == "sl" else 1.5) * level)
            fields = {"noise_fneg": level, "noise_hidden": True}
            lab.arm(loss, recall, dataset=dataset, **fields)
        lab.arm(loss, 0.9, dataset=dataset)  # nothing hidden: another task
    one = of(lab.judged(), "hidden positives as negatives")
    assert (one.judgement, one.counts) == ("holds", "2 there")


def test_fairness_is_a_share_of_the_tail_at_no_loss(lab):
    for dataset in ("yelp2018", "gowalla"):
        for loss in OTHERS:
            lab.arm(loss, 0.2, dataset=dataset, tail=0.2)
    lab.arm("sl", 0.2, dataset="yelp2018", tail=0.3, gini=0.5)
    lab.arm("sl", 0.15, dataset="gowalla", tail=0.3)
    one = of(lab.judged(), "fairness")
    assert one.counts == "1 there, 1 absent" and one.judgement == "does not hold"
    assert one.findings[0].notes[0] == "Gini 0.500, mse 0.700"
    assert "at a loss of Recall@20 (-2" in one.findings[1].notes[0]


def test_variance_over_the_squared_gap(lab):
    for dataset in ("yelp2018", "gowalla"):
        for loss, ratio in (("sl", 0.1), ("mse", 0.2), ("bce", 0.3), ("bpr", 0.15)):
            lab.arm(loss, dataset=dataset, ratio=ratio)
    one = of(lab.judged(), "variance")
    assert (one.judgement, one.findings[0].gain.against) == ("holds", "bpr")
    assert one.findings[0].gain.value == pytest.approx(math.log(1.5), abs=1e-6)


@pytest.mark.parametrize(("power", "judgement"), [(-0.5, "holds"), (0.5, "does not hold")])
def test_the_temperature_law(lab, power, judgement):
    levels = {1.0: 0.05, 2.0: 0.1, 3.0: 0.2, 5.0: 0.3, 10.0: 0.45}
    taus = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    for dataset, (level, share) in itertools.product(("yelp2018", "gowalla"), levels.items()):
        best = 0.15 * (share / 0.2) ** power
        for tau in taus:
            valid = 0.3 - abs(math.log(tau / best)) / 100
            noise = {"noise_neg": level} if level != 1 else {}
            few = dict(tau=tau, lr=0.05, seeds=2)  # another sweep, of too few seeds
            lab.arm("sl", 0.1, dataset=dataset, share=share, ranks=False, **noise, **few)
            lab.arm("sl", valid, dataset=dataset, share=share, tau=tau, ranks=False, **noise)
        other = dict(tau=0.4, lr=0.1, seeds=20)  # better, but at another rate
        lab.arm("sl", 0.4, dataset=dataset, share=share, ranks=False, **noise, **other)
    one = of(lab.judged(), "temperature law")
    assert one.judgement == judgement
    assert abs(one.findings[0].gain.value) > 0.8


def test_the_identities_need_a_model_and_hold_on_it(lab):
    for dataset in ("yelp2018", "gowalla"):
        lab.arm("sl", dataset=dataset, seeds=1)
        lab.arm("sl", 0.4, dataset=dataset, seeds=1, epochs=40)  # better, its model was not kept
    lab.write()
    first = of(judged(lab.root, [], read_rules()), "DRO identities")
    assert first.missing[0].endswith("a model trained on cosines: --save-model")
    rng = np.random.default_rng(0)
    for own in [own for own in lab.cells if "epochs" not in own]:
        file = Store(lab.root).run(own["id"]).file("model.safetensors")
        tables = {name: rng.normal(size=(60, 8)).astype("float32") for name in ("users", "items")}
        save_file(tables, file)
    one = of(judged(lab.root, [], read_rules()), "DRO identities")
    assert (one.judgement, one.counts) == ("holds", "2 there")
    assert one.findings[0].notes[0].startswith("largest error ")


def test_what_is_left_at_equal_score_and_number_of_negatives(lab):
    for dataset in ("yelp2018", "gowalla"):
        lab.arm("sl", 0.25, dataset=dataset)
        for loss in OTHERS:
            cosine = {"score_train": "cosine", "score_test": "cosine"}
            lab.arm(loss, 0.2, dataset=dataset, n_negatives=1)
            lab.arm(loss, 0.225, dataset=dataset, **cosine)  # with SL's score and M
    found = lab.judged()
    one = of(found, "the loss itself")
    assert one.judgement == "holds"
    assert one.findings[0].gain.value == pytest.approx(0.11, abs=0.02)
    assert "at cosine scores and M = 800; 4" in one.findings[0].notes[-1]
    [first, _] = of(found, "accuracy").findings  # over the scores that they declare
    assert first.gain.value == pytest.approx(0.25, abs=0.02)


def test_counts_make_the_verdict():
    claim = read_rules().claim[0]

    def of_states(*states):
        findings = [
            Finding(
                Place(f"d{n}", "mf"), state, not_told("mse", "x"), ("x",) if "told" in state else ()
            )
            for n, state in enumerate(states)
        ]
        return verdict(claim, findings, 2).judgement

    assert of_states("there", "there") == "holds"
    assert of_states("there") == of_states() == "cannot be told"
    assert of_states("there", "absent") == of_states("reversed", "absent") == "does not hold"
    assert of_states("there", "there", "absent") == "mixed"
    assert of_states("there", "cannot be told") == "cannot be told"
    assert of_states("there", "there", "reversed", "cannot be told") == "mixed"
    assert of_states("cannot be told", "absent") == "does not hold"


def test_the_rules_are_whole_and_damaged_ones_are_an_error(tmp_path):
    rules = read_rules()
    assert sorted({claim.rule for claim in rules.claim}) == list(range(1, 9))
    assert len({claim.name for claim in rules.claim}) == len(rules.claim)
    path = tmp_path / "rules.toml"
    path.write_text(
        'version = 1\ndatasets = 2\nseeds = 10\n[[claim]]\nrule = 1\nname = "a"\ntext = "b"\n'
        'measure = "slope"\nloss = "sl"\n'
    )
    with pytest.raises(ConfigError, match=r"rules\.toml: claim\.0: .*slope and temperature need"):
        read_rules(path)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["bslbench", "verdict", "--results", ".", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_and_its_page(lab, command, tmp_path):
    code, _, err = command()
    assert (code, err) == (
        2,
        "error: no results in .; train first: bslbench train --grid quick\n",
    )
    standard(lab)
    standard(lab, dataset="yelp2018").write()
    code, out, _ = command()
    assert code == 0 and "verdict by rules of version 1" in out and "holds" in out
    code, out, _ = command("--format", "csv")
    [first, *_] = rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len({tuple(row) for row in rows}) == 1
    assert (first["claim"], first["verdict"], first["dataset"]) == (
        "1 accuracy",
        "holds",
        "movielens-1m",
    )
    assert float(first["low"]) < float(first["gain"]) < float(first["high"])
    assert command("--grid", "lab", "--write", "findings.md")[:2] == (0, "")
    text = (tmp_path / "findings.md").read_text()
    assert "- **1, accuracy.** SL above the best of MSE, BCE, BPR (best by valid), Rec" in text
    assert text == page(judged(tmp_path, ["lab"], read_rules()))
    code, _, err = command("--grid", "lap")
    assert code == 2 and "did you mean 'lab'?" in err
