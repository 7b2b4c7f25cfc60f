"""What the runners of the peers share: reading the settings, environments, networks, and what is printed."""

import json
import math
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

from peers.peer import lookup

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "gelu": torch.nn.GELU}


class Clock:
    """Time and number of environment steps at the start of every rollout, and at the end."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def note(self, steps: int) -> None:
        self.marks.append((time.perf_counter(), steps))

    def report(self) -> None:
        """Prints the line of JSON: all steps, and steps a second after the first tenth of the rollouts."""
        rollouts = len(self.marks) - 1
        first, before = self.marks[min(math.ceil(rollouts / 10), rollouts - 1)]
        last, after = self.marks[-1]
        print(json.dumps({"steps": after, "steady": (after - before) / (last - first)}))


def read() -> dict[str, Any]:
    """The settings in the file that the command line names; sets one thread and the seeds."""
    config: dict[str, Any] = json.loads(Path(sys.argv[-1]).read_text())
    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])
    np.random.seed(config["seed"])
    return config


def make_env(config: dict[str, Any]) -> gym.Env[Any, Any]:
    """One environment that draws nothing, normalised by Gymnasium's wrappers if the settings say so."""
    env: gym.Env[Any, Any] = gym.make(config["env"]["id"], render_mode=None, **config["env"]["kwargs"])
    if config["normalize"]["observations"]:
        env = NormalizeObservation(env)
    if config["normalize"]["rewards"]:
        env = NormalizeReward(env, gamma=config["gamma"])
    return env


def make_vector(config: dict[str, Any], autoreset: AutoresetMode) -> gym.vector.SyncVectorEnv:
    """Gymnasium's vector of environments in this process; the peer says when they are reset."""
    return gym.vector.SyncVectorEnv([partial(make_env, config)] * config["n_envs"], autoreset_mode=autoreset)


def rows(config: dict[str, Any]) -> int:
    """Environment steps a rollout."""
    return int(config["n_envs"] * config["n_steps"])


def minibatches(config: dict[str, Any]) -> int:
    """Minibatches an epoch."""
    return int(rows(config) // config["batch_size"])


def rollouts(config: dict[str, Any]) -> int:
    """Rollouts in the whole run."""
    return math.ceil(config["total_timesteps"] / rows(config))


def annealed(config: dict[str, Any]) -> bool:
    """Whether the learning rate falls to 0 in a line."""
    return lookup(config, "anneal.learning_rate.final") == 0


def mlp(config: dict[str, Any], inputs: int, outputs: int, gain: float = 1.0) -> torch.nn.Sequential:
    """Our hidden layers and a last linear one, for peers that leave the network to their user."""
    network = config["network"]
    sizes = [inputs, *network["hidden_sizes"]]
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [_linear(before, after, math.sqrt(2), network), ACTIVATIONS[network["activation"]]()]
    return torch.nn.Sequential(*layers, _linear(sizes[-1], outputs, gain, network))


def _linear(inputs: int, outputs: int, gain: float, network: dict[str, Any]) -> torch.nn.Linear:
    layer = torch.nn.Linear(inputs, outputs)
    if network["ortho_init"]:
        torch.nn.init.orthogonal_(layer.weight, gain)
        torch.nn.init.zeros_(layer.bias)
    return layer
