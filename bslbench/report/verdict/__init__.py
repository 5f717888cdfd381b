"""The claims of the paper, judged by rules that were fixed beforehand."""
