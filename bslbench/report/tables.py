"""The tables by name; each is imported when it is asked for, since some need much."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from bslbench.report.main_table import main_table
from bslbench.report.table import Table

__all__ = ["TABLES", "Builder", "builder", "main_table"]

Builder = Callable[[Path, str, Sequence[str] | None], Table]
"""Makes a table from the results folder, a grid's name and the metrics asked for, if any."""

TABLES = {
    "main": "main_table:main_table",
    "long": "long_table:long_table",
    "significance": "significance_table:significance_table",
    "ranking": "ranking_table:ranking_table",
    "tuning": "tuning:tuning_table",
    "robustness": "claims.robustness:robustness_table",
    "fairness": "claims.fairness:fairness_table",
    "variance": "claims.variance:variance_table",
    "temperature": "claims.temperature:temperature_table",
    "ablation": "claims.ablation:ablation_table",
    "pairs": "claims.published_pairs:pairs_table",
    "factorial": "claims.factorial:factorial_table",
    "dimension": "claims.dimension:dimension_table",
    "theory": "claims.identities:theory_table",
}
"""By the name that ``bslbench report --table`` takes: where each is made, below this package."""


OF_NO_METRIC = ("theory", "variance")
"""Those that refuse metrics, having their own or none."""


def builder(name: str) -> Builder:
    """Return what makes the table of a name in `TABLES`."""
    module, _, function = TABLES[name].partition(":")
    made: Builder = getattr(import_module(f"{__package__}.{module}"), function)
    return made
