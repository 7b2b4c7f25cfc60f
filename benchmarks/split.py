"""Where the time of a training run goes, and how close it comes to the bare environments' speed.

    python benchmarks/split.py env=CartPole-v1
    python benchmarks/split.py env=LunarLander-v3 total_timesteps=2e5 --repeats 3 --json split.json

Trains in this process with ``vectorization=sync``, timers around its parts, then replays the same actions
with the same seeds through environments that nothing else stands around. The first iteration, which compiles
or loads the update, is left out of every figure.
"""

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ppo_cli.config.compose import load
from ppo_cli.config.schema import Config
from ppo_cli.envs.vector import SyncVector
from ppo_cli.hooks import Hook, RunState
from ppo_cli.runs.build import check_environment, env_maker
from ppo_cli.runs.caller import Caller
from ppo_cli.runs.run import run
from ppo_cli.seeding import spawn_seeds

VectorFn = Callable[[list[Callable[[], "gym.Env[Any, Any]"]]], "gym.vector.VectorEnv[Any, Any, Any]"]

BARE: dict[str, VectorFn] = {
    "SyncVector": SyncVector,
    "Gymnasium's SyncVectorEnv": partial(SyncVectorEnv, autoreset_mode=AutoresetMode.SAME_STEP),
}
OUTSIDE = ("advantages", "update", "logging")  # parts of an iteration that are not parts of a step


@dataclass
class Tape:
    """What a training run sent to its environments, and its times in seconds after the first iteration."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    actions: list[npt.NDArray[Any]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)  # of the environments
    rewards: float | npt.NDArray[np.float64] = 0.0  # sum of each environment
    ends: list[float] = field(default_factory=list)  # when each iteration ended
    skipped: int = 0  # vector steps of the first iteration
    told: float = 0.0  # when the last iteration was told of


def timed(tape: Tape, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that adds what it takes to the seconds of a part."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        tape.seconds[part] += time.perf_counter() - started
        return result

    return wrapper


def recorded_step(tape: Tape, step: Callable[..., Any]) -> Callable[..., Any]:
    """A vector environment's step that is timed, and keeps actions and rewards."""

    def recorded(actions: npt.NDArray[Any]) -> Any:
        started = time.perf_counter()
        result = step(actions)
        stepped = time.perf_counter()
        tape.actions.append(actions.copy())
        tape.rewards = tape.rewards + result[1]
        tape.seconds["environment"] += stepped - started
        tape.seconds["recording"] += time.perf_counter() - stepped  # ours, not the run's
        return result

    return recorded


class Timers(Hook):
    """Puts timers around the parts of a run; told before all others."""

    def __init__(self, tape: Tape) -> None:
        """Notes what it finds on a tape."""
        self._tape = tape

    def start(self, run: RunState) -> None:
        """Puts them around the objects of this run."""
        tape, envs = self._tape, run.collector.envs
        tape.seeds = spawn_seeds(run.config["seed"], "env", envs.num_envs)
        envs.step = recorded_step(tape, envs.step)  # type: ignore[method-assign]
        for part, method in (("acting", "act"), ("advantages", "compute_gae"), ("update", "update")):
            setattr(run.agent, method, timed(tape, part, getattr(run.agent, method)))

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Adds what collecting took."""
        self._tape.seconds["collect"] += scalars["time/collect"]
        self._tape.told = time.perf_counter()


class Ends(Hook):
    """Notes when an iteration ends; told after all others. The first one's times are dropped."""

    def __init__(self, tape: Tape) -> None:
        """Notes it on a tape."""
        self._tape = tape

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Adds what the other hooks took, and notes the time."""
        tape = self._tape
        tape.ends.append(time.perf_counter())
        tape.seconds["logging"] += tape.ends[-1] - tape.told
        if len(tape.ends) == 1:
            tape.seconds.clear()
            tape.skipped = len(tape.actions)


def train(config: Config) -> Tape:
    """A whole training run under timers."""
    tape = Tape()
    with tempfile.TemporaryDirectory() as folder:
        run(config, Path(folder), caller=Caller(hooks=[Timers(tape)], own_hooks=[Ends(tape)]))
    return tape


def replay(make_vector: VectorFn, config: Config, tape: Tape) -> float:
    """Environment steps a second of the recorded actions, with nothing but the environments.

    Raises:
        RuntimeError: the rewards are not those of the training run.
    """
    random.seed(config.seed)  # as `run` does, for environments that draw from the global generators
    np.random.seed(config.seed)
    makes = [env_maker(config.env, training=True)] * config.n_envs
    rewards = np.zeros(config.n_envs)
    envs = make_vector(makes)
    envs.reset(seed=tape.seeds)
    for actions in tape.actions[: tape.skipped]:
        rewards += envs.step(actions)[1]
    started = time.perf_counter()
    for actions in tape.actions[tape.skipped :]:
        rewards += envs.step(actions)[1]
    seconds = time.perf_counter() - started
    if not np.array_equal(rewards, tape.rewards):
        raise RuntimeError(
            f"{config.env.id}: the replayed rewards add up to {rewards.sum()}, the run's to "
            f"{np.sum(tape.rewards)}: the environment draws from more than its seed"
        )
    return (len(tape.actions) - tape.skipped) * config.n_envs / seconds


def measure(config: Config) -> dict[str, Any]:
    """Seconds of each part after the first iteration, and the speeds with and without training."""
    tape = train(config)
    if len(tape.ends) < 2:
        raise SystemExit("the first iteration is left out: total_timesteps must allow for a second one")
    recording, collect = tape.seconds["recording"], tape.seconds["collect"]
    loop = tape.ends[-1] - tape.ends[0] - recording
    seconds = {part: tape.seconds[part] for part in ("environment", "acting")}
    # everything else in collecting: noise, statistics, normalisation, storing (and about 1 µs of timers)
    seconds["buffers"] = collect - recording - sum(seconds.values())
    seconds |= {part: tape.seconds[part] for part in OUTSIDE}
    # schedules, and what is gathered to be logged
    seconds["rest"] = loop - sum(seconds.values())
    vector_steps = len(tape.actions) - tape.skipped
    return {
        "env": config.env.id,
        "n_envs": config.n_envs,
        "iterations": len(tape.ends) - 1,
        "vector_steps": vector_steps,
        "seconds": seconds,
        "steady": vector_steps * config.n_envs / loop,
        "bare": {name: replay(make_vector, config, tape) for name, make_vector in BARE.items()},
    }


def report(figures: dict[str, Any]) -> None:
    """Prints the parts, per step or per iteration, and the share of the bare environments' speed."""
    seconds, steady = figures["seconds"], figures["steady"]
    print(f"{figures['env']}: where our time goes (sync, without the first iteration)")
    for part, taken in seconds.items():
        if part in (*OUTSIDE, "rest"):
            cost = f"{1e3 * taken / figures['iterations']:9.2f} ms an iteration"
        else:
            cost = f"{1e6 * taken / figures['vector_steps']:9.1f} µs a vector step"
        print(f"  {part:11} {cost:26} {100 * taken / sum(seconds.values()):5.1f} %")
    print(f"  training, {figures['n_envs']} environments: {steady:,.0f} steps/s")
    for name, rate in figures["bare"].items():
        part = share(figures, name)
        print(f"  that is {part:.2f} of the same actions through a bare {name}: {rate:,.0f} steps/s")


def share(figures: dict[str, Any], name: str = "SyncVector") -> float:
    """Training's speed over that of bare environments."""
    ratio: float = figures["steady"] / figures["bare"][name]
    return ratio


def checked_config(overrides: list[str]) -> Config:
    """The config that a command line stands for, in one process, with the id that runs."""
    return check_environment(load(*overrides, "vectorization=sync", "eval.episodes=0")).config


def main() -> None:
    """Reads the command line, measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="as ppo-train takes them")
    parser.add_argument("--repeats", type=int, default=1, help="runs; the one of the median share is shown")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    config = checked_config(args.overrides)
    runs = sorted((measure(config) for _ in range(args.repeats)), key=share)
    figures = runs[len(runs) // 2]
    report(figures)
    for name in BARE:
        shares = sorted(share(each, name) for each in runs)
        print(f"  share of a bare {name} in {len(runs)} runs: {shares[0]:.3f} to {shares[-1]:.3f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
