"""Other splits of a dataset's own pairs, named by its modifiers (docs/protocol.md, "Splits")."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from bslbench.catalog import split_name
from bslbench.data.interactions import Interactions, fingerprint_of
from bslbench.data.sample import percent, sampled, share_of
from bslbench.data.splits import choose, take
from bslbench.errors import ConfigError, suggest

SPLITTING = ("split", "resplit", "sample")
"""The modifiers that any dataset takes."""
SPLITS = ("standard", "ood")
"""What ``?split=`` takes."""


def unsplit(name: str) -> str:
    """Return a dataset's name without the modifiers that split it or take some of its users.

    Examples
    --------
    >>> unsplit("yelp2018?split=ood"), unsplit("synthetic?users=500&resplit=1")
    ('yelp2018', 'synthetic?users=500')
    """
    base, modifiers = split_name(name)
    _, others = separated(modifiers)
    return _named(base, others)


def separated(modifiers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the modifiers that split, and the others."""
    splits = {key: value for key, value in modifiers.items() if key in SPLITTING}
    return splits, {key: value for key, value in modifiers.items() if key not in splits}


def split_anew(data: Interactions, modifiers: Mapping[str, str]) -> Interactions:
    """Return a dataset as its `split`, `resplit` and `sample` say, with them in its name.

    Parameters
    ----------
    data
        As parsed; `split_seed` draws the test pairs of ``split=ood``.
    modifiers
        ``resplit=s``, a whole number: each user's pairs are dealt anew to train, valid and test,
        as many to each as before. ``split=ood``: of all test pairs half stay, drawn without
        replacement with weight 1 / the item's degree in test. ``sample=5%``, after these: so many
        of the users (`bslbench.data.sample`).

    Raises
    ------
    ConfigError
        For a value that is none of these.
    """
    given = {}
    if "resplit" in modifiers:
        text = modifiers["resplit"]
        if not text.isdecimal():
            raise ConfigError(f"dataset '{data.name}': resplit={text} is not a whole number")
        data = _dealt(data, int(text))
        given["resplit"] = str(int(text))
    split = modifiers.get("split", "standard")
    if split not in SPLITS:
        hint = suggest(split, SPLITS)
        raise ConfigError(f"dataset '{data.name}': no split named '{split}'{hint}")
    if split == "ood":
        data = replace(data, test=_near_uniform(data.test, data.split_seed))
        given["split"] = split
    if "sample" in modifiers:
        share = share_of(modifiers["sample"], data.name)
        if share < 1:
            data = sampled(data, share)
            given["sample"] = percent(share)
    if not given:
        return data
    base, others = split_name(data.name)
    fingerprint = fingerprint_of(data.train, data.valid, data.test)
    return replace(data, name=_named(base, others | given), fingerprint=fingerprint)


def _named(base: str, modifiers: Mapping[str, str]) -> str:
    return "?".join(filter(None, [base, "&".join(f"{k}={v}" for k, v in modifiers.items())]))


def _dealt(data: Interactions, seed: int) -> Interactions:
    """Return the same pairs dealt anew within each user."""
    pool = data.train + data.valid + data.test
    pool.sort_indices()
    n_test, n_valid = (np.diff(x.indptr).astype(np.int64) for x in (data.test, data.valid))
    test = choose(pool, n_test, np.random.SeedSequence([seed, *b"resplit test"]))
    rest = take(pool, ~test)
    valid = choose(rest, n_valid, np.random.SeedSequence([seed, *b"resplit valid"]))
    return replace(data, train=take(rest, ~valid), valid=take(rest, valid), test=take(pool, test))


def _near_uniform(test: csr_array, seed: int) -> csr_array:
    """Return half of the pairs: those of the smallest exponential keys, each of rate 1 / degree.

    Source: Efraimidis, Spirakis, Weighted random sampling with a reservoir, IPL 2006.
    """
    degrees = np.bincount(test.indices, minlength=test.shape[1])[test.indices]  # [nnz]
    bits = np.random.PCG64(np.random.SeedSequence([seed, *b"ood"])).random_raw(test.nnz)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    order = np.argsort(-np.log(uniform) * degrees, kind="stable")
    kept = np.zeros(test.nnz, dtype=bool)
    kept[order[: test.nnz // 2]] = True
    return take(test, kept)
