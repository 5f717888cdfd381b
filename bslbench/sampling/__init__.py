"""Samplers: which positives and negatives a batch is scored against, and their scores.

Each draw is a pure function of (seed, epoch, step, row).
"""

from bslbench.sampling.base import Sampler, Scored
from bslbench.sampling.own import Own
from bslbench.sampling.shared import InBatch, NoNegatives, Pool

SAMPLERS: dict[str, type[Sampler]] = {
    "own": Own,
    "pool": Pool,
    "in_batch": InBatch,
    "none": NoNegatives,
}

__all__ = ["SAMPLERS", "InBatch", "NoNegatives", "Own", "Pool", "Sampler", "Scored"]
