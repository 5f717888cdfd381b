"""Every random draw is a pure function of (seed, purpose, counters): resume stores none."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def key_of(seed: int, purpose: str, *counters: int) -> int:
    """Return a 63-bit key for one stream of draws.

    Examples
    --------
    >>> key_of(0, "shuffle", 1) == key_of(0, "shuffle", 1) != key_of(0, "shuffle", 2)
    True
    """
    text = ":".join([purpose, str(seed), *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(
    seed: int, purpose: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a torch generator seeded by `key_of`."""
    import torch  # here, so that reports can draw without it

    return torch.Generator(device=device).manual_seed(key_of(seed, purpose, *counters))
