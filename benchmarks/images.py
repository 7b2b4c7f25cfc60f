"""How close training from images comes to the limit that environment and network set, and to a peer.

    python benchmarks/images.py env=ALE/Pong-v5 total_timesteps=2e4

The limit is the time of the bare environments (this run's actions replayed, as in split.py) and of the
bare network: a forward pass for each vector step, a forward and a backward pass for each minibatch, in plain
PyTorch without a loss, an optimiser or a copy. Stable-Baselines3 trains with the same settings afterwards.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peers.environments import run_peer
from split import checked_config, measure, report
from torch import Tensor, nn

from ppo_cli.config.convert import to_dict
from ppo_cli.config.schema import Config

REPEATS = 7


def bare_network(channels: int, height: int, width: int, actions: int) -> nn.Sequential:
    """The Nature CNN with policy and value in one output, in PyTorch's own layers."""
    convolutions = nn.Sequential(
        nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    flat = convolutions(torch.zeros(1, channels, height, width)).shape[1]
    return nn.Sequential(convolutions, nn.Linear(flat, 512), nn.ReLU(), nn.Linear(512, actions + 1))


def seconds(work: Callable[[], object]) -> float:
    """The fastest of some calls."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def network_seconds(config: Config, channels_last: bool) -> float:
    """What one iteration's passes through the bare network take."""
    network = bare_network(4, 84, 84, 6)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def images(rows: int) -> Tensor:
        return torch.rand(rows, 4, 84, 84).to(memory_format=layout)

    acted_on, minibatch = images(config.n_envs), images(config.batch_size)

    def act() -> None:
        with torch.inference_mode():
            network(acted_on)

    steps = config.n_epochs * config.minibatches
    update = seconds(lambda: network(minibatch).sum().backward())
    return config.n_steps * seconds(act) + steps * update


def peer_rate(config: Config) -> float:
    """Steps a second of Stable-Baselines3 with the same settings, after the first tenth of its run."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(to_dict(config), file)
        file.flush()
        return run_peer("sb3", Path(sys.executable), Path(file.name), Path(file.name).parent, {})["steady"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--no-peer", action="store_true")
    options, overrides = parser.parse_known_args()
    config = checked_config(overrides)
    torch.set_num_threads(config.cpu_threads)
    figures = measure(config)
    report(figures)
    rows = config.rollout_rows
    fastest = max(figures["bare"].values())
    for channels_last in (False, True):
        taken = rows / fastest + network_seconds(config, channels_last)
        layout = "channels last" if channels_last else "channels first"
        share = 100 * figures["steady"] * taken / rows
        print(f"  limit, {layout}: {rows / taken:,.0f} steps/s; training reaches {share:.0f} %")
    if not options.no_peer:
        rate = peer_rate(config)
        print(f"  Stable-Baselines3: {rate:,.0f} steps/s; ours are {figures['steady'] / rate:.2f} times that")


if __name__ == "__main__":
    main()
