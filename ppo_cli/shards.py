"""The shards of a run that this process has, and what all shards tell."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppo_cli.agent import PPOAgent
from ppo_cli.collective import ALONE, Collective
from ppo_cli.collector import Collector
from ppo_cli.envs.snapshot import Lost
from ppo_cli.episodes import Ended
from ppo_cli.rollout import Batch
from ppo_cli.seeding import restore_generators, saved_generators


class Told(NamedTuple):
    """What all environments of a run told in an iteration, environment by environment.

    Attributes:
        ended: The episodes that ended.
        infos: The numbers of their infos.
        faults: The number of faults that environments recovered from, since the run began.
        cut: The number of episodes that resuming cut, since the run began.
    """

    ended: Ended = Ended()
    infos: Sequence[Mapping[str, float]] = ()
    faults: int = 0
    cut: int = 0


@dataclass
class Shards:
    """The equal parts into which a run's environments are cut, as one of its processes has them.

    A shard has environments, a rollout and generators of its own, so that what it collects does not depend on
    who does it. A run of one shard is a run that isn't cut.

    Attributes:
        collectors: Those of this process's shards, in their order.
        collective: The processes of the run.
        generators: What is entered around all that a collector does: the global generators of its own, from
            which some environments draw.
        valid: Whether a row is a transition, of all shards in their order, bool [T, n] each.
        told: What all environments told in the last iteration.
    """

    collectors: Sequence[Collector]
    collective: Collective = ALONE
    generators: Sequence[AbstractContextManager[None]] = (nullcontext(),)
    valid: Sequence[Tensor] = ()
    told: Told = field(default_factory=Told)

    @property
    def first(self) -> int:
        """The number of the first shard of this process."""
        return self.collective.rank * len(self.collectors)

    @property
    def total(self) -> int:
        """The number of shards of the run."""
        return self.collective.processes * len(self.collectors)

    @property
    def n_envs(self) -> int:
        """The number of environments of the run."""
        return self.total * self.collectors[0].rollout.n_envs

    @property
    def steps(self) -> int:
        """The number of transitions of the last iteration."""
        return sum(int(each.sum()) for each in self.valid)

    def reset(self, seeds: Sequence[int]) -> None:
        """Starts the first episode of each environment with its seed, of all the run's environments."""
        for collector, generators, own in zip(
            self.collectors, self.generators, self._own(seeds), strict=True
        ):
            with generators:
                collector.reset(own)

    def collect(self, agent: PPOAgent) -> None:
        """Fills the rollouts of this process's shards one after the other, by the same statistics.

        What waits to be merged into them is merged then, in the order of the shards.
        """
        for collector, generators in zip(self.collectors, self.generators, strict=True):
            with generators:
                collector.collect(agent)
        self.valid = self.collective.gather([each.rollout.valid.cpu() for each in self.collectors])
        if self.total > 1 and self.collectors[0].normalizers:
            self._merge_statistics()

    def _merge_statistics(self) -> None:
        seen = [[each.seen.state_dict() for each in own.normalizers] for own in self.collectors]
        everyones = self.collective.gather_plain(seen)
        for collector in self.collectors:
            for number, normalizer in enumerate(collector.normalizers):
                for states in everyones:
                    normalizer.seen.load_state_dict(dict(states[number]))
                    normalizer.statistics.merge(normalizer.seen)
                normalizer.seen.forget()

    def compute_gae(self, agent: PPOAgent) -> list[Batch]:
        """What the update learns from, of each shard of this process."""
        return [agent.compute_gae(each.rollout) for each in self.collectors]

    def listen(self) -> None:
        """Takes what all environments told since the last call into ``told``."""
        own: list[dict[str, Any]] = [
            {
                "ended": each.episodes.take()._asdict(),
                "infos": each.envs.take_infos(),
                "faults": each.envs.faults,
                "cut": each.episodes.cut,
            }
            for each in self.collectors
        ]
        everyones = self.collective.gather_plain(own)
        returns, lengths = (
            [number for each in everyones for number in each["ended"][name]] for name in Ended._fields
        )
        infos = [numbers for each in everyones for numbers in each["infos"]]
        faults, cut = (sum(each[name] for each in everyones) for name in ("faults", "cut"))
        self.told = Told(Ended(returns, lengths), infos, faults, cut)

    def state_dict(self) -> dict[str, Any]:
        """That of one collector that has all the environments of the run, with generators for each shard."""
        own = []
        for collector, generators in zip(self.collectors, self.generators, strict=True):
            with generators:
                own.append({**collector.state_dict(), "generators": saved_generators()})
        state: dict[str, Any] = joined(self.collective.gather_plain(own))
        return state

    def load_state_dict(self, state: Mapping[str, Any], seeds: Sequence[int]) -> list[Lost]:
        """Goes on where `state_dict` was taken, on any number of processes.

        Args:
            state: The state that `state_dict` gave.
            seeds: The seed of each environment's new episode, if it begins one.

        Returns:
            The environments of the run that did not come back.
        """
        shares = split({key: state[key] for key in STATE if key in state}, self.total)[self.first :]
        lost: list[list[tuple[int, str]]] = []
        each = zip(self.collectors, self.generators, shares, self._own(seeds), strict=False)
        for number, (collector, generators, share, own) in enumerate(each, self.first):
            with generators:
                found = collector.load_state_dict(share, own)
                restore_generators(share["generators"])
            lost.append([(number * collector.rollout.n_envs + env, why) for env, why in found])
        return [Lost(*each) for some in self.collective.gather_plain(lost) for each in some]

    def _own(self, seeds: Sequence[int]) -> list[list[int]]:
        """The part of each shard of this process."""
        n = len(seeds) // self.total
        firsts = range(self.first * n, (self.first + len(self.collectors)) * n, n)
        return [list(seeds[first : first + n]) for first in firsts]


STATE = (  # what a collector keeps
    "action_generator", "observations", "memory", "episodes", "environments", "observation_statistics",
    "reward_statistics", "discounted_returns", "generators",
)  # fmt: skip
COMMON = ("observation_statistics", "reward_statistics", "kind")  # what all shards have the same of


def joined(states: Sequence[Any]) -> Any:  # noqa: ANN401
    """One state of several collectors', whose environments it has in their order; numbers are counts."""
    first = states[0]
    if isinstance(first, dict):
        return {
            key: value if key in COMMON else joined([each[key] for each in states])
            for key, value in first.items()
        }
    if isinstance(first, list):
        return [item for each in states for item in each]
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    if isinstance(first, np.ndarray):
        return np.concatenate(states)
    return sum(states) if isinstance(first, int) else first


def split(state: Any, n: int) -> list[Any]:  # noqa: ANN401
    """The states that `joined` made one of; a count is the first one's."""
    if isinstance(state, Mapping):
        parts = {key: [value] * n if key in COMMON else split(value, n) for key, value in state.items()}
        return [{key: values[i] for key, values in parts.items()} for i in range(n)]
    if isinstance(state, Tensor):  # copies: PyTorch's generators take no views
        return [part.clone() for part in state.chunk(n)] if len(state) else [state] * n
    if isinstance(state, (list, np.ndarray)):
        size = len(state) // n
        return [state[i * size : (i + 1) * size] for i in range(n)]
    return [state, *[0 if isinstance(state, int) else state] * (n - 1)]
