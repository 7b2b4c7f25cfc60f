"""One minibatch step and one action, in microseconds: compiled, eager, and as `torch.optim.Adam` does it.

    python benchmarks/micro.py
    python benchmarks/micro.py env=CartPole-v1 --batch-sizes 256 --rounds 3

Shared and separate networks, and the sizes of a minibatch, take turns; medians over rounds, of calls whose
fastest tenth is taken, so that what else runs on the machine counts little. *Products* is the bound: the
step's matrix products alone, forward and backward, by the same library. Acting is timed between steps of the
environments, where the caches are cold.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, product

import numpy as np
import torch
from torch import Generator
from torch.nn.utils import clip_grad_norm_

from ppo_cli import losses
from ppo_cli.advantages import normalize_advantages
from ppo_cli.agent import PPOAgent
from ppo_cli.collector import make_collector
from ppo_cli.config.compose import load
from ppo_cli.config.schema import Config
from ppo_cli.envs.vector import SyncVector
from ppo_cli.rollout import Batch, minibatches, sequences
from ppo_cli.runs.build import build_agent, env_maker
from ppo_cli.sharded import Data
from ppo_cli.trunks import MLP
from ppo_cli.update import first_state

ROUNDS, CALLS, BATCH_SIZES = 7, 300, (64, 256)


def collected(config: Config) -> tuple[PPOAgent, Batch]:
    """An agent and its first rollout, ready for the update."""
    make = env_maker(config.env, training=True)
    env = make()
    agent = build_agent(config, env)
    collector = make_collector(
        SyncVector([make] * config.n_envs), agent, config.n_steps, None, None, Generator()
    )
    collector.reset(list(range(config.n_envs)))
    collector.collect(agent)
    return agent, agent.compute_gae(collector.rollout)


def minibatches_of(batch: Batch, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows and weights of one epoch's minibatches, again and again."""
    rows = torch.ones(len(batch.returns), 1, dtype=torch.bool)
    return cycle(list(minibatches(sequences(rows, 1), size, torch.Generator())))


def own_step(agent: PPOAgent, batch: Batch, size: int) -> Callable[[], None]:
    """Our minibatch step, chained on its own state."""
    state = first_state(agent._params, agent.optimizer, agent.hyper)
    knobs, data = torch.tensor(list(agent.knobs.values())), Data([batch], [batch.advantages])
    pieces = minibatches_of(batch, size)

    def step() -> None:
        nonlocal state
        state = agent._step(state, data, [next(pieces)], knobs)

    return step


def autograd_step(agent: PPOAgent, batch: Batch, size: int) -> Callable[[], None]:
    """The same step as most write it: backward, `clip_grad_norm_`, `torch.optim.Adam`."""
    model, distribution = agent.model, agent.distribution
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, eps=1e-5)
    pieces = minibatches_of(batch, size)

    def step() -> None:
        rows, weights = next(pieces)
        logits, outputs = model(batch.observations[rows])
        values = model.value_head.decode(outputs)
        logprobs = distribution.log_prob(logits, batch.actions[rows])
        ratio = losses.probability_ratio(logprobs, batch.logprobs[rows])
        advantages = normalize_advantages(batch.advantages[rows], weights)
        surrogate = torch.min(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages)
        policy = -losses.weighted_mean(surrogate, weights)
        total = policy + 0.5 * losses.value_loss(values, batch.returns[rows], weights)
        optimizer.zero_grad()
        total.backward()
        clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    return step


def products(agent: PPOAgent, size: int) -> Callable[[], None] | None:
    """The matrix products of a step alone, of perceptrons over vectors; None for other networks."""
    model, head = agent.model, agent.model.policy_head.in_numpy()
    own = model.value_trunk
    if head is None or not (isinstance(model.trunk, MLP) and isinstance(own, MLP | None)):
        return None
    calls: list[tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], torch.Tensor]] = []

    def noted(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> torch.Tensor:
        calls.append((function, args, function(*args)))
        return calls[-1][-1]

    def through(layers: list[torch.nn.Linear], x: torch.Tensor, below: int = 0) -> list[torch.Tensor]:
        """What each layer is given, and what the last one gives; then the gradients of all weights."""
        xs = [x]
        for layer in layers:
            xs.append(noted(torch.addmm, layer.bias, xs[-1], layer.weight.t()))
        grad = torch.ones_like(xs[-1])
        for i in reversed(range(len(layers))):
            noted(torch.mm, grad.t(), xs[i])
            if i + below:
                grad = noted(torch.mm, grad, layers[i].weight)
        return xs

    with torch.no_grad():
        hidden = through(model.trunk.linears, torch.ones(size, model.trunk.linears[0].in_features))
        through([head.linear], hidden[-1], below=1)
        if own is not None:
            hidden = through(own.linears, hidden[0])
        through([model.value_head], hidden[-1], below=1)

    def multiply() -> None:
        with torch.no_grad():
            for function, args, out in calls:
                function(*args, out=out)

    return multiply


def microseconds(call: Callable[[], None], calls: int) -> float:
    """What a call takes in the fastest tenth of a round."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 10] * 1e6


def acting(config: Config) -> float:
    """Median of an action for all environments, each between two of their steps."""
    make = env_maker(config.env, training=True)
    envs = SyncVector([make] * config.n_envs)
    env = make()
    agent = build_agent(config, env)
    to_env, states = agent.distribution.to_env, torch.zeros(config.n_envs, agent.model.state_size)
    observations, _ = envs.reset(seed=0)
    times = []
    for noise in agent.exploration_noise(1000, config.n_envs, Generator()):
        seen = observations.astype(np.float32)
        started = time.perf_counter()
        actions, _ = agent.act(seen, noise, states)
        times.append((time.perf_counter() - started) * 1e6)
        observations = envs.step(to_env(actions))[0]
    return statistics.median(times)


def compare(config: Config, rounds: int, calls: int) -> dict[str, float]:
    """Medians over rounds of all variants, in turn."""
    variants: dict[str, Callable[[], None]] = {}
    for name, compiled in (("compiled", True), ("eager", False)):
        agent, batch = collected(replace(config, compile=compiled))
        variants[name] = own_step(agent, batch, config.batch_size)
    bound = products(agent, config.batch_size)
    if bound is not None:
        variants["products"] = bound
    variants["torch.optim.Adam"] = autograd_step(agent, batch, config.batch_size)
    for call in variants.values():
        call()
    rows = [{name: microseconds(call, calls) for name, call in variants.items()} for _ in range(rounds)]
    return {name: statistics.median(row[name] for row in rows) for name in variants}


def main() -> None:
    """Prints a line a network and size, and all figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as ppo-train takes them")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of which medians are taken")
    parser.add_argument("--calls", type=int, default=CALLS, help="in a round")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES, help="of a minibatch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    typed = ["env=LunarLander-v3", *options.overrides]
    figures: dict[str, dict[str, float]] = {}
    for size, shared in product(options.batch_sizes, (True, False)):
        config = load(*typed, f"network.shared={shared}", f"batch_size={size}")
        medians = compare(config, options.rounds, options.calls)
        ratio = medians["torch.optim.Adam"] / medians["compiled"]
        if "products" in medians:
            medians["compiled / products"] = medians["compiled"] / medians["products"]
        medians["acting"] = acting(replace(config, compile=False))
        kind = f"{'shared' if shared else 'separate'}, batch {size}"
        figures[kind] = medians
        shown = ", ".join(f"{name} {value:.3g}" for name, value in medians.items())
        print(f"{config.env.id}, {kind}, us: {shown}; compiled is {ratio:.1f} x torch.optim.Adam", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
