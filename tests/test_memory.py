"""Memory: the cells are PyTorch's, sequences are steps, states begin, go on and end where they should."""

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import PPOAgent
from ppo_cli.collector import make_collector
from ppo_cli.distributions import make_distribution
from ppo_cli.envs.vector import SyncVector
from ppo_cli.memory import RecurrentMemory
from ppo_cli.rollout import minibatches, sequences
from ppo_cli.schedules import Schedule
from ppo_cli.update import Hyperparameters

KINDS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


def with_pytorchs_cell(kind, inputs=3, size=5):
    """A memory, and PyTorch's cell with the same weights."""
    torch.manual_seed(0)
    memory, cell = RecurrentMemory(kind, inputs, size), KINDS[kind](inputs, size)
    names = {"weight_ih": "input.weight", "bias_ih": "input.bias"}
    names |= {"weight_hh": "hidden.weight", "bias_hh": "hidden.bias"}
    cell.load_state_dict({theirs: memory.state_dict()[ours] for theirs, ours in names.items()})
    return memory, cell


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_pytorchs(kind):
    memory, cell = with_pytorchs_cell(kind)
    x, state = torch.randn(7, 3), torch.randn(7, memory.state_size)
    output, after = memory(x, state)
    expected = cell(x, state.chunk(2, dim=1) if kind == "lstm" else state)
    torch.testing.assert_close(after, torch.cat(expected, dim=1) if kind == "lstm" else expected)
    assert torch.equal(output, after[:, :5])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_steps_with_resets(kind):
    memory, _ = with_pytorchs_cell(kind)
    k, length = 4, 6
    x, state = torch.randn(k, length, 3), torch.randn(k, memory.state_size)
    starts = (torch.rand(k, length) < 0.3).float()
    starts[0], starts[1, 0] = 0.0, 1.0
    outputs = memory.sequence(x.flatten(0, 1), state, starts.view(-1, 1)).view(k, length, -1)
    for t in range(length):
        state = torch.where(starts[:, t, None] > 0, 0.0, state)
        expected, state = memory(x[:, t], state)
        torch.testing.assert_close(outputs[:, t], expected)


@pytest.mark.parametrize(
    ("n_steps", "n_envs", "length", "size"),
    [(8, 2, 4, 8), (7, 3, 3, 6), (7, 3, 3, 7), (5, 1, 4, 2), (10, 3, 4, 30), (9, 2, 9, 18), (3, 2, 1, 4)],
)
@pytest.mark.parametrize("fillers", [False, True])
def test_sequences_visit_every_transition_once(n_steps, n_envs, length, size, fillers):
    generator = torch.Generator().manual_seed(0)
    valid = torch.ones(n_steps, n_envs, dtype=torch.bool)
    if fillers:
        valid[1::3, 0] = False
        valid[:length, -1] = False  # a whole sequence of them
    visits, shapes, orders = torch.zeros(n_steps * n_envs), set(), []
    for rows, weights in minibatches(sequences(valid, length), size, generator):
        shapes.add(tuple(rows.shape))
        visits.index_add_(0, rows, weights)
        orders.append(rows)
        t, env = (rows // n_envs).view(-1, length), (rows % n_envs).view(-1, length)
        assert (env == env[:, :1]).all()  # one environment a sequence
        assert (t[:, 0] % length == 0).all()  # where the update knows the state
        consecutive = t == (t[:, :1] + torch.arange(length))
        assert (consecutive | (weights.view(-1, length) == 0)).all()
    assert torch.equal(visits, valid.flatten().float())
    assert len(shapes) <= 1  # one graph, no recompiling
    again = [rows for rows, _ in minibatches(sequences(valid, length), size, generator)]
    if len(again) > 1:
        assert not all(torch.equal(a, b) for a, b in zip(orders, again, strict=True))


@pytest.mark.parametrize(("n_steps", "length"), [(10, 4), (8, 4), (7, 16)])
def test_a_batch_of_everything_is_one_minibatch_though_sequences_are_ragged(n_steps, length):
    valid = torch.ones(n_steps, 2, dtype=torch.bool)
    made = list(minibatches(sequences(valid, length), n_steps * 2, torch.Generator()))
    assert len(made) == 1


class Clock(SyncVector):
    """Not an environment but two: episodes of 3 and 5 steps, the first cut, the second with an end."""

    def __init__(self):
        import gymnasium as gym

        class Counting(gym.Env):
            observation_space = spaces.Box(-10, 10, (2,), np.float32)
            action_space = spaces.Discrete(2)

            def __init__(self, length):
                self.length = length

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                self.t = 0
                return np.array([1, 0], np.float32), {}

            def step(self, action):
                self.t += 1
                ended = self.t == self.length
                cut = ended and self.length == 3
                return np.array([-1, self.t], np.float32), float(self.t), ended and not cut, cut, {}

        super().__init__([lambda: Counting(3), lambda: Counting(5)])


def collected(kind, n_steps=11, sequence_length=4, **knobs):
    """An agent with a memory, its collector behind one rollout, and the model."""
    torch.manual_seed(1)
    envs = Clock()
    model = make_actor_critic(
        envs.single_observation_space, envs.single_action_space, memory=kind, memory_size=6, hidden_sizes=(4,)
    )
    hyper = Hyperparameters(sequence_length=sequence_length, batch_size=10**6, n_epochs=1)
    values = {"learning_rate": 1e-3, "clip_ratio": 0.2, "ent_coef": 0.0, "vf_coef": 0.5,
              "gamma": 0.99, "gae_lambda": 0.95, "max_grad_norm": 0.5, **knobs}  # fmt: skip
    constants = {name: Schedule(value) for name, value in values.items()}
    acting, shuffling = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    distribution = make_distribution(envs.single_action_space)
    agent = PPOAgent(model, distribution, hyper, constants, [shuffling], n_envs=2, device=torch.device("cpu"))
    collector = make_collector(envs, agent, n_steps, None, None, acting)
    collector.reset([0, 1])
    collector.collect(agent)
    return agent, collector


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_stepping_through_the_rollout_again(kind):
    agent, collector = collected(kind)
    for _ in range(2):  # the second rollout begins in mid-episode
        rollout, model = collector.rollout, agent.model
        state = rollout.states[0].clone()
        assert state.any() == (_ == 1)
        for t in range(rollout.n_steps):
            torch.testing.assert_close(rollout.states[t], state)
            with torch.no_grad():
                encoded, state = model.encode(rollout.observations[t], state)
                torch.testing.assert_close(rollout.values[t], model.values(encoded))
            state[rollout.dones[t]] = 0.0
        torch.testing.assert_close(rollout.states[-1], state)
        collector.collect(agent)


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_zero_at_an_episodes_start_and_nowhere_else(kind):
    _, collector = collected(kind)
    rollout = collector.rollout
    first = rollout.observations[..., 0] == 1.0  # as the environments mark them
    assert torch.equal(first, ~rollout.states.any(-1))
    assert torch.equal(rollout.episode_starts[1:, :, 0].bool(), first[1:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_episodes_value_is_of_its_last_observation_and_the_memory_before_the_reset(kind):
    agent, collector = collected(kind, gamma=0.5, gae_lambda=0.0)
    rollout = collector.rollout
    batch = agent.compute_gae(rollout)
    returns = batch.returns.view(rollout.n_steps, 2)
    for t in range(rollout.n_steps):
        assert returns[t, 1] == rollout.rewards[t, 1] or not rollout.terminated[t, 1]
        if rollout.truncated[t, 0]:
            with torch.no_grad():
                _, before = agent.model.encode(rollout.observations[t], rollout.states[t])
                final = torch.tensor([[-1.0, 3.0]])
                value = agent.model.value(final, before[:1])
            torch.testing.assert_close(returns[t, 0], rollout.rewards[t, 0] + 0.5 * value[0])
    assert rollout.truncated[:, 0].sum() == 3
    assert rollout.terminated[:, 1].sum() == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 4, 11])
def test_the_update_sees_the_logits_that_acted(kind, length):
    agent, collector = collected(kind, sequence_length=length)
    for _ in range(2):
        metrics = agent.update([agent.compute_gae(collector.rollout)], [collector.rollout.valid])
        assert abs(metrics["approx_kl"]) < 1e-7
        assert metrics["clipfrac"] == 0.0
        assert abs(metrics["policy_loss"]) < 1e-6  # advantages of mean 0 at a ratio of 1
        collector.collect(agent)


def test_gradients_reach_back_through_a_sequence_but_not_past_a_start():
    memory = RecurrentMemory("gru", 2, 3)
    x = torch.randn(6, 2, requires_grad=True)
    starts = torch.tensor([[0.0], [0], [0], [1], [0], [0]])
    memory.sequence(x, torch.zeros(1, 3), starts)[-1].sum().backward()
    assert x.grad[3:].abs().sum(1).gt(0).all()
    assert not x.grad[:3].any()


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
def test_only_a_memory_recalls(ppo_train, tmp_path, memory):
    arguments = (
        "env.id=zoo_envs:Recall-v0", "preset=none", f"network.memory={memory}", "network.memory_size=32",
        "network.hidden_sizes=[32]", "n_envs=16", "n_steps=44", "batch_size=176", "n_epochs=4",
        "learning_rate=3e-3", "ent_coef=0.01", "total_timesteps=6e4", "vectorization=sync", "compile=false",
        "eval.episodes=100", "hydra.run.dir=run",
    )  # fmt: skip
    outcome = ppo_train(*arguments)
    assert outcome.status == 0, outcome.err
    mean = json.loads((tmp_path / "run" / "eval.json").read_text())["mean"]
    assert 0.3 < mean < 0.7 if memory == "none" else mean >= 0.95
