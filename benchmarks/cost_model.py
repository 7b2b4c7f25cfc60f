"""What an iteration takes on P processes: a model of a few numbers that one or two processes tell.

A part of a minibatch is computed in (call + row · rows) seconds, the step that follows from all parts in
``step``; what every process does for each shard, such as drawing its rows, takes ``shard``. To exchange V
numbers of each of S shards takes a process

    (P - 1) latency + 4 V (S - S/P) / bandwidth                   all vectors, or
    2 (P - 1) latency + 4 V (S/P + 1) (P - 1)/P / bandwidth       slices of them, and slices of the sum

whichever `ppo_cli.runs.group` takes. A minibatch of B rows then takes

    t(P) = S/P (call + row B/S) + step + S shard + exchange(P)

and an iteration of M minibatches, whose rollout one process collects in C seconds,

    T(P) = C/P + M t(P) + 8 (P - 1) latency
"""

from typing import NamedTuple

from ppo_cli.runs.group import SPARED

BYTES = 4  # of a number
COLLECTIVES = 8  # of an iteration beside those of its minibatches, all of them small


class Wire(NamedTuple):
    """What processes are connected by.

    Attributes:
        latency: The seconds that a collective takes for each process beyond the first.
        bandwidth: The bytes a second that a process takes in.
    """

    latency: float
    bandwidth: float

    def seconds(self, collectives: int, taken: float, processes: int) -> float:
        """Of collectives in which each process takes in so many numbers."""
        return collectives * (processes - 1) * self.latency + BYTES * taken / self.bandwidth


class Update(NamedTuple):
    """What one process computes.

    Attributes:
        numbers: The length V of what is exchanged: the gradient and the metrics.
        call: The seconds of a part of a minibatch, whatever its rows.
        row: The seconds of each of its rows.
        step: The seconds of the step that follows: clipping, and the optimizer's.
        shard: The seconds that each process takes for each shard of the run, whoever has it.
    """

    numbers: int
    call: float
    row: float
    step: float
    shard: float


class Loop(NamedTuple):
    """An iteration.

    Attributes:
        steps: The environment steps of its rollout.
        collect: The seconds in which one process collects it.
        minibatches: The minibatches of all epochs.
        batch_size: The rows of each.
    """

    steps: int
    collect: float
    minibatches: int
    batch_size: int

    def grown(self, times: int) -> "Loop":
        """One with so many times the environments, and minibatches as much larger."""
        return Loop(times * self.steps, times * self.collect, self.minibatches, times * self.batch_size)


def exchange(wire: Wire, numbers: int, shards: int, processes: int) -> float:
    """Seconds in which all get the sum of a vector of each shard."""
    own = shards / processes
    gathered = numbers * (shards - own)
    sliced = numbers * (own + 1) * (processes - 1) / processes
    if BYTES * (gathered - sliced) < SPARED:
        return wire.seconds(1, gathered, processes)
    return wire.seconds(2, sliced, processes)


def minibatch(update: Update, wire: Wire, rows: int, shards: int, processes: int) -> float:
    """Seconds of a minibatch."""
    parts = shards / processes * (update.call + update.row * rows / shards)
    return parts + update.step + shards * update.shard + exchange(wire, update.numbers, shards, processes)


def iteration(loop: Loop, update: Update, wire: Wire, shards: int, processes: int) -> float:
    """Seconds of an iteration."""
    each = minibatch(update, wire, loop.batch_size, shards, processes)
    others = wire.seconds(COLLECTIVES, 0, processes)
    return loop.collect / processes + loop.minibatches * each + others


def speed_up(loop: Loop, update: Update, wire: Wire, processes: int) -> float:
    """How many times as fast as one process that many are, with a shard each."""
    alone = iteration(loop, update, wire, 1, 1)
    return alone / iteration(loop, update, wire, processes, processes)


def efficiency(loop: Loop, update: Update, wire: Wire, processes: int) -> float:
    """The share of a process's speed that is left where each has as much to do as one has alone."""
    alone = iteration(loop, update, wire, 1, 1)
    return alone / iteration(loop.grown(processes), update, wire, processes, processes)
