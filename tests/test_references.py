"""Reference recommenders: what each promises, and what all of them do."""

import pytest
import torch

from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranking import rank_all
from bslbench.references import REFERENCES, popularity
from tests.fixtures import tiny


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_scores_all_items_and_repeats_itself(name: str) -> None:
    data = tiny()
    users = torch.tensor([4, 7, 9])
    scores = REFERENCES[name](data, 0)(users).clone()
    assert scores.shape == (3, data.n_items)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, REFERENCES[name](data, 0)(users))


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_can_be_ranked(name: str) -> None:
    data = tiny()
    ranks = rank_all(REFERENCES[name](data, 0), data, "test")
    assert len(ranks.users) == data.n_users
    assert 0 <= per_user(ranks, "Recall", 20).mean() <= 1


def test_popularity_is_the_train_degree() -> None:
    data = tiny()
    scores = popularity(data, 0)(torch.tensor([0, 3]))
    assert scores.tolist() == [data.train.sum(axis=0).tolist()] * 2
