"""Errors in one line."""

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
