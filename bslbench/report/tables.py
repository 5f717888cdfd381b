"""The tables by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bslbench.report.claims.ablation import ablation_table
from bslbench.report.claims.fairness import fairness_table
from bslbench.report.claims.identities import theory_table
from bslbench.report.claims.robustness import robustness_table
from bslbench.report.claims.temperature import temperature_table
from bslbench.report.claims.variance import variance_table
from bslbench.report.long_table import long_table
from bslbench.report.main_table import main_table
from bslbench.report.significance_table import significance_table
from bslbench.report.table import Table
from bslbench.report.tuning import tuning_table

__all__ = ["TABLES", "Builder", "main_table"]

Builder = Callable[[Path, str, Sequence[str] | None], Table]
"""Makes a table from the results folder, a grid's name and the metrics asked for, if any."""

TABLES: dict[str, Builder] = {
    "main": main_table,
    "long": long_table,
    "significance": significance_table,
    "tuning": tuning_table,
    "robustness": robustness_table,
    "fairness": fairness_table,
    "variance": variance_table,
    "temperature": temperature_table,
    "ablation": ablation_table,
    "theory": theory_table,
}
"""By the name that ``bslbench report --table`` takes."""
