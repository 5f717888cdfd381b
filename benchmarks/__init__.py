"""Speed as ratios: the plain formulation against ours, in one process, taking turns."""

import sys

PROGRAM = [sys.executable, "-m", "bslbench"]
"""A call of bslbench as a process of its own."""
