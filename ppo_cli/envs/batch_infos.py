"""Numbers in the infos of environments that are stepped at once, as `ppo_cli.envs.infos` has those of one.

A vector's infos hold an array a key, [N], and may hold another, ``_key``, that says which environments told
it (Gymnasium's `VectorEnv`).
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ppo_cli.arrays import NUMPY, Array, Arrays
from ppo_cli.envs.calls import let_interrupt_pass
from ppo_cli.envs.infos import DEEPEST, LARGEST, LARGEST_SUM, MOST_FOLLOWED, How, Wanted, is_wanted, plain_key
from ppo_cli.spaces import MASK


class BatchSeries:
    """The numbers that one key had in the running episodes of N environments; see `infos.Series`."""

    def __init__(self, n: int, is_state: bool, arrays: Arrays = NUMPY) -> None:
        self._arrays = arrays
        self.total, self.last = arrays.zeros(n), arrays.zeros(n)
        self.count, self.seen, self.at = (arrays.zeros(n, "int64") for _ in range(3))
        self.is_state = is_state

    def add(self, numbers: Array, told: Array, steps: Array) -> None:
        """Takes in a step: numbers [N], which environments told one, and the number of each one's step."""
        where = self._arrays.where
        counts = told & (abs(numbers) <= LARGEST)  # which a NaN is not
        self.total += where(counts, numbers, 0.0)
        self.count += counts
        self.seen += told
        self.last, self.at = where(counts, numbers, self.last), where(counts, steps, self.at)

    def reduced(self, how: How, steps: Array, rows: Any) -> Array:  # noqa: ANN401 - as `Arrays.rows` has it
        """One number for each episode that ended, of environments ``rows``; NaN where there is none."""
        where = self._arrays.where
        means = self.total[rows] / self.count[rows].clip(1)
        values = {"mean": means, "sum": self.total[rows], "last": self.last[rows]}.get(how)
        if values is None:
            throughout = (self.seen[rows] == steps[rows]) & (not self.is_state)
            values = where(throughout, means, self.last[rows])
        return where((self.count[rows] > 0) & (abs(values) <= LARGEST_SUM), values, math.nan)

    def forget(self, over: Array) -> None:
        """Drops the running episodes of some environments, bool [N]."""
        for column in (self.total, self.last, self.count, self.seen, self.at):
            self._arrays.clear(column, over)


class BatchTally:
    """The infos of N environments: those of the running episodes, and the numbers of those that ended."""

    def __init__(self, wanted: Wanted, n: int, arrays: Arrays = NUMPY) -> None:
        """Follows the keys that are wanted."""
        self._wanted, self._n, self._arrays = wanted, n, arrays
        self._waiting: list[tuple[tuple[str, ...], Array]] = []  # numbers of episodes that ended, by key
        self._series: dict[str, BatchSeries] = {}
        self._steps = arrays.zeros(n, "int64")  # of each running episode

    def begin(self) -> None:
        """Drops all running episodes."""
        self._series.clear()
        self._steps[:] = 0

    def step(self, counts: Array) -> None:
        """Counts a step of those environments, bool [N]; then `add` takes in what it told."""
        self._steps += counts

    def add(self, infos: Any, rows: Array) -> None:  # noqa: ANN401 - anybody's
        """Takes in what some environments told, bool [N]."""
        if not (isinstance(infos, dict) and infos):
            return
        try:
            self._add(infos, rows)
        except BaseException as error:  # an array may be of any class
            let_interrupt_pass(error)

    def _add(self, infos: Mapping[Any, Any], rows: Array) -> None:
        for name, values, told in _told(infos, rows, self._arrays):
            series = self._series.get(name)
            if series is None:
                if len(self._series) >= MOST_FOLLOWED or not is_wanted(name, self._wanted):
                    continue
                is_state = self._arrays.kind(values) == "b" or "success" in name.lower()
                series = self._series[name] = BatchSeries(self._n, is_state, self._arrays)
            series.add(self._arrays.cast(values, "float64"), told, self._steps)

    def end(self, over: Array, kept: Array) -> None:
        """Ends the episodes of some environments, bool [N]; `take` gives the numbers of those kept."""
        arrays = self._arrays
        over = arrays.of(over)
        if not self._series:
            arrays.clear(self._steps, over)
            return
        counted = over & arrays.of(kept)
        rows = arrays.rows(counted)
        columns = []
        for name, series in self._series.items():
            how: How = "auto" if self._wanted is None else self._wanted[name]
            values = series.reduced(how, self._steps, rows)
            if self._wanted is None:  # what the last step does not tell is left out
                steps = self._steps[rows]
                is_old = (series.at[rows] != steps) & (series.seen[rows] != steps)
                values = arrays.where(is_old, math.nan, values)
            columns.append(values)
            series.forget(over)
        self._waiting.append((tuple(self._series), arrays.waiting(columns, counted)))
        arrays.clear(self._steps, over)

    def take(self) -> list[dict[str, float]]:
        """The numbers of each episode that ended since the last call, by key."""
        waiting, self._waiting = self._waiting, []
        episodes = []
        for names, group in itertools.groupby(waiting, key=lambda each: each[0]):
            keys = [plain_key(name) for name in names]
            for values in self._arrays.lists([numbers for _, numbers in group]):
                told: dict[str, float] = {}
                for key, value in zip(keys, values, strict=True):
                    if not math.isnan(value):
                        told.setdefault(key, value)
                episodes.append(told)
        return [told for told in episodes if told]


def _told(
    infos: Mapping[Any, Any], rows: Array, arrays: Arrays, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Array, Array]]:
    """Key, numbers [N] and who told them, bool [N], of what infos hold for some environments."""
    n = len(rows)
    for key, value in infos.items():
        if not isinstance(key, str) or (key[:1] == "_" and key[1:] in infos):
            continue
        told = rows & mask if (mask := mask_of(key, infos, n, arrays)) is not None else rows
        if isinstance(value, dict):
            if depth < DEEPEST:
                yield from _told(value, told, arrays, f"{prefix}{key}.", depth + 1)
            continue
        values = arrays.numbers(value, n)
        if values is not None:
            yield f"{prefix}{key}", values, told


def mask_of(key: str, infos: Mapping[Any, Any], n: int, arrays: Arrays = NUMPY) -> Array | None:
    """Which environments told a key, bool [N]; None where its infos do not say so."""
    mask = arrays.numbers(infos.get(f"_{key}"), n)
    return mask if mask is not None and arrays.kind(mask) == "b" else None


def reported_returns(infos: Any, ended: Array, arrays: Arrays = NUMPY) -> Array | None:  # noqa: ANN401
    """What `RecordEpisodeStatistics` reported in infos of steps in which episodes ended.

    Args:
        infos: The infos, anybody's.
        ended: The environments whose episode ended, bool [N].
        arrays: What is done with arrays of their kind.

    Returns:
        The returns of those episodes, NaN where none is reported, [N]; None where there are no reports.
    """
    episode = infos.get("episode") if isinstance(infos, dict) else None
    found = episode.get("r") if isinstance(episode, dict) else None
    returns, mask = arrays.numbers(found, len(ended)), mask_of("episode", infos, len(ended), arrays)
    if returns is None or arrays.kind(returns) == "b":
        return None
    return arrays.where(ended if mask is None else ended & mask, arrays.cast(returns, "float64"), math.nan)


def told_of(infos: Any, i: int, n: int) -> dict[str, Any]:  # noqa: ANN401 - anybody's
    """The infos of environment i of N, as a single one has them."""
    if not isinstance(infos, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in infos.items():
        mask = mask_of(key, infos, n) if isinstance(key, str) else None
        if (isinstance(key, str) and key[:1] == "_" and key[1:] in infos) or (
            mask is not None and not mask[i]
        ):
            continue
        if isinstance(value, dict):
            found[key] = told_of(value, i, n)
            continue
        is_array = hasattr(value, "__array__") and len(np.shape(value)) > 0
        if (is_array or (key == MASK and isinstance(value, (tuple, list)))) and len(value) == n:
            found[key] = value[i]
    return found
