"""The one exception tree: what the user can mend ends in one line and an exit code."""

import difflib
from collections.abc import Iterable


class BslbenchError(Exception):
    """Base of every error that bslbench raises on purpose; its text is one line for the user."""

    exit_code = 2


class ConfigError(BslbenchError):
    """A grid, a setting, a name or a command line that cannot be what was meant."""


class DataError(BslbenchError):
    """A data file that is missing, malformed or not the one that the catalog describes."""


class DownloadError(BslbenchError):
    """A file that could not be fetched, or that is not the file it should be."""


class RunFailed(BslbenchError):
    """A run that could not be finished: non-finite loss, out of memory, an error in user code."""

    exit_code = 1


class InUse(RunFailed):
    """A run that another process is at: its lock is held."""


class StoreError(BslbenchError):
    """A results folder that cannot be written: a full disk, no permission."""


class CannotTell(BslbenchError):
    """Too little to compare: too few seeds, or nothing at all."""

    exit_code = 4


def suggest(word: str, known: Iterable[str], most: int | None = None) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of `known`, else the list of all of them.

    Parameters
    ----------
    most
        How many of them to list, where there may be thousands.

    Examples
    --------
    >>> suggest("yelp", ["yelp2018", "gowalla"])
    "; did you mean 'yelp2018'?"
    >>> suggest("x", ["yelp2018", "gowalla", "lastfm"], most=2)
    '; known: gowalla, lastfm, ...'
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    listed = names[:most] + ["..."] * (len(names) > len(names[:most]))
    return f"; known: {', '.join(listed)}" if names else ""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, not too long, nothing unprintable in it."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= 160 else shown[:157] + "..."
