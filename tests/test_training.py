"""The loop: it learns, stops, decays, resumes in the same bits and says when it breaks."""

import inspect
import itertools
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.backbones import BACKBONES, Backbone
from bslbench.config import TrainSettings
from bslbench.errors import RunFailed
from bslbench.losses import LOSSES, SL
from bslbench.losses.base import as_loss
from bslbench.optimisers import Adam
from bslbench.training import Interrupted, Progress, train
from tests.fixtures import checkerboard, on_threads, tiny


def make(backbone: str = "mf", dim: int = 16, **settings: object) -> tuple[TrainSettings, Backbone]:
    data = tiny()
    made = BACKBONES[backbone](data, dim, torch.Generator().manual_seed(0))
    return TrainSettings.model_validate({"n_negatives": 20, "dim": dim} | settings), made


def recalls(*values: float) -> Any:
    """Return an evaluation that gives these values one after the other, the last for ever."""
    stream = itertools.chain(values, itertools.repeat(values[-1]))
    return lambda backbone: (next(stream), 0.0)


GENTLE: dict[str, dict[str, float]] = {
    # The held-out item is drawn as a negative, and the hardest one at that.
    "simce": {"margin": 0.5, "n_negatives": 3},
    "warp": {"margin": 0.1},
    "sl_at_k": {"tau_w": 3.0},
    # All degrees are alike: its popularity branch has no gradient but rounding, which Adam follows
    # to any margin, and under a wide one 20 draws are too few.
    "bc": {"n_negatives": 100},
    "llpauc": {"alpha": 1.0, "beta": 1.0},
    # Items alike in whom they are for should not be pushed far apart.
    "directau": {"gamma": 0.2},
    "mawu": {"gamma_user": 0.1, "gamma_item": 0.1},
}
"""Hyper-parameters at which a loss forgives that its negatives hold what it is to find."""


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_finds_the_diagonal_of_the_checkerboard(loss: str, backbone: str) -> None:
    data = checkerboard()
    cosine = LOSSES[loss].score == "cosine"
    gentle = {"n_negatives": 20} | GENTLE.get(loss, {})
    settings = TrainSettings(
        epochs=40,
        lr=0.1,
        batch_size=100,
        eval_every=40,
        n_negatives=int(gentle.pop("n_negatives")),
        score_train=LOSSES[loss].score,
        sampler="own" if "negatives" in LOSSES[loss].needs else "none",
    )
    # Few dimensions: enough for parity, too few to learn single cells by heart; NGCF gets
    # 4 more with each hop.
    shallow = {"hops": 1} if backbone == "ngcf" else {}
    model = BACKBONES[backbone](data, 4, torch.Generator().manual_seed(0), **shallow)
    # A low temperature would push hardest against the held-out item, drawn as a negative.
    names = inspect.signature(LOSSES[loss].__init__).parameters
    made = LOSSES[loss](**{name: 0.5 for name in names if name.startswith("tau")} | gentle)
    train(settings, data, model, made, seed=0, evaluate=rising())
    users, items = (normalize(t.detach()) if cosine else t.detach() for t in model.tables())
    scores = users @ items.T
    scores[torch.from_numpy(data.train.toarray()).bool()] = -torch.inf
    assert torch.equal(scores.argmax(1), torch.arange(data.n_users))


def rising() -> Any:
    """Return an evaluation that always improves, so that the last weights are kept."""
    count = itertools.count()
    return lambda backbone: (float(next(count)), 0.0)


def test_stops_after_patience_and_keeps_the_best_weights() -> None:
    settings, model = make(epochs=50, patience=2)
    seen: list[Tensor] = []

    def evaluate(backbone: Backbone) -> tuple[float, float]:
        seen.append(backbone.tables()[0].detach().clone())
        return [0.1, 0.3, 0.3, 0.2, 0.3][len(seen) - 1], 0.0

    progress = train(settings, tiny(), model, SL(), seed=0, evaluate=evaluate)
    assert (progress.epoch, progress.best_epoch) == (5, 1)
    assert torch.equal(model.tables()[0], seen[1])


def test_a_linear_schedule_decays_to_zero_and_never_stops_early() -> None:
    settings, model = make(epochs=6, patience=0, lr_schedule="linear", batch_size=100, lr=0.5)
    rates: list[float] = []
    step = Adam.step

    def spy(self: Adam, rate: float) -> None:
        rates.append(rate)
        step(self, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adam, "step", spy)
        progress = train(settings, tiny(), model, SL(), seed=0, evaluate=recalls(0.1))
    assert progress.epoch == 6
    assert rates == pytest.approx([0.5 * (1 - t / 18) for t in range(18)])


def test_evaluates_every_n_epochs_and_at_the_end() -> None:
    settings, model = make(epochs=7, eval_every=3)
    progress = train(settings, tiny(), model, SL(), seed=0, evaluate=rising())
    assert [point.epoch for point in progress.curve] == [2, 5, 6]


def test_the_epoch_loss_is_the_mean_of_its_batches_with_l2() -> None:
    settings, model = make(epochs=1, l2=0.5, batch_size=10_000)
    users = torch.from_numpy(tiny().train.tocoo().row).long()
    items = torch.from_numpy(tiny().train.tocoo().col).long()
    squares = model.tables()[0][users].square().sum() + model.tables()[1][items].square().sum()
    with_l2 = train(settings, tiny(), model, SL(), seed=0, evaluate=rising()).curve[0].loss
    settings, model = make(epochs=1, l2=0.5, batch_size=10_000, l2_negatives=False)
    without = train(settings, tiny(), model, SL(), seed=0, evaluate=rising()).curve[0].loss
    settings, model = make(epochs=1, batch_size=10_000)
    bare = train(settings, tiny(), model, SL(), seed=0, evaluate=rising()).curve[0].loss
    assert without - bare == pytest.approx(0.5 / (2 * len(users)) * squares.item(), rel=1e-4)
    assert with_l2 > without


class Remembering(torch.nn.Module):
    """A loss with a parameter, a buffer and a hook: all of it must survive a resume."""

    def __init__(self) -> None:
        super().__init__()
        self.margin = torch.nn.Parameter(torch.tensor(0.5))
        self.register_buffer("average", torch.zeros(()))

    def on_epoch_start(self, users: Tensor, items: Tensor, epoch: int) -> None:
        self.average = 0.5 * self.average + users.norm() + epoch

    def forward(self, pos: Tensor, neg: Tensor, batch: Any) -> Tensor:
        self.average = 0.9 * self.average + 0.1 * pos.detach().mean()
        rows = (self.margin - pos[:, 0] + neg[:, 0] * self.average).relu() + self.margin.square()
        return rows.mean()


EARLY: dict[str, dict[str, int]] = {
    "adap_tau": {"warmup": 1},
    "bc": {"warmup": 2},
    "tce": {"ramp": 4},
}
"""Hyper-parameters at which all that a loss does over the epochs happens in the first few."""


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_goes_on_from_what_was_kept_in_the_same_bits(loss: str) -> None:
    def run(**hooks: Any) -> dict[str, Tensor]:
        settings, model = make(epochs=6, batch_size=100, lr=0.01, **given_to(loss))
        made = LOSSES[loss](**EARLY.get(loss, {}))
        with suppress(Interrupted):
            train(settings, tiny(), model, made, seed=4, evaluate=rising(), **hooks)
        weights = {f"backbone.{name}": kept for name, kept in model.state_dict().items()}
        return weights | {f"loss.{name}": kept for name, kept in made.state_dict().items()}

    whole = run()
    kept: list[dict[str, Any]] = []
    steps = itertools.count(1)
    run(keep=lambda state: kept.append(clone(state)), stop=lambda: next(steps) == 7)
    evaluated, interrupted = kept[1:]  # after the second epoch, and in the middle of the third
    for state in (evaluated, interrupted):
        again = run(state=state)
        assert whole.keys() == again.keys()
        assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_the_same_bits_on_any_number_of_threads(loss: str) -> None:
    data = tiny(n_users=40, n_items=600, per_user=60)
    given = given_to(loss) | {"epochs": 4, "n_negatives": 50, "batch_size": 800, "l2": 0.1}
    settings = TrainSettings.model_validate(given)
    ended = []
    for threads in (1, 4):
        model = BACKBONES["mf"](data, 64, torch.Generator().manual_seed(0))
        made = LOSSES[loss](**EARLY.get(loss, {}))
        with on_threads(threads):
            train(settings, data, model, made, seed=0, evaluate=rising())
        state = [*model.state_dict().values(), *made.state_dict().values()]
        ended.append(torch.cat([kept.detach().flatten().double() for kept in state]))
    assert torch.equal(*ended)


def given_to(loss: str) -> dict[str, Any]:
    """Return the training settings that a loss decides, as a grid resolves them."""
    cls = LOSSES[loss]
    sampler = {} if "negatives" in cls.needs else {"sampler": "none"}
    return {"score_train": cls.score, "scale": cls.scale} | sampler


@pytest.mark.parametrize("optimizer", ["adam", "adam_lazy"])
def test_the_moving_average_is_ranked_and_kept_and_training_is_as_without(optimizer: str) -> None:
    def run(ema_decay: float | None, eval_every: int) -> tuple[list[Tensor], list[float], Tensor]:
        given = {"epochs": 6, "batch_size": 100, "lr": 0.05, "optimizer": optimizer}
        settings, model = make(**given, ema_decay=ema_decay, eval_every=eval_every)
        ranked: list[Tensor] = []

        def evaluate(backbone: Backbone) -> tuple[float, float]:
            ranked.append(torch.cat(backbone.tables()).detach().clone())
            return float(len(ranked)), 0.0

        progress = train(settings, tiny(), model, SL(), seed=0, evaluate=evaluate)
        losses = [point.loss for point in progress.curve]
        return ranked, losses, torch.cat(model.tables()).detach()

    plain, losses, _ = run(None, 1)
    w1, w2, w3, w4, w5, w6 = (table.double() for table in plain)
    fourth = (w1 + w2 + w3 + w4) / 4  # a plain mean until the decay allows for no more
    sixth = 0.75 * (0.75 * fourth + 0.25 * w5) + 0.25 * w6
    (at_second, at_fourth, at_sixth), averaged_losses, left = run(0.75, 2)
    torch.testing.assert_close(at_second.double(), (w1 + w2) / 2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(at_fourth.double(), fourth, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(at_sixth.double(), sixth, rtol=1e-5, atol=1e-6)
    assert torch.equal(left, at_sixth)
    assert averaged_losses == pytest.approx(losses[1::2], rel=1e-5)


def test_a_decay_of_zero_is_none() -> None:
    assert TrainSettings(ema_decay=0) == TrainSettings()


def test_buffers_are_not_averaged() -> None:
    class Counting(BACKBONES["mf"]):  # type: ignore[misc]
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.register_buffer("steps", torch.tensor([0.0, torch.inf]))

        def on_step(self, draws: torch.Generator) -> None:
            self.steps += 1

    settings, _ = make(epochs=4, batch_size=100, ema_decay=0.9)
    model = Counting(tiny(), 16, torch.Generator().manual_seed(0))
    progress = train(settings, tiny(), model, SL(), seed=0, evaluate=rising())
    assert progress.best_epoch == 3
    assert model.steps.tolist() == [12.0, torch.inf]


def test_the_average_has_the_same_bits_on_any_number_of_threads() -> None:
    data = tiny(n_users=40, n_items=1100, per_user=60)
    settings = TrainSettings(epochs=3, n_negatives=20, batch_size=800, ema_decay=0.9)
    ended = []
    for threads in (1, 4):
        model = BACKBONES["mf"](data, 61, torch.Generator().manual_seed(0))
        with on_threads(threads):
            train(settings, data, model, SL(), seed=0, evaluate=rising())
        ended.append(torch.cat(model.tables()).detach())
    assert torch.equal(*ended)


@pytest.mark.parametrize(
    "averaged",
    [{}, {"ema_decay": 0.5}, {"ema_decay": 0.5, "optimizer": "adam_lazy", "eval_every": 2}],
)
@pytest.mark.parametrize("cut", [1, 3, 4, 8])
def test_a_run_cut_off_at_any_step_ends_in_the_same_bits(
    cut: int, averaged: dict[str, Any]
) -> None:
    def run(**hooks: Any) -> tuple[Progress | None, dict[str, Tensor], dict[str, Tensor]]:
        settings, model = make(epochs=4, batch_size=100, dropout=0.1, l2=1e-3, **averaged)
        loss = as_loss(Remembering())
        progress = None
        with suppress(Interrupted):
            progress = train(settings, tiny(), model, loss, seed=4, evaluate=norm, **hooks)
        return progress, model.state_dict(), loss.state_dict()

    def norm(backbone: Backbone) -> tuple[float, float]:
        return backbone.tables()[0].norm().item(), 0.0

    whole, weights, memory = run()
    kept: list[dict[str, Any]] = []
    steps = itertools.count(1)
    run(keep=lambda state: kept.append(clone(state)), stop=lambda: next(steps) == cut)
    resumed, weights_again, memory_again = run(state=kept[-1])
    assert whole is not None and resumed is not None
    assert [p.loss for p in whole.curve] == [p.loss for p in resumed.curve]
    for name, tensor in weights.items():
        assert torch.equal(tensor, weights_again[name])
    for name, tensor in memory.items():
        assert torch.equal(tensor, memory_again[name])


def clone(state: Any) -> Any:
    """Return a deep copy by the way of a file, as resume has it."""
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_run_killed_after_it_had_stopped_early_does_not_go_on() -> None:
    settings, model = make(epochs=50, patience=1)
    kept: list[dict[str, Any]] = []
    hooks: dict[str, Any] = {"keep": lambda state: kept.append(clone(state))}
    train(settings, tiny(), model, SL(), seed=0, evaluate=recalls(0.3, 0.1), **hooks)
    again = train(settings, tiny(), model, SL(), seed=0, evaluate=recalls(0.9), state=kept[-1])
    assert again.epoch == 3


def test_a_non_finite_loss_is_named_with_epoch_step_and_settings() -> None:
    settings, model = make(epochs=2, batch_size=100)

    class Breaking(SL):
        def forward(self, pos: Tensor, neg: Tensor, batch: Any = None) -> Tensor:
            hit = (batch.epoch == 1) & (batch.step == 1)
            return super().forward(pos, neg) + torch.where(hit, torch.inf, 0.0)

    with pytest.raises(RunFailed, match=r"epoch 1, step 1: tau=0.2, lr=0.001"):
        train(settings, tiny(), model, Breaking(tau=0.2), seed=0, evaluate=rising())


def test_scale_multiplies_the_scores_before_the_loss() -> None:
    class Seen(SL):
        def forward(self, pos: Tensor, neg: Tensor, batch: Any = None) -> Tensor:
            peaks.append(pos.detach().abs().max().item())
            return super().forward(pos, neg)

    peaks: list[float] = []
    for scale in (1.0, 10.0):
        settings, model = make(epochs=1, batch_size=10_000, scale=scale)
        train(settings, tiny(), model, Seen(), seed=0, evaluate=rising())
    assert peaks[1] == pytest.approx(10 * peaks[0])


def test_in_batch_skips_a_last_batch_of_one_row() -> None:
    settings, model = make(epochs=1, sampler="in_batch", batch_size=239)
    progress = train(settings, tiny(), model, SL(), seed=0, evaluate=rising())
    assert torch.tensor(progress.curve[0].loss).isfinite()
