"""Text in lines, in whatever letters the output has."""

import codecs
import difflib
import math
import re
import textwrap
from collections.abc import Iterable

LONGEST = 4000  # characters of a line; an error of somebody else's may hold megabytes
WHOLE = re.compile(r"`[^`]+`|[<>]=? \d\S*|2\^32 - 1|\[-?[\d.]+, -?[\d.]+\]")  # what no line is broken in
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}  # of a time, in seconds
DURATION = re.compile(rf"(\d+(?:\.\d*)?(?:e[+-]?\d+)?) ?([{''.join(UNITS)}]?)", re.ASCII)
SPELLING = "ppo_cli.spelling"  # how `str.encode` and streams name what `spell` does
# What is written for signs of ours that an encoding lacks.
SPELLED = {
    "·": "|", "±": "+-", "→": "->", "←": "<-", "…": "...", "×": "x", "–": "-", "—": "-", "−": "-", "≤": "<=",
    "≥": ">=", "≈": "~", "∞": "inf", "α": "alpha", "β": "beta", "γ": "gamma", "ε": "eps", "λ": "lambda",
    "σ": "sigma", "“": '"', "”": '"', "\u2018": "'", "\u2019": "'", "•": "*", "²": "^2",
    "\u00a0": " ", "\u202f": " ",
}  # fmt: skip


def flat(error: object) -> str:
    """The text of an error, or of anything else, in one line; also where it has none to give."""
    try:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException as again:  # an error of somebody else's, which can't say what it is
        return f"(its text raised {type(again).__name__})"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def headline(error: object) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the closest spelling, or nothing where none is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def register_spelling() -> str:
    """Makes `SPELLING` known as a way to handle what an encoding lacks, and gives that name."""
    codecs.register_error(SPELLING, spell)
    return SPELLING


def spell(error: UnicodeError) -> tuple[str, int]:
    """What stands for the letters that an encoding lacks: a spelling of signs of ours, an escape of others.

    Args:
        error: The error as `codecs.register_error` describes it.

    Raises:
        UnicodeError: the error itself, where it is none of encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in lacking)
    return "".join(escaped), error.end


def spelled(text: str, encoding: str) -> str:
    """A text as an output of some encoding shows it, so that its width is known before it is written."""
    return text.encode(encoding, register_spelling()).decode(encoding)


def clock(seconds: float) -> str:
    """A time as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds_of(time: float | str) -> float | None:
    """The seconds of a time such as ``90s``, ``30m``, ``2h``, ``1d`` or a number of them; None for others."""
    match = DURATION.fullmatch(str(time).lower())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    return seconds if 0 < seconds < math.inf else None


def counted(number: int, noun: str) -> str:
    """A number of things, such as ``1 job`` or ``2,000 jobs``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short(value: float, decimals: int | None = None) -> str:
    """A number, with as many decimals as its size asks for where their number is not given."""
    return f"{value:,.{decimals_of(value) if decimals is None else decimals}f}"


def decimals_of(value: float) -> int:
    """Decimals with which a number of that size is told from its like: of 0.968 three, of 259.6 one."""
    return 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3


def mean_and_deviation(mean: float, deviation: float, least: int = 1) -> str:
    """``0.150 ± 0.357``: both with the decimals that the larger asks for, and ``least`` at least."""
    decimals = max(least, decimals_of(max(abs(mean), abs(deviation))))
    return f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}"


def words_in(text: str, columns: int, first: int = 0, further: int = 0) -> list[str]:
    """Lines of whole words; one that is longer, such as a path, has a line of its own.

    What stands between backticks is one word, as a command that is broken can't be pasted; so is a bound,
    ``>= 1`` or ``[0, 1]``.

    Args:
        text: The text to be put into lines.
        columns: The number of columns of each line.
        first: The columns that the first line is indented by.
        further: The columns that those after it are indented by.
    """
    wrapper = textwrap.TextWrapper(
        max(columns, 1),
        initial_indent=" " * first,
        subsequent_indent=" " * further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    whole = WHOLE.sub(lambda found: found[0].replace(" ", "\0"), text)
    return [line.replace("\0", " ") for line in wrapper.wrap(whole)] or [""]
