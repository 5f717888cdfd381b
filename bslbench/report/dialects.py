"""How each format writes plain text, best and second, a deviation, a superscript, a stamp."""

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import rich.markup


@dataclass(frozen=True)
class Dialect:
    """One format's way of writing the parts of a cell.

    Attributes
    ----------
    escape
        Makes plain text safe.
    places
        Around a value that is neither best nor second, best, second.
    deviation, interval
        After a value.
    superscript
        Writes a mark.
    stamp
        Around what nobody may overlook.
    legend
        How best and second are marked.
    minus
        The sign of negative numbers.
    """

    escape: Callable[[str], str]
    places: tuple[str, str, str]
    deviation: str
    interval: str
    superscript: Callable[[str], str]
    stamp: str
    legend: str = "best bold, second underlined"
    minus: str = "-"


def _raised(mark: str) -> str:
    """Return a mark in small raised letters where there are such."""
    return rich.markup.escape(mark.translate(_RAISED))


_RAISED = str.maketrans(
    "0123456789abcdefghijklmnoprstuvwxyz", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"
)


def _markdown_escape(text: str) -> str:
    return re.sub(r"[|<>*]", r"\\\g<0>", text)


def _latex_escape(text: str) -> str:
    parts = ("".join(_LATEX.get(c) or _typeset(c) for c in part) for part in text.split("--"))
    return "-{}-".join(parts)  # else the two would be one dash


def _typeset(character: str) -> str:
    """Return a character that pdflatex knows by itself, its plain form, or its number."""
    if ord(character) < 0x180:  # Latin with accents
        return character
    plain = unicodedata.normalize("NFKD", character)
    return plain if plain.isascii() else f"{{[}}U+{ord(character):04X}]"


_LATEX = {character: f"\\{character}" for character in "{}$&#%_"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_LATEX |= {"[": "{[}", "*": "{*}"}  # would be read as an argument of the line end before them
_LATEX |= {"–": "--", "—": "---"}
_MATHS = {"±": r"\pm", "×": r"\times", "≤": r"\le", "≥": r"\ge", "≈": r"\approx", "−": "-"}
_MATHS |= {"→": r"\to", "↑": r"\uparrow", "↓": r"\downarrow", "†": r"\dagger", "‡": r"\ddagger"}
_MATHS |= {"Δ": r"\Delta", "τ": r"\tau", "ρ": r"\rho", "σ": r"\sigma", "η": r"\eta", "·": r"\cdot"}
_MATHS |= {"²": "{}^2", "√": r"\surd", "∞": r"\infty"}
_LATEX |= {character: f"${command}$" for character, command in _MATHS.items()}


def _tagged(opening: str, closing: str, escape: Callable[[str], str]) -> Callable[[str], str]:
    return lambda mark: f"{opening}{escape(mark)}{closing}" if mark else ""


RICH = Dialect(
    rich.markup.escape,
    ("{}", "[bold]{}[/]", "[underline]{}[/]"),
    " ±{}",
    " [{}, {}]",
    _raised,
    "[bold]{}[/]",
)
PLAIN = Dialect(
    rich.markup.escape,
    ("{}", "{}*", "{}+"),
    " ±{}",
    " [{}, {}]",
    _raised,
    "{}",
    "best *, second +",
)
MARKDOWN = Dialect(
    _markdown_escape,
    ("{}", "**{}**", "<u>{}</u>"),
    " ± {}",
    " [{}, {}]",
    _tagged("<sup>", "</sup>", _markdown_escape),
    "**{}**",
)
TEX = Dialect(
    _latex_escape,
    ("{}", r"\textbf{{{}}}", r"\underline{{{}}}"),
    r" {{\scriptsize$\pm$\,{}}}",
    r" {{\scriptsize[{}, {}]}}",
    _tagged(r"\textsuperscript{", "}", _latex_escape),
    r"\textbf{{{}}}",
    minus="$-$",
)
HTML = Dialect(
    html.escape,
    ("{}", "<b>{}</b>", "<u>{}</u>"),
    ' <span class="sd">± {}</span>',
    ' <span class="sd">[{}, {}]</span>',
    _tagged("<sup>", "</sup>", html.escape),
    '<strong class="stamp">{}</strong>',
    minus="\N{MINUS SIGN}",
)
