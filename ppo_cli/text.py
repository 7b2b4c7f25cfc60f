"""Text in lines: an error in one, a paragraph in as many as it takes."""

import textwrap

LONGEST = 4000  # characters of a line; an error of somebody else's may hold megabytes


def flat(error: object) -> str:
    """The text of an error, or of anything else, in one line; also where it has none to give."""
    try:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException as again:  # an error of somebody else's, which can't say what it is
        return f"(its text raised {type(again).__name__})"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def words_in(text: str, columns: int, first: int = 0, further: int = 0) -> list[str]:
    """Lines of whole words; one that is longer, such as a path, has a line of its own.

    Args:
        text: to be put into lines.
        columns: of each.
        first: columns that the first line is indented by.
        further: likewise, for those after it.
    """
    wrapper = textwrap.TextWrapper(
        columns,
        initial_indent=" " * first,
        subsequent_indent=" " * further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapper.wrap(text) or [""]
