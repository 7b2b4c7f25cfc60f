"""What is none of a run: its files may be damaged, or anybody's, and would spoil a report."""

LONGEST = 256 * 2**20  # bytes of a metrics.csv: a million iterations
MOST_KNOBS = 1_000
MOST_INFOS = 64  # columns of an environment's own scalars that are read
LARGEST = 1e100  # a return, or a knob that is drawn as a number, so that sums and axes stay finite
MOST_STEPS = 2.0**63


class BrokenRunError(ValueError):
    """A folder can't be read as a run; the message is a few words that say why."""


class NothingYetError(BrokenRunError):
    """A run has logged nothing yet."""
