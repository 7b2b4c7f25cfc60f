"""Numbers in the infos of environments that are stepped at once, as `ppo_cli.envs.infos` has those of one.

A vector's infos hold an array a key, [N], and may hold another, ``_key``, that says which environments told
it (Gymnasium's `VectorEnv`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ppo_cli.arrays import as_array
from ppo_cli.envs.calls import let_interrupt_pass
from ppo_cli.envs.infos import DEEPEST, LARGEST, LARGEST_SUM, MOST_FOLLOWED, How, Wanted, is_wanted, plain_key

Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class BatchSeries:
    """The numbers that one key had in the running episodes of N environments; see `infos.Series`."""

    def __init__(self, n: int, is_state: bool) -> None:
        self.total, self.last = np.zeros((2, n))
        self.count, self.seen, self.at = np.zeros((3, n), np.int64)
        self.is_state = is_state

    def add(self, numbers: FloatArray, told: Mask, steps: npt.NDArray[np.int64]) -> None:
        """Takes in a step: numbers [N], which environments told one, and the number of each one's step."""
        counts = told & (np.abs(numbers) <= LARGEST)  # which a NaN is not
        self.total += np.where(counts, numbers, 0.0)
        self.count += counts
        self.seen += told
        self.last[counts], self.at[counts] = numbers[counts], steps[counts]

    def reduced(self, how: How, steps: npt.NDArray[np.int64], rows: npt.NDArray[np.intp]) -> FloatArray:
        """One number for each episode that ended, of environments ``rows``; NaN where there is none."""
        means = self.total[rows] / np.maximum(self.count[rows], 1)
        values = {"mean": means, "sum": self.total[rows], "last": self.last[rows]}.get(how)
        if values is None:
            throughout = (self.seen[rows] == steps[rows]) & (not self.is_state)
            values = np.where(throughout, means, self.last[rows])
        return np.where((self.count[rows] > 0) & (np.abs(values) <= LARGEST_SUM), values, np.nan)

    def forget(self, rows: npt.NDArray[np.intp]) -> None:
        """Drops the running episodes of some environments."""
        for column in (self.total, self.last, self.count, self.seen, self.at):
            column[rows] = 0


class BatchTally:
    """The infos of N environments: those of the running episodes, and the numbers of those that ended.

    Attributes:
        ended: The numbers of each episode that ended, by key.
    """

    def __init__(self, wanted: Wanted, n: int) -> None:
        """Follows the keys that are wanted."""
        self.ended: list[dict[str, float]] = []
        self._wanted = wanted
        self._n = n
        self._series: dict[str, BatchSeries] = {}
        self._steps = np.zeros(n, np.int64)  # of each running episode

    def begin(self) -> None:
        """Drops all running episodes."""
        self._series.clear()
        self._steps[:] = 0

    def step(self, counts: Mask) -> None:
        """Counts a step of those environments, bool [N]; then `add` takes in what it told."""
        self._steps += counts

    def add(self, infos: Any, rows: Mask) -> None:  # noqa: ANN401 - anybody's
        """Takes in what some environments told, bool [N]."""
        if not (isinstance(infos, dict) and infos):
            return
        try:
            self._add(infos, rows)
        except BaseException as error:  # an array may be of any class
            let_interrupt_pass(error)

    def _add(self, infos: Mapping[Any, Any], rows: Mask) -> None:
        for name, values, told in _told(infos, rows):
            series = self._series.get(name)
            if series is None:
                if len(self._series) >= MOST_FOLLOWED or not is_wanted(name, self._wanted):
                    continue
                is_state = values.dtype.kind == "b" or "success" in name.lower()
                series = self._series[name] = BatchSeries(self._n, is_state)
            series.add(values.astype(np.float64), told, self._steps)

    def end(self, over: Mask, kept: Mask) -> None:
        """Ends the episodes of some environments, bool [N]; the numbers of those kept wait in `ended`."""
        rows = np.flatnonzero(over)
        episodes: list[dict[str, float]] = [{} for _ in rows]
        for name, series in self._series.items():
            how: How = "auto" if self._wanted is None else self._wanted[name]
            values = series.reduced(how, self._steps, rows)
            if self._wanted is None:  # what the last step does not tell is left out
                steps = self._steps[rows]
                values[(series.at[rows] != steps) & (series.seen[rows] != steps)] = np.nan
            for i in np.flatnonzero(~np.isnan(values)).tolist():
                episodes[i].setdefault(plain_key(name), float(values[i]))
            series.forget(rows)
        self.ended += [told for told, is_kept in zip(episodes, kept[rows], strict=True) if told and is_kept]
        self._steps[rows] = 0


def _told(
    infos: Mapping[Any, Any], rows: Mask, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, npt.NDArray[Any], Mask]]:
    """Key, numbers [N] and who told them, bool [N], of what infos hold for some environments."""
    for key, value in infos.items():
        if not isinstance(key, str) or (key[:1] == "_" and key[1:] in infos):
            continue
        told = rows & mask if (mask := mask_of(key, infos, len(rows))) is not None else rows
        if isinstance(value, dict):
            if depth < DEEPEST:
                yield from _told(value, told, f"{prefix}{key}.", depth + 1)
            continue
        if not hasattr(value, "__array__"):
            continue
        values = as_array(value)
        if values.shape == rows.shape and values.dtype.kind in "biuf":
            yield f"{prefix}{key}", values, told


def mask_of(key: str, infos: Mapping[Any, Any], n: int) -> Mask | None:
    """Which environments told a key, bool [N]; None where its infos do not say so."""
    mask = infos.get(f"_{key}")
    if hasattr(mask, "__array__") and (found := as_array(mask)).shape == (n,) and found.dtype == np.bool_:
        return found  # type: ignore[no-any-return]
    return None


def reported_returns(infos: Any, ended: Mask) -> FloatArray | None:  # noqa: ANN401 - anybody's
    """What `RecordEpisodeStatistics` reported in infos of steps in which episodes ended.

    Args:
        infos: The infos.
        ended: The environments whose episode ended, bool [N].

    Returns:
        The returns of those episodes, NaN where none is reported, [N]; None where there are no reports.
    """
    episode = infos.get("episode") if isinstance(infos, dict) else None
    found = episode.get("r") if isinstance(episode, dict) else None
    if not hasattr(found, "__array__"):
        return None
    returns, mask = as_array(found), mask_of("episode", infos, len(ended))
    if returns.shape != ended.shape or returns.dtype.kind not in "iuf":
        return None
    return np.where(ended if mask is None else ended & mask, returns, np.nan)


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
        elif hasattr(value, "__array__") and len(np.shape(value)) and len(value) == n:
            found[key] = value[i]
    return found
