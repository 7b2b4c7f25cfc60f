"""How long what is left will take."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """When a process began to take part in a search, and how many trials had ended then.

    Attributes:
        began: The time, in seconds of some clock.
        ended: The number of trials.
    """

    began: float
    ended: int

    def time_left(self, now: float, ended: int, total: int) -> float | None:
        """Seconds for the trials that are left, at the rate at which all processes together ended some.

        Args:
            now: The time, on the same clock.
            ended: The number of trials that have ended.
            total: The number of all trials.
        """
        if ended <= self.ended or ended >= total:
            return None
        return (now - self.began) * (total - ended) / (ended - self.ended)


def makespan(running: Sequence[float], waiting: Sequence[float], workers: int) -> float:
    """Seconds until the last of several jobs ends, each begun by the worker that is free first.

    Graham's list scheduling (1966): with workers that are free at times f_1, ..., f_W, every waiting job in
    turn takes the smallest f and adds its seconds to it; the result is the largest.

    Args:
        running: The seconds that the running jobs have left.
        waiting: The seconds that the waiting ones will take, in their order.
        workers: W, how many jobs run at once, at least 1 and at least those that are running.
    """
    free = [*running, *([0.0] * (max(workers, 1) - len(running)))]
    heapq.heapify(free)
    for seconds in waiting:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def about(seconds: float) -> str:
    """A time that is left, no more exact than it is known."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than 1 min left"
    if minutes < 100:
        return f"about {minutes} min left"
    hours = round(seconds / 3600)
    return f"about {hours} h left" if hours < 72 else f"about {round(seconds / 86400)} days left"
