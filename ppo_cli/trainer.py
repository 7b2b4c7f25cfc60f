"""The loop: collect → advantages → update → hooks."""

import math
import time
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from ppo_cli import schedules
from ppo_cli.agent import PPOAgent
from ppo_cli.envs.infos import mean_over
from ppo_cli.hooks import RunState
from ppo_cli.shards import Shards

P = ParamSpec("P")
T = TypeVar("T")
SELDOM_ANNEALED = (
    "vf_clip_ratio", "gamma", "gae_lambda", "value_lambda", "max_grad_norm", "target_kl", "intrinsic_gamma",
)  # fmt: skip


def train(run: RunState) -> None:
    """Trains for whole iterations until a run's budget is used up, or a hook stops it.

    Iteration i of I (from 0) has progress i / I for every schedule, and is 1 / I of the run.

    Args:
        run: The state of the run, with an agent to train and a collector that has been reset, or brought back
            to where the run was.

    Raises:
        FloatingPointError: The loss, the gradient or a weight is not finite.
    """
    agent, shards, rollout = run.agent, run.shards, run.collector.rollout
    iterations = schedules.iterations(run.total_timesteps, shards.n_envs, rollout.n_steps)
    while not run.is_over:
        done = min(run.iteration, iterations - 1)  # filler rows can make it more than I
        agent.anneal(done / iterations, 1 / iterations)
        _, collect = _timed(shards.collect, agent)
        steps = shards.steps
        if not steps:
            continue
        shards.listen()
        _, told = _timed(run.hooks.after_rollout, run, rollout)  # intrinsic rewards, and what they learn
        batches, estimate = _timed(shards.compute_gae, agent)
        run.hooks.before_update(run, batches[0])
        metrics, update = _timed(agent.update, batches, shards.valid)
        run.iteration, run.steps = run.iteration + 1, run.steps + steps
        loss, norm = metrics["total_loss"], metrics["grad_norm"]
        if not (math.isfinite(loss + norm) and agent.is_finite()):
            raise FloatingPointError(
                f"the loss is {loss} and its gradient's norm {norm} at step {run.steps}; "
                "lower learning_rate, or normalise observations and rewards"
            )
        run.hooks.after_iteration(
            run, _scalars(agent, metrics, shards, (collect, told + estimate + update), steps)
        )


def _timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What a function returns, and the seconds that it took."""
    started = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - started


def _scalars(
    agent: PPOAgent,
    metrics: Mapping[str, float],
    shards: Shards,
    seconds: tuple[float, float],
    steps: int,
) -> dict[str, float]:
    """The value of every tag that an iteration logs, with ``info/<key>`` of the episodes that ended in it."""
    told = shards.told
    episodic_return, episodic_length = told.ended.means()
    collect, update = seconds
    return {
        "charts/episodic_return": episodic_return,
        "charts/episodic_length": episodic_length,
        "charts/SPS": steps / (collect + update),
        **{f"charts/{name}": value for name, value in agent.knobs.items() if _is_charted(agent, name)},
        **{f"losses/{name}": value for name, value in metrics.items()},
        "charts/env_faults": float(told.faults),
        "charts/cut_episodes": float(told.cut),
        "time/collect": collect,
        "time/update": update,
        **{f"info/{key}": value for key, value in mean_over(told.infos).items()},
    }


def _is_charted(agent: PPOAgent, knob: str) -> bool:
    """Whether a number of the update is logged: what few anneal only where it changes."""
    return knob not in SELDOM_ANNEALED or not agent.schedules[knob].is_constant
