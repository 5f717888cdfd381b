"""Speed as ratios: the plain formulation against ours, in one process, taking turns."""
