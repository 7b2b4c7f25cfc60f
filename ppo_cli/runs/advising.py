"""A hook of a run's own: a line where a run goes wrong in a known way, once for each, with what to turn.

What it goes by is logged anyway. The bounds lie far outside of what runs that learn show
(docs/metrics.md#advice), and what is said changes nothing.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ppo_cli.diagnostics.behaviour import clipped_actions, is_continuous
from ppo_cli.hooks import Hook, RunState
from ppo_cli.text import short

logger = logging.getLogger(__name__)

FIRST = 10  # iterations, with ended episodes where it is of returns, that later ones are held against
KNOWN = 30  # iterations with ended episodes, from which on the mean of the last returns is one
LASTING = 10  # iterations in a row in which a sign has to be seen, but for those that look far back
NO_ENTROPY = 0.01  # of the first iteration's, of choices
NO_WIDTH = 5.0  # nats of each component of Box actions below the first iteration's: σ is less than 1 % of it
LARGE_KL, OFTEN = 1.0, 3  # nats, where updates that go well have 0.02; iterations in a row
EXPLODED = 1e4  # times the value loss of the first iterations
ALL_CLIPPED = 0.98
LONG_EPISODE = 30_000  # steps of each environment; the longest of Atari's games are 27,000
FLAT_ITERATIONS = 50  # with ended episodes, and half of the budget, before a return counts as flat
UPPER = 0.75  # of the way from the lowest return to the highest
SAME = 1e-3  # of a return: less is no change; a fifth of the budget is enough to tell then


@dataclass
class Past:
    """What is kept of the iterations so far, as a checkpoint holds it.

    Attributes:
        said: The kinds of signs that have been told of.
        seen: The number of iterations in a row in which each was seen, by kind.
        iterations: The number of iterations.
        entropy: The policy's entropy in the first iteration.
        value_loss: The mean value loss of the first iterations.
        returns: The number of iterations in which an episode ended.
        first_return: The mean return of the first of these.
        first_square: The mean squared distance of theirs from it.
        recent_return: The mean return of the last of these, exponentially weighted.
        best_return: The highest of these means, since the first.
        lowest: The lowest return of an iteration.
        highest: The highest.
        ended: The steps at the end of the last iteration in which an episode ended.
    """

    said: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    iterations: int = 0
    entropy: float = 0.0
    value_loss: float = 0.0
    returns: int = 0
    first_return: float = 0.0
    first_square: float = 0.0
    recent_return: float = 0.0
    best_return: float = -math.inf
    lowest: float = math.inf
    highest: float = -math.inf
    ended: int = 0

    def take_in(self, scalars: Mapping[str, float], steps: int) -> None:
        """Adds an iteration.

        Args:
            scalars: What it logs.
            steps: The environment steps at its end.
        """
        if not self.iterations:
            self.entropy = scalars["losses/entropy"]
        self.iterations += 1
        if self.iterations <= FIRST:
            self.value_loss += (scalars["losses/value_loss"] - self.value_loss) / self.iterations
        returned = scalars["charts/episodic_return"]
        if math.isnan(returned):
            return
        self.ended = steps
        self.returns += 1
        self.lowest, self.highest = min(self.lowest, returned), max(self.highest, returned)
        if self.returns <= FIRST:  # Welford's sums, as means
            distance = returned - self.first_return
            self.first_return += distance / self.returns
            square = distance * (returned - self.first_return)
            self.first_square += (square - self.first_square) / self.returns
            self.recent_return = self.first_return
            return
        self.recent_return += (returned - self.recent_return) / FIRST
        self.best_return = max(self.best_return, self.recent_return)

    @property
    def level(self) -> float:
        """The return up to which none is better than at the start: a deviation above the first ones' mean.

        What lies in the upper quarter of all returns is better in any case: a task may be learned at once.
        """
        start = self.first_return + math.sqrt(self.first_square)
        level = min(start, self.lowest + UPPER * (self.highest - self.lowest))
        return level + SAME * abs(level)

    @property
    def is_better(self) -> bool:
        """Whether the last returns are better than the first ones."""
        return self.recent_return > self.level


def with_limit(config: Mapping[str, Any]) -> str:
    """What to type for a time limit, beside the wrappers that there are."""
    limit = "{name: TimeLimit, max_episode_steps: 1000}"
    if config["env"]["wrappers"]:
        return f"add {limit} to the list env.wrappers"
    return f"'env.wrappers=[{limit}]'"


class Now(NamedTuple):
    """An iteration that has ended, with what lies behind it.

    Attributes:
        past: What is kept of the iterations, this one included.
        scalars: What this one logs.
        run: The run.
    """

    past: Past
    scalars: Mapping[str, float]
    run: RunState


def has_no_entropy(now: Now) -> bool:
    """Whether next to nothing is left to chance, and the return is no better than at the start."""
    past, distribution, entropy = now.past, now.run.agent.distribution, now.scalars["losses/entropy"]
    if past.returns < KNOWN or past.is_better:
        return False
    components = [math.prod(part.action_shape) for part in distribution.parts if is_continuous(part)]
    if not components:
        return entropy < NO_ENTROPY * past.entropy
    only_boxes = len(components) == len(distribution.parts)
    return only_boxes and entropy < past.entropy - NO_WIDTH * sum(components)


def has_exploding_values(now: Now) -> bool:
    """Whether the values' error is far beyond the first ones', and no better return accounts for it."""
    past, loss = now.past, now.scalars["losses/value_loss"]
    return past.iterations > FIRST and loss > EXPLODED * past.value_loss > 0 and not past.is_better


def has_large_kl(now: Now) -> bool:
    """Whether updates lead far away from the policy that collected the rollout."""
    return now.scalars["losses/approx_kl"] > LARGE_KL


def clips_all(now: Now) -> bool:
    """Whether nearly every Box action lies outside the bounds."""
    actions = now.run.collector.rollout.actions.flatten(0, 1)
    return clipped_actions(now.run.agent.distribution, actions) >= ALL_CLIPPED


def ends_no_episode(now: Now) -> bool:
    """Whether no episode has ended for longer than games are."""
    return now.run.steps - now.past.ended >= LONG_EPISODE * now.run.shards.n_envs


def is_flat(now: Now) -> bool:
    """Whether the return is no better than at the start, or even the same, all along."""
    past, progress = now.past, now.run.steps / now.run.total_timesteps
    if past.returns < FLAT_ITERATIONS:
        return False
    size = max(abs(past.lowest), abs(past.highest))
    is_same = past.highest - past.lowest <= SAME * size
    return (is_same and progress >= 0.2) or (past.best_return <= past.level and progress >= 0.5)


class Sign(NamedTuple):
    """What tells that a run goes wrong.

    Attributes:
        holds: Whether it is seen in an iteration.
        lasting: The number of iterations in a row before it is told of.
        line: What is said then.
    """

    holds: Callable[[Now], bool]
    lasting: int
    line: Callable[[Now], str]


SIGNS = {
    "entropy": Sign(
        has_no_entropy,
        LASTING,
        lambda now: (
            f"the policy leaves next to nothing to chance (entropy {short(now.scalars['losses/entropy'])}, "
            f"at first {short(now.past.entropy)}), and the return is no better than at the start; "
            "raise ent_coef, or lower learning_rate"
        ),
    ),
    "values": Sign(
        has_exploding_values,
        LASTING,
        lambda now: (
            f"the values' error explodes (value_loss {short(now.scalars['losses/value_loss'])}, at first "
            f"{short(now.past.value_loss)}); lower learning_rate or vf_coef, or set normalize.values=true or "
            "normalize.rewards=true"
        ),
    ),
    "kl": Sign(
        has_large_kl,
        OFTEN,
        lambda now: (
            f"each update leads far from the policy that it began with (approx_kl "
            f"{short(now.scalars['losses/approx_kl'])}); lower learning_rate or n_epochs, or set "
            "target_kl=0.02"
        ),
    ),
    "clipped": Sign(
        clips_all,
        LASTING,
        lambda now: (
            "nearly every action lies outside the bounds and is clipped; set squash_actions=true, lower "
            "network.log_std_init or learning_rate, or scale the observations (normalize.observations=true)"
        ),
    ),
    "episodes": Sign(
        ends_no_episode,
        1,
        lambda now: (
            f"no episode has ended for {LONG_EPISODE:,} steps of each environment, so there is no return to "
            f"go by; a time limit ends them: {with_limit(now.run.config)}"
        ),
    ),
    "flat": Sign(
        is_flat,
        1,
        lambda now: (
            f"the return is no better than at the start (now {short(now.past.recent_return)}, at first "
            f"{short(now.past.first_return)}); explore more (ent_coef, use_sde, intrinsic=rnd), look whether "
            "the reward tells good actions from bad ones, and see docs/metrics.md"
        ),
    ),
}


OF_BEGINNINGS = ("entropy", "values", "flat")  # signs that are seen beside a run's first iterations


class Advising(Hook):
    """Says what goes wrong, in a line for each kind of sign, once a run."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self._past = Past()

    def start(self, run: RunState) -> None:
        """Does without what the beginning tells, where weights have learned already.

        Those of an earlier run have, and those of a run that goes on whose beginning was not noted: older
        versions kept nothing of it.
        """
        has_learned = run.iteration > 0 or run.config.get("init_from") is not None
        if has_learned and not self._past.iterations:
            self._past = Past(said=list(OF_BEGINNINGS), ended=run.steps)

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Takes in an iteration, and says what it is a sign of."""
        past = self._past
        past.take_in(scalars, run.steps)
        now = Now(past, scalars, run)
        for kind, sign in SIGNS.items():
            if kind in past.said:
                continue
            past.seen[kind] = past.seen.get(kind, 0) + 1 if sign.holds(now) else 0
            if past.seen[kind] >= sign.lasting:
                past.said.append(kind)
                logger.warning("advice at %s steps: %s", f"{run.steps:,}", sign.line(now))

    def state_dict(self) -> dict[str, Any]:
        """What is kept of the iterations, so that a run that goes on says nothing twice."""
        return asdict(self._past)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with that; what no iteration could have left raises an error."""
        lists = ("said", "seen")
        numbers = {name: type(at)(state[name]) for name, at in asdict(Past()).items() if name not in lists}
        said = [kind for kind in state["said"] if kind in SIGNS]
        seen = {kind: int(count) for kind, count in state["seen"].items() if kind in SIGNS}
        self._past = Past(said, seen, **numbers)
