"""Text in lines, in whatever letters the output has."""

import codecs
import textwrap

LONGEST = 4000  # characters of a line; an error of somebody else's may hold megabytes
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


def register_spelling() -> str:
    """Makes `SPELLING` known as a way to handle what an encoding lacks, and gives that name."""
    codecs.register_error(SPELLING, spell)
    return SPELLING


def spell(error: UnicodeError) -> tuple[str, int]:
    """What stands for the letters that an encoding lacks: a spelling of signs of ours, an escape of others.

    Args:
        error: as `codecs.register_error` describes it.

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


def words_in(text: str, columns: int, first: int = 0, further: int = 0) -> list[str]:
    """Lines of whole words; one that is longer, such as a path, has a line of its own.

    Args:
        text: to be put into lines.
        columns: of each.
        first: columns that the first line is indented by.
        further: likewise, for those after it.
    """
    wrapper = textwrap.TextWrapper(
        max(columns, 1),
        initial_indent=" " * first,
        subsequent_indent=" " * further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapper.wrap(text) or [""]
