"""What is typed for a report, as argparse reads it: each says what it expects."""

from argparse import ArgumentTypeError

INCHES = (1.5, 40.0)  # of a figure's sides
POINTS = (4, 40)  # of letters
MOST_SMOOTH = 10_000
LARGEST = 1e100  # of a number that is typed


def threshold(typed: str) -> tuple[str | None, float]:
    """An environment, or None for all, and the return to reach there."""
    env_id, _, value = typed.rpartition("=")
    number = _number(value)
    if number is None:
        raise ArgumentTypeError(f"expected a number or ENV=NUMBER, given {typed!r}")
    return env_id or None, number


def scale(typed: str) -> tuple[str, tuple[float, float]]:
    """An environment, and the returns whose scores are 0 and 1."""
    env_id, _, values = typed.rpartition("=")
    low, high = ([*map(_number, values.split(",")), None, None])[:2]
    if not env_id or values.count(",") != 1 or low is None or high is None or not low < high:
        raise ArgumentTypeError(f"expected ENV=LOW,HIGH with LOW below HIGH, given {typed!r}")
    return env_id, (low, high)


def smooth(typed: str) -> int:
    """A number of logged returns."""
    if not typed.isascii() or not typed.isdigit() or not 1 <= int(typed[:9]) <= MOST_SMOOTH or len(typed) > 9:
        raise ArgumentTypeError(f"expected a whole number from 1 to {MOST_SMOOTH:,}, given {typed!r}")
    return int(typed)


def size(typed: str) -> tuple[float, float]:
    """Width and height in inches."""
    width, height = ([*map(_number, typed.lower().replace("×", "x").split("x")), None, None])[:2]
    least, most = INCHES
    sizes = [side for side in (width, height) if side is not None and least <= side <= most]
    if len(sizes) != 2 or typed.lower().replace("×", "x").count("x") != 1:
        raise ArgumentTypeError(
            f"expected inches as WIDTHxHEIGHT from {least:g} to {most:g}, such as 3.3x2.4, given {typed!r}"
        )
    return sizes[0], sizes[1]


def font_size(typed: str) -> float:
    """Points of letters."""
    number, (least, most) = _number(typed), POINTS
    if number is None or not least <= number <= most:
        raise ArgumentTypeError(f"expected points from {least} to {most}, given {typed!r}")
    return number


def _number(typed: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(typed)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST else None
