"""Evaluation: whole episodes of a frozen policy on environments of their own."""

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ppo_cli.envs import calls
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.envs.group import (
    RENEWALS,
    EnvFaultError,
    OnError,
    as_number,
    explain,
    statistics_of,
)
from ppo_cli.envs.infos import MOST_LOGGED, NOTHING, Tally, Wanted, mean_over
from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.one_of import OneOf
from ppo_cli.envs.pack import ObservationCheck
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import EnvError
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs.rounds import play_rounds
from ppo_cli.seeding import (
    derived_seed,
    global_states,
    seed_global_generators,
    set_global_states,
    spawn_seeds,
    stream_generator,
)
from ppo_cli.statistics import bootstrap_interval

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

MAX_SLOTS = 16  # environments stepped side by side, one batch of the network


def summarize(evaluation: Evaluation, steps: int, deterministic: bool, seed: int) -> dict[str, Any]:
    """What `eval.json` holds.

    Args:
        evaluation: The evaluation of the policy.
        steps: The environment steps that the policy was trained for.
        deterministic: How the evaluation was made, as is ``seed``.
        seed: The seed of the evaluation.
    """
    summary = {
        "mean": evaluation.mean,
        "std": evaluation.std,
        "iqm": evaluation.iqm,
        "episodes": len(evaluation.returns),
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
        "steps": steps,
        "deterministic": deterministic,
        "seed": seed,
    }
    return {**summary, "info": evaluation.infos} if evaluation.infos else summary


class Part(NamedTuple):
    """What a part of an evaluation's episodes came to.

    Attributes:
        returns: Their returns.
        lengths: Their lengths.
        infos: What their infos told.
    """

    returns: Sequence[float] = ()
    lengths: Sequence[int] = ()
    infos: Sequence[Mapping[str, float]] = ()


class EvaluationPlan(NamedTuple):
    """Which episodes an evaluation plays, and how.

    Attributes:
        make: The constructor of an evaluation environment.
        episodes: The number of episodes > 0, each with a seed of its own derived from ``seed``.
        seed: The evaluation's own seed.
        deterministic: Whether to take the most probable action rather than a sample.
        max_steps: The length at which an episode is cut, for environments without a time limit.
        on_error: ``restart`` has an episode whose environment fails begin again in a new one, with another
            seed, as often as `RENEWALS` times.
        infos: The keys of ``info`` that are followed.
    """

    make: EnvFn
    episodes: int
    seed: int
    deterministic: bool
    max_steps: int = 27_000
    on_error: OnError = "stop"
    infos: Wanted = NOTHING


def evaluate(
    policy: BatchPolicy,
    plan: EvaluationPlan,
    actions: dict[int, list[Any]] | None = None,
    progress: Callable[[int], None] | None = None,
    parts: int = 1,
) -> Evaluation:
    """Plays the episodes of a plan.

    Args:
        policy: The policy, which acts on raw observations.
        plan: The episodes.
        actions: Lists, by episode, that the actions of those episodes are put into.
        progress: A function that is called with the number of episodes that have ended, when one has.
        parts: The number of parts that are played one after the other, as many as a run has shards.

    Raises:
        EnvFaultError: an environment raised, or gave a NaN or an infinity, from which no mean comes back.
    """
    found: list[Part] = []
    for part in range(parts):
        count = progress and counting_on(progress, sum(len(each.returns) for each in found))
        found.append(evaluate_part(policy, plan, actions, count, (part, parts)))
    return whole(found)


def counting_on(count: Callable[[int], None], before: int, processes: int = 1) -> Callable[[int], None]:
    """Tells how many episodes have ended in all, where each of several processes plays as many.

    Args:
        count: A function that is told.
        before: The number of those that this process has played before.
        processes: The number of processes.
    """
    return lambda ended: count(processes * (before + ended))


def whole(parts: Sequence[Part]) -> Evaluation:
    """The evaluation that was played in parts, in their order."""
    episodes = sum(len(each.returns) for each in parts)
    returns, lengths = [0.0] * episodes, [0] * episodes
    for number, part in enumerate(parts):
        returns[number :: len(parts)], lengths[number :: len(parts)] = part.returns, part.lengths
    infos = mean_over(told for part in parts for told in part.infos)
    return Evaluation(returns, lengths, dict(itertools.islice(infos.items(), MOST_LOGGED)))


def evaluate_part(
    policy: BatchPolicy,
    plan: EvaluationPlan,
    actions: dict[int, list[Any]] | None = None,
    progress: Callable[[int], None] | None = None,
    part: tuple[int, int] = (0, 1),
) -> Part:
    """Plays one of several parts of a plan's episodes.

    The episodes are dealt to slots beforehand, so that short ones are not counted more often than long ones.
    Python's, NumPy's and PyTorch's global generators, from which some environments draw, are seeded
    meanwhile.

    Args:
        policy: The policy, which acts on raw observations.
        plan: The episodes of all parts.
        actions: Lists, by episode, that the actions of those episodes are put into.
        progress: A function that is called with the number of episodes of it that have ended, when one has.
        part: The number k of the part among n, which plays the episodes k, k + n, k + 2n, ...

    Raises:
        EnvFaultError: an environment raised, or gave a NaN or an infinity, from which no mean comes back.
    """
    number, parts = part
    numbers = range(plan.episodes)[number::parts]
    if not numbers:
        return Part()
    seeds = spawn_seeds(plan.seed, "eval", plan.episodes)[number::parts]
    generator = None if plan.deterministic else stream_generator(plan.seed, "action", number)
    record = {n // parts: taken for n, taken in (actions or {}).items() if n % parts == number}
    outside = global_states()
    seed_global_generators(seeds[0])
    players: list[_Player] = []
    try:
        for _ in range(min(len(numbers), MAX_SLOTS)):
            players.append(_Player(plan, seeds, numbers))
            if isinstance(players[0].env.unwrapped, OneOf):
                env = players[0].env
                return Part(*play_rounds(policy, env, seeds, generator, plan.max_steps, plan.infos, progress))
        return _play(policy, players, len(numbers), generator, plan.max_steps, record, progress)
    finally:
        for player in players:
            calls.close(player.env)
        set_global_states(outside)


class _Player:
    """One environment of an evaluation, and the episode that it plays.

    Attributes:
        env: The environment, another one after a fault.
        episode: The number of the episode in the part.
        observation: The last observation, a copy, because environments may reuse the array.
        total: The episode's return so far.
        length: The episode's steps so far.
        tally: The infos of the episode, and those of the episodes before.
    """

    def __init__(self, plan: EvaluationPlan, seeds: Sequence[int], numbers: Sequence[int]) -> None:
        self.env = plan.make()
        self._numbers = numbers
        self.episode, self.observation, self.total, self.length = 0, np.zeros(0), 0.0, 0
        self._make, self._seeds, self._on_error = plan.make, seeds, plan.on_error
        self.tally, self._follows = Tally(plan.infos), plan.infos != NOTHING
        self._faults = 0  # of the episode
        self._check, self._dtype = (
            ObservationCheck(self.env.observation_space),
            self.env.observation_space.dtype,
        )

    @property
    def returned(self) -> float:
        """The episode's return so far, as training has it: what `RecordEpisodeStatistics` sees, if any."""
        statistics = statistics_of(self.env)
        return self.total if statistics is None else float(statistics.episode_returns)

    def begin(self, episode: int) -> None:
        """Starts an episode."""
        self.episode, self._faults = episode, 0
        self._reset()

    def step(self, action: Any) -> bool | None:  # noqa: ANN401
        """Whether the episode is over; None where it had to begin again."""
        self.length += 1
        try:
            with calling(Call.STEP):
                obs, given, terminated, truncated, info = self.env.step(action)
            reward = as_number(given)
            if not math.isfinite(reward):
                raise ValueError("a NaN or an infinity as reward")
            self.observation = self._checked(obs)
            self.total += reward
            if self._follows and isinstance(info, dict):
                self.tally.add(info, self.length)
            return bool(terminated or truncated)
        except BaseException as error:
            self.begin_again(error)
            return None

    def begin_again(self, error: BaseException) -> None:
        """Starts the episode again in a new environment, where that is wanted and has not failed too often.

        Raises:
            EnvFaultError: it is not, or has.
        """
        let_interrupt_pass(error)
        episode = self._numbers[self.episode]
        what = f"an environment {explain(error)} in evaluation episode {episode}, step {self.length}"
        self._faults += 1
        if self._on_error == "stop":
            raise EnvFaultError(what) from error
        if self._faults > RENEWALS:
            raise EnvFaultError(f"{what}, which began {RENEWALS} times again") from error
        logger.warning("%s; it begins again", what)
        calls.close(self.env)
        try:
            self.env = self._make()
        except EnvError as again:
            self.begin_again(again)
        else:
            self._reset()

    def _reset(self) -> None:
        self.total, self.length = 0.0, 0
        self.tally.forget(0)
        seed = self._seeds[self.episode]
        if self._faults:
            seed = derived_seed(seed, self._faults)
        try:
            with calling(Call.RESET):
                obs, _ = self.env.reset(seed=seed)
            self.observation = self._checked(obs)
        except BaseException as error:
            self.begin_again(error)

    def _checked(self, obs: Any) -> Array:  # noqa: ANN401
        """A copy of an observation, as training sees it whatever an environment returns."""
        return np.array(self._check(obs), self._dtype)


def _play(
    policy: BatchPolicy,
    players: list[_Player],
    episodes: int,
    generator: torch.Generator | None,
    max_steps: int,
    record: dict[int, list[Any]],
    progress: Callable[[int], None] | None,
) -> Part:
    returns = [0.0] * episodes
    lengths = [0] * episodes
    for slot, player in enumerate(players):  # slot i plays the episodes i, i + S, i + 2S, ...
        player.begin(slot)
    states = policy.initial_state.repeat(len(players), 1)  # the memory's, [S] -> [slots, S]
    running = torch.arange(len(players))  # slots that still play
    while len(running):
        batch = [player for player in players if player.episode < episodes]
        observations = np.asarray([player.observation for player in batch])
        finite = np.isfinite(observations)
        if finite.all():
            stored, states[running] = policy.act(observations, generator, states[running])
            actions = policy.distribution.to_env(stored)
            new = [
                _advance(player, action, max_steps, returns, lengths, len(players), record)
                for player, action in zip(batch, actions, strict=True)
            ]
        else:
            new = [not each for each in finite.reshape(len(batch), -1).all(1)]
            for player in itertools.compress(batch, new):
                player.begin_again(ValueError("a NaN or an infinity as observation"))
        if any(new):
            states[running[new]] = policy.initial_state
            running = torch.tensor([i for i, player in enumerate(players) if player.episode < episodes])
            if progress is not None:
                progress(sum(map(bool, lengths)))
    return Part(returns, lengths, [told for player in players for told in player.tally.ended])


def _advance(
    player: _Player,
    action: Any,  # noqa: ANN401
    max_steps: int,
    returns: list[float],
    lengths: list[int],
    stride: int,
    record: dict[int, list[Any]],
) -> bool:
    """Takes a step, notes an episode that is over and starts the next; whether a new one began."""
    if player.episode in record:
        record[player.episode][player.length :] = [action]  # without those from before it began again
    over = player.step(action)
    if over is None:
        return True
    if not (over or player.length >= max_steps):
        return False
    returns[player.episode], lengths[player.episode] = player.returned, player.length
    player.tally.end(player.length)
    if player.episode + stride < len(returns):
        player.begin(player.episode + stride)
    else:
        player.episode = len(returns)
    return True


def mean_interval(returns: Sequence[float], seed: int) -> tuple[float, float] | None:
    """The bootstrap's 95 % interval of the mean return; None for a single episode.

    Args:
        returns: The returns of the episodes.
        seed: The seed of the resampling.

    Raises:
        ModuleNotFoundError: SciPy is not installed.
    """
    if len(returns) < 2:
        return None
    low, high = bootstrap_interval([returns], np.mean, seed, batch=1000)
    return float(low), float(high)
