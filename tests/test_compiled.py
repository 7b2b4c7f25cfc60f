"""Compiling ahead of time: the same values, found again in the cache, and no run lost where it fails."""

import logging

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_cli import agent
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.checkpoint import load_checkpoint
from ppo_cli.compiled import compile_function
from ppo_cli.distributions import make_distribution
from ppo_cli.optim import adam_init
from ppo_cli.packing import PackedActions, PackedObservations
from ppo_cli.rollout import minibatches, sequence_minibatches

SCALE = torch.tensor([2.0, 3.0])


def function(x, y):
    (grad,) = torch.autograd.grad((x.detach().requires_grad_() * y).sum(), y, allow_unused=True)
    return x * SCALE + y, grad


def test_a_library_is_compiled_once_and_found_again(tmp_path, monkeypatch):
    examples = [torch.ones(4, 2), torch.ones(4, 2, requires_grad=True)]
    library = compile_function(function, examples, tmp_path)
    inputs = [torch.randn(4, 2), torch.randn(4, 2)]
    expected = (inputs[0] * SCALE + inputs[1], inputs[0])
    for found, right in zip(library(inputs), expected, strict=True):
        torch.testing.assert_close(found, right)
    assert len(list(tmp_path.glob("*.pt2"))) == 1

    def refuse(*_args, **_kwargs):
        raise AssertionError("compiled again")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", refuse)
    again = compile_function(function, examples, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again(inputs), library(inputs), strict=True))
    with pytest.raises(AssertionError, match="compiled again"):  # other shapes are another library
        compile_function(function, [torch.ones(5, 2), torch.ones(5, 2, requires_grad=True)], tmp_path)
    with pytest.raises(AssertionError, match="compiled again"):  # so is another graph
        compile_function(lambda x, y: (x - y,), examples, tmp_path)


def test_a_broken_toolchain_costs_speed_not_the_run(ppo_train, tmp_path, monkeypatch, caplog):
    def fail(*_args):
        raise RuntimeError("g++: not today\nand a long log")

    tiny = ("env=CartPole-v1", "total_timesteps=300", "eval.episodes=0")
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(agent, "compile_function", fail)
        assert ppo_train(*tiny, "compile=true").status == 0
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert ppo_train(*tiny, "compile=false").status == 0
    first, second = (load_checkpoint(path) for path in tmp_path.glob("outputs/*/*/checkpoints/last.pt"))
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])
    log = next(tmp_path.glob("outputs/*/*compile=true*/train.log")).read_text()
    assert "can't be compiled and runs uncompiled: g++: not today" in log


OBSERVATIONS = spaces.Box(-1, 1, (5,))
CONTINUOUS = spaces.Box(-1, 1, (2,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("actions", "use_sde"),
    [
        (spaces.Discrete(4), False),
        (spaces.MultiDiscrete([2, 3]), False),
        (spaces.MultiBinary(3), False),
        (CONTINUOUS, False),
        (CONTINUOUS, True),
    ],
    ids=["discrete", "multi-discrete", "multi-binary", "box", "gsde"],
)
def test_compiled_and_eager_updates_agree_in_every_action_space(tmp_path, actions, use_sde):
    rows, size = 200, 64  # the last minibatch of four is ragged
    model = make_actor_critic(OBSERVATIONS, actions, use_sde=use_sde, shared=False)
    distribution = make_distribution(actions)
    params = agent.flatten_parameters(model).clone()
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(rows, 5, generator=generator)
    with torch.no_grad():
        logits = model.policy(observations)
        taken = distribution.sample(logits, distribution.noise((rows,), generator))
        logprobs = distribution.log_prob(logits, taken)
    columns = (torch.randn(rows, generator=generator) for _ in range(3))
    batch = agent.Batch(observations, taken, logprobs, *columns)
    coefs = agent.Coefficients(*torch.tensor([3e-4, 0.2, 0.01, 0.5]).unbind())
    eager = agent.make_step(model, distribution, agent.Hyperparameters(target_kl=0.05))
    ends = []
    for step in (eager, agent.compile_step(eager, tmp_path)):
        sums = torch.zeros(len(agent.LossParts._fields) + 1)
        state = agent.TrainState(params, adam_init(params), torch.ones(()), sums, torch.zeros(()))
        shuffle = torch.Generator().manual_seed(1)
        for _ in range(4):
            for indices, weights in minibatches(torch.arange(rows), size, shuffle):
                state = step(state, batch, indices, weights, coefs)
        ends.append(state)
    first, second = ends
    assert list(tmp_path.glob("*.pt2"))
    assert not torch.equal(first.params, params)
    torch.testing.assert_close(second.params, first.params, rtol=0, atol=1e-5)
    torch.testing.assert_close(second.sums, first.sums, rtol=1e-4, atol=1e-4)


IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
MIXED = spaces.Dict({"camera": IMAGE, "speed": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(4)})
NESTED = spaces.Dict({"steer": CONTINUOUS, "gear": spaces.Discrete(3)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observations", "actions", "options"),
    [
        (OBSERVATIONS, spaces.Discrete(4), {"memory": "lstm", "layer_norm": True}),
        (PackedObservations(MIXED), spaces.Discrete(4), {"memory": "gru"}),
        (PackedObservations(MIXED), PackedActions(NESTED), {"squash_actions": True, "log_std": "state"}),
    ],
    ids=["lstm", "gru-packed-masked", "packed-squashed-product"],
)
def test_compiled_and_eager_updates_agree_in_every_network(tmp_path, observations, actions, options):
    n_steps, n_envs, length, size = 10, 3, 4, 16  # sequences are ragged
    rows = n_steps * n_envs
    torch.manual_seed(0)
    model = make_actor_critic(observations, actions, hidden_sizes=(16,), memory_size=8, **options)
    distribution = make_distribution(actions, options.get("squash_actions", False))
    params = agent.flatten_parameters(model).clone()
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(rows, 5, generator=generator)
    if isinstance(observations, PackedObservations):
        raw = torch.zeros((rows, *observations.shape), dtype=torch.uint8).numpy()
        observations.original.seed(0)
        for row in raw:
            sample = observations.original.sample()
            sample["action_mask"][0] = 1
            for leaf, view in zip(observations.leaves, observations.views(row), strict=True):
                view[...] = leaf.of(sample)
        obs = torch.from_numpy(raw)
    memory = [torch.randn(rows, model.state_size, generator=generator)] if model.memory else []
    with torch.no_grad():
        logits = model.policy(obs, *memory)
        taken = distribution.sample(logits, distribution.noise((rows,), generator))
        logprobs = distribution.log_prob(logits, taken)
    columns = [torch.randn(rows, generator=generator) for _ in range(3)]
    starts = [(torch.rand(rows, generator=generator) < 0.2).float()] if memory else []
    batch = agent.Batch(obs, taken, logprobs, *columns, *memory, *starts)
    coefs = agent.Coefficients(*torch.tensor([3e-4, 0.2, 0.01, 0.5]).unbind())
    eager = agent.make_step(model, distribution, agent.Hyperparameters(sequence_length=length))
    ends = []
    for step in (eager, agent.compile_step(eager, tmp_path)):
        sums = torch.zeros(len(agent.LossParts._fields) + 1)
        state = agent.TrainState(params, adam_init(params), torch.ones(()), sums, torch.zeros(()))
        shuffle = torch.Generator().manual_seed(1)
        for _ in range(3):
            if memory:
                valid = torch.ones(n_steps, n_envs, dtype=torch.bool)
                pieces = sequence_minibatches(valid, length, size, shuffle)
            else:
                pieces = minibatches(torch.arange(rows), size, shuffle)
            for indices, weights in pieces:
                state = step(state, batch, indices, weights, coefs)
        ends.append(state)
    first, second = ends
    assert list(tmp_path.glob("*.pt2"))
    assert not torch.equal(first.params, params)
    torch.testing.assert_close(second.params, first.params, rtol=0, atol=1e-5)
    torch.testing.assert_close(second.sums, first.sums, rtol=1e-4, atol=1e-4)
