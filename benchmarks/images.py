"""How close training from images comes to the limits that environments and network set, and to a peer.

    python benchmarks/images.py env=ALE/Pong-v5 total_timesteps=9e3 compile=true
    python benchmarks/images.py --no-peer env=ALE/Pong-v5 total_timesteps=9e3 compile=true network=impala_cnn
    python benchmarks/images.py --no-peer --envpool env=ALE/Pong-v5 total_timesteps=9e3 compile=true

A limit is the time of the bare environments (this run's actions replayed, as in split.py) and of the network:
a forward pass for each vector step, a forward and a backward pass for each minibatch, nothing else. The
network's time is, once, what each convolution and linear layer takes alone, on inputs of a run's shapes; and
once its floating-point operations at the rate of a large matrix product. Every repeat measures it all anew.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peers.environments import run_peer
from split import checked_config, measure, report
from torch import Tensor, nn

from ppo_cli.config.convert import to_dict
from ppo_cli.config.schema import Config
from ppo_cli.hooks import Hook, RunState
from ppo_cli.runs.build import build_model, env_maker
from ppo_cli.runs.caller import Caller
from ppo_cli.runs.run import run

TRIES = 7  # of each piece, the fastest of which counts
SIDE = 2048  # of the matrices whose product gives the rate
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


class Layer(NamedTuple):
    """A convolution or a linear layer of the network, and what it is given for one row."""

    name: str
    module: nn.Conv2d | nn.Linear
    shape: tuple[int, ...]
    outputs: int
    has_gradient: bool  # of its input: the first layer's is an observation

    def operations(self, rows: int, backward: bool) -> float:
        """Multiplications and additions of a forward pass, or of a forward and a backward one."""
        passes = 2 + self.has_gradient if backward else 1
        return 2.0 * rows * self.outputs * self.module.weight[0].numel() * passes


def layers_of(config: Config) -> list[Layer]:
    """Those through which an observation goes, in order."""
    env = env_maker(config.env)()
    model = build_model(config, env)
    found: list[Layer] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
            found.append(Layer(name, module, tuple(given[0].shape[1:]), out.numel(), bool(found)))

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    row = torch.as_tensor(np.asarray(env.observation_space.sample())).unsqueeze(0)
    with torch.no_grad():
        model(row, torch.zeros(1, model.state_size))
    for hook in hooks:
        hook.remove()
    env.close()
    return found


def seconds(work: Callable[[], object]) -> float:
    """The fastest of some calls."""
    taken = []
    for _ in range(TRIES):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def layer_seconds(layer: Layer, rows: int, layout: torch.memory_format, backward: bool) -> float:
    """What a layer takes for a forward pass, or for a forward and a backward one."""
    given = torch.rand(rows, *layer.shape)
    if given.dim() == 4:
        given = given.contiguous(memory_format=layout)
    with torch.inference_mode():
        taken = seconds(lambda: layer.module(given))
        if not backward:
            return taken
        gradient = torch.rand_like(layer.module(given))
        return taken + seconds(lambda: gradients(layer, given, gradient))


def gradients(layer: Layer, given: Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Those of a layer's input, where it has one, weights and biases, without autograd around them."""
    module = layer.module
    if isinstance(module, nn.Linear):
        of_input = gradient @ module.weight if layer.has_gradient else None
        return of_input, gradient.t() @ given, gradient.sum(0)
    shape = (module.stride, module.padding, module.dilation, False, [0, 0], module.groups)
    wanted = [layer.has_gradient, True, True]
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        gradient, given, module.weight, [module.out_channels], *shape, wanted
    )
    return found


def product_rate() -> float:
    """Floating-point operations a second of a large matrix product."""
    left, right = torch.rand(2, SIDE, SIDE)
    return 2 * SIDE**3 / seconds(lambda: left @ right)


def network_seconds(config: Config, layers: list[Layer]) -> dict[str, tuple[float, float]]:
    """What a vector step's forward pass takes, and a minibatch's two, by how they are reckoned."""
    rate = product_rate()
    passes = (config.n_envs, False), (config.batch_size, True)
    found = {"operations": tuple(sum(each.operations(*one) for each in layers) / rate for one in passes)}
    for name, layout in LAYOUTS.items():
        found[name] = tuple(
            sum(layer_seconds(layer, rows, layout, backward) for layer in layers) for rows, backward in passes
        )
    return {name: (act, update) for name, (act, update) in found.items()}


def measured(config: Config, layers: list[Layer]) -> dict[str, float]:
    """The figures of one repeat, by what they are."""
    figures = measure(config)
    report(figures)
    rows, fastest = config.rollout_rows, max(figures["bare"].values())
    minibatches = config.n_epochs * config.minibatches
    vector_steps, seconds = figures["vector_steps"], figures["seconds"]
    found = {
        "training, steps/s": figures["steady"],
        "acting, ms": 1e3 * seconds["acting"] / vector_steps,
        "a minibatch, ms": 1e3 * seconds["update"] / figures["iterations"] / minibatches,
    }
    for name, (act, update) in network_seconds(config, layers).items():
        limit = rows / (rows / fastest + config.n_steps * act + minibatches * update)
        found |= {
            f"acting by {name}, ms": 1e3 * act,
            f"a minibatch by {name}, ms": 1e3 * update,
            f"limit, {name}, steps/s": limit,
            f"limit, {name}: training has, %": 100 * figures["steady"] / limit,
        }
    return found


class Marks(Hook):
    """Notes when each iteration ends, and after how many steps; told after all others."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Notes it."""
        self.marks.append((time.perf_counter(), run.steps))


def envpool_rate(config: Config) -> float:
    """Steps a second of training on EnvPool's environments, without the first iteration."""
    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        run(replace(config, vectorization="envpool"), Path(folder), caller=Caller(own_hooks=[marks]))
    (first, before), (last, after) = marks.marks[0], marks.marks[-1]
    return (after - before) / (last - first)


def peer_rate(config: Config) -> float:
    """Steps a second of Stable-Baselines3 with the same settings, after the first tenth of its run."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(to_dict(config), file)
        file.flush()
        return run_peer("sb3", Path(sys.executable), Path(file.name), Path(file.name).parent, {})["steady"]


def main() -> None:
    """Measures and prints: of each figure the median of the repeats, the lowest and the highest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--envpool", action="store_true", help="train on EnvPool's environments, too")
    options, overrides = parser.parse_known_args()
    config = checked_config(overrides)
    torch.set_num_threads(config.cpu_threads)
    layers = layers_of(config)
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeats):
        found = measured(config, layers)
        if options.envpool:
            found["EnvPool, steps/s"] = envpool_rate(config)
            found["EnvPool, times the wrappers"] = found["EnvPool, steps/s"] / found["training, steps/s"]
        if not options.no_peer:
            found["Stable-Baselines3, steps/s"] = peer_rate(config)
            found["ours, times Stable-Baselines3"] = (
                found["training, steps/s"] / found["Stable-Baselines3, steps/s"]
            )
        for name, figure in found.items():
            figures[name].append(figure)
    operations = sum(layer.operations(config.batch_size, backward=True) for layer in layers)
    print(f"{config.env.id}, {len(layers)} layers, {operations / 1e9:.1f} GFLOP a minibatch, medians (range)")
    for name, each in figures.items():
        spread = f" ({min(each):.4g}–{max(each):.4g})" if len(each) > 1 else ""
        print(f"  {name:50} {statistics.median(each):10.4g}{spread}")


if __name__ == "__main__":
    main()
