"""Freed blocks are kept, which the kernel's count of cleared pages shows."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages (PR_SET_THP_DISABLE), few as they are
import torch
from bslbench import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
faults = []
for step in range(30):  # the heap takes a few steps until a freed block is where one is asked for
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(1 << 24).sum()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep blocks")
def test_a_freed_block_is_not_cleared_again_by_the_system() -> None:
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, how])) for how in ("not", "keep")
    )
    assert kept < 100 < given_back
