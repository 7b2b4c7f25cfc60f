"""Intrinsic rewards: bonuses, scale and returns by hand, a class of one's own, a task that needs them."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from refusals import refusal
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE
from test_docs import ROOT, blocks
from zoo_envs import OBSERVATIONS

import ppo_cli
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.distributions import make_distribution
from ppo_cli.intrinsic import IntrinsicScale, RandomNetworkDistillation
from ppo_cli.intrinsic.inputs import FeatureNetwork, Inputs
from ppo_cli.rollout import Rollout
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.spaces import PackedObservations, Spaces
from ppo_cli.targets import compute_batch

CPU = torch.device("cpu")
LINE = Spaces(spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(2))
TINY = (
    "env=CartPole-v1", "preset=none", "n_envs=2", "n_steps=32", "total_timesteps=192", "n_epochs=2",
    "batch_size=32", "eval.episodes=1", "vectorization=sync", "checkpoint.every=1", "compile=false",
)  # fmt: skip
SEA = ("env=deep_sea:DeepSea-v0", "experiment=rnd", "vectorization=sync", "eval.episodes=5")


def line_rollout(*places):
    """A rollout that reaches the given observations one after the other, in one environment."""
    rollout = Rollout(len(places), 1, (2,), torch.float32, (), torch.int64)
    rollout.observations[1:, 0] = torch.tensor(places)
    return rollout


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_bonus_falls_where_one_has_been_and_stays_where_not(share):
    torch.manual_seed(0)
    rnd = RandomNetworkDistillation(LINE, CPU, share=share)
    both, one = line_rollout(*[(0.5, -0.5), (-0.5, 0.5)] * 32), line_rollout(*[(0.5, -0.5)] * 64)
    first = rnd.rewards(both)[:2, 0]
    told = [rnd.learn(one)["predictor_loss"] for _ in range(100)]
    then = rnd.rewards(both)[:2, 0]
    assert (first > 0.01).all()
    assert then[0] < 1e-3 * first[0] and told[-1] < 1e-3 * told[0]
    assert then[1] > 0.1 * first[1]


def test_the_bonus_is_that_of_the_true_final_observation():
    rnd = RandomNetworkDistillation(LINE, CPU)
    ended, on = line_rollout((0.5, 0.5), (0.0, 0.0)), line_rollout((0.9, -0.9), (0.0, 0.0))
    ended.truncated[0] = True
    ended.add_final(0, np.array([0]), np.array([[0.9, -0.9]], np.float32))
    rnd.inputs.update = lambda _: None  # the same statistics for both
    assert torch.equal(rnd.rewards(ended), rnd.rewards(on))


def test_the_target_stays_as_it_is_and_filler_rows_teach_nothing():
    rnd = RandomNetworkDistillation(LINE, CPU)
    before = [weight.clone() for weight in rnd.target.parameters()]
    rollout = line_rollout((0.5, 0.5), (1.0, 1.0), (0.0, 0.0))
    rollout.valid[1] = False
    rnd.rewards(rollout)
    rnd.learn(rollout)
    assert all(torch.equal(*pair) for pair in zip(before, rnd.target.parameters(), strict=True))
    assert rnd.inputs.statistics.mean == pytest.approx([0.25, 0.25], abs=1e-4)


def test_bonuses_are_scaled_as_written_out():
    generator = np.random.default_rng(0)
    scale, gamma = IntrinsicScale(3, 0.9), 0.9
    sums, seen = np.zeros(3), []
    for _ in range(4):
        bonuses, valid = generator.random((5, 3)), generator.random((5, 3)) < 0.8
        for t, env in np.ndindex(5, 3):
            if valid[t, env]:
                sums[env] = gamma * sums[env] + bonuses[t, env]
                seen.append(sums[env])
        scaled = scale(torch.from_numpy(bonuses), torch.from_numpy(valid)).numpy()
        assert scaled == pytest.approx(np.where(valid, bonuses / np.std(seen), 0), rel=1e-3)
    assert scale.deviation == pytest.approx(np.std(seen), rel=1e-3)


def test_observations_are_normalised_as_written_out_and_cut():
    generator = np.random.default_rng(0)
    inputs = Inputs(spaces.Box(-np.inf, np.inf, (2, 3), np.float64), 5.0)
    seen = generator.normal(3, 2, (50, 2, 3)).astype(np.float32)
    inputs.update(torch.from_numpy(seen[:20]))
    inputs.update(torch.from_numpy(seen[20:]))
    given = np.concatenate([seen[:4], np.full((1, 2, 3), 1e6, np.float32)])
    expected = np.clip((given - seen.mean(0)) / seen.std(0), -5, 5)
    assert inputs(torch.from_numpy(given), CPU)[0].numpy() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_networks_see_observations_of_every_kind(name):
    original = OBSERVATIONS[name]
    original.seed(0)  # a pixel that hardly varies is not what is looked at
    nested = isinstance(original, (spaces.Dict, spaces.Tuple))
    space = PackedObservations(original) if nested else original
    inputs = Inputs(space, 5.0)
    if nested:
        observations = torch.zeros(3, *space.shape, dtype=torch.uint8)
    else:
        sampled = np.stack([np.asarray(original.sample()) for _ in range(3)])
        observations = torch.from_numpy(sampled)
    inputs.update(observations)
    values = inputs(observations, CPU)
    for value, of_leaf in zip(values, inputs.spaces, strict=True):
        assert tuple(value.shape[1:]) == of_leaf.shape
    if name == "hwc":
        pixel = (sampled[:, 5, 7, 2] - sampled[:, 5, 7, 2].mean()) / sampled[:, 5, 7, 2].std()
        assert values[0][:, 2, 5, 7].numpy() == pytest.approx(pixel, abs=1e-2)
    if name == "discrete":
        assert torch.equal(values[0], observations)
    assert FeatureNetwork(inputs.spaces, [8], 4)(values).shape == (3, 4)


def test_a_mask_is_no_part_of_what_is_new():
    seen = {"seen": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)}
    assert [space.shape for space in Inputs(PackedObservations(spaces.Dict(seen)), 5.0).spaces] == [(2,)]


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_advantages_and_targets_are_as_written_out(memory):
    """With ends of both kinds: those of intrinsic rewards go on across them."""
    torch.manual_seed(1)
    model = make_actor_critic(*LINE, memory=memory, memory_size=8, intrinsic=True)
    rollout = Rollout(5, 2, (2,), torch.float32, (), torch.int64, model.state_size)
    rollout.observations[:] = torch.rand(6, 2, 2)
    rollout.rewards[:], rollout.intrinsic_rewards = torch.rand(5, 2), torch.rand(5, 2)
    with torch.no_grad():
        for t in range(6):  # as acting keeps it
            encoded, states = model.encode(rollout.observations[t], rollout.states[t])
            found = model.all_values(encoded)
            if t == 5:
                last = found
            else:
                rollout.states[t + 1], rollout.values[t], rollout.intrinsic_values[t] = states, *found
    values, inner = (
        torch.cat([kept, end[None]]).numpy()
        for kept, end in zip((rollout.values, rollout.intrinsic_values), last, strict=True)
    )
    rollout.terminated[1, 0] = rollout.terminated[3, 1] = True
    knobs = {"gamma": 0.9, "gae_lambda": 0.8, "intrinsic_coef": 0.3, "intrinsic_gamma": 0.7}
    distribution = make_distribution(LINE.action_space, False)
    with torch.inference_mode():
        batch = compute_batch(rollout, model, distribution, knobs, CPU)
    expected, targets = np.zeros((5, 2)), np.zeros((5, 2))
    for env in range(2):
        outside = inside = 0.0
        for t in reversed(range(5)):
            on = not rollout.terminated[t, env]
            reward, bonus = rollout.rewards[t, env].item(), rollout.intrinsic_rewards[t, env].item()
            outside = reward + 0.9 * on * values[t + 1, env] - values[t, env] + 0.9 * 0.8 * on * outside
            inside = bonus + 0.7 * inner[t + 1, env] - inner[t, env] + 0.7 * 0.8 * inside
            expected[t, env], targets[t, env] = outside + 0.3 * inside, inside + inner[t, env]
    assert batch.advantages.view(5, 2).numpy() == pytest.approx(expected, abs=1e-5)
    assert batch.intrinsic_returns.view(5, 2).numpy() == pytest.approx(targets, abs=1e-5)
    assert not torch.equal(batch.values, batch.intrinsic_returns)


def test_a_run_with_it_goes_on_to_the_same_bits(ppo_train, tmp_path, interrupt):
    typed = (*TINY, "intrinsic=rnd", "anneal.intrinsic_coef.final=0", "+intrinsic_kwargs.share=0.5")
    assert ppo_train(*typed, INTERRUPTIBLE, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*typed, INTERRUPTIBLE, "hydra.run.dir=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    metrics = ppo_cli.read("whole").metrics
    assert list(metrics["charts/intrinsic_coef"]) == pytest.approx([0.5, 1 / 3, 1 / 6])
    for tag in ("intrinsic/reward", "intrinsic/deviation", "intrinsic/predictor_loss"):
        assert (metrics[tag] > 0).all()
    assert (metrics["losses/intrinsic_value_loss"] > 0).all()
    saved = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last.pt")
    assert saved["own_hooks"]["intrinsic"]["source"]["observations"]["count"] == pytest.approx(192, abs=1e-3)
    refused = ppo_train("resume=cut", "intrinsic=none", "total_timesteps=256")
    assert "intrinsic can't change on resuming: it was rnd, given none" in refused.err


def module_of(page, name):
    """The text of a module that a page shows."""
    (text,) = (block for block in blocks(ROOT / "docs" / page, "python") if block.startswith(f"# {name}.py"))
    return text


@pytest.fixture
def shown(tmp_path_factory, monkeypatch):
    """The modules that pages show, where they can be imported."""
    folder = tmp_path_factory.mktemp("shown")
    pages = {"counts": "extending.md", "deep_sea": "recipes.md"}
    for name, page in pages.items():
        (folder / f"{name}.py").write_text(module_of(page, name))
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in pages:
        sys.modules.pop(name, None)
    gym.registry.pop("DeepSea-v0", None)  # of which the next import would be the second


def test_ones_own_class_counts_draws_from_its_own_stream_and_resumes(ppo_train, tmp_path, shown, interrupt):
    typed = (*TINY, "intrinsic=counts.Counts", "+intrinsic_kwargs.bins=5", INTERRUPTIBLE)
    assert ppo_train(*typed, "hydra.run.dir=whole").status == 0
    interrupt(1)
    assert ppo_train(*typed, "hydra.run.dir=cut").status == 143
    interrupt(None)
    resumed = ppo_train("resume=cut")
    assert (
        "importing counts, which cut/config.yaml names (intrinsic=counts.Counts)" in resumed.err + resumed.out
    )
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    known = ppo_cli.read("whole").metrics["intrinsic/cells"]
    assert list(known) == sorted(known) and known[-1] > 10
    kept = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last.pt")["own_hooks"]["intrinsic"]
    assert sum(kept["source"]["counts"].values()) == 192


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ("intrinsic=rdn",),
            "intrinsic=rdn: no intrinsic reward 'rdn': expected none, rnd or package.module",
        ),
        (("intrinsic=rnd", "+intrinsic_kwargs.shar=1"), "rnd takes no option 'shar'"),
        (("intrinsic=rnd", "+intrinsic_kwargs.share=2"), "share: expected a share of at most 1, given 2"),
        (
            ("intrinsic=rnd", "+intrinsic_kwargs.feature_size=0"),
            "feature_size: expected integers of at least 1",
        ),
        (
            ("intrinsic=rnd", "+intrinsic_kwargs.image_encoder=zoo_envs.OwnEncoder"),
            "image_encoder: expected one of auto, nature_cnn, impala_cnn, minatar_cnn, flatten, given zoo_",
        ),
        (("intrinsic=torch.sqrt",), "torch.sqrt is no subclass of ppo_cli.intrinsic.base.IntrinsicReward"),
        (
            ("intrinsic=own_intrinsic.Wide",),
            "own_intrinsic.Wide: rewards returned [3]: expected a tensor [2, 2]",
        ),
        (("intrinsic=own_intrinsic.Broken",), "rewards raised RuntimeError: nothing is new"),
        (("intrinsic=own_intrinsic.Infinite",), "rewards returned a number that is not finite"),
        (("intrinsic=own_intrinsic.Talker",), "learn returned 'much': expected numbers by name"),
        (("intrinsic=own_intrinsic.Clash",), "learn returned {'reward': 1.0}: intrinsic/reward is logged"),
        (("intrinsic=own_intrinsic.Loud",), "expected names of at most 190 letters, digits and _ . / -"),
        (("intrinsic=own_intrinsic.Keeper",), "state_dict: a checkpoint holds tensors and plain values"),
    ],
)
def test_what_cant_give_intrinsic_rewards_is_refused_in_a_line(typed, said):
    assert said in refusal(TINY, *typed)


def test_a_class_is_tried_with_actions_as_the_policy_has_them(ppo_train):
    box = ("env=Pendulum-v1", "box_policy=categorical", "action_bins=3")
    own = ("intrinsic=own_intrinsic.OfChoices", "total_timesteps=64", "eval.episodes=0")
    tried = ppo_train(*TINY, *box, *own)
    assert tried.status == 0, tried.err


def test_what_does_nothing_without_it_is_said(ppo_train):
    said = ppo_train(*TINY, "total_timesteps=64", "intrinsic_coef=2", "eval.episodes=0").out
    assert "intrinsic_coef=2.0 does nothing: intrinsic=none" in said


def dive(ppo_train, *typed):
    """A run that stops where every episode ends at the treasure."""
    hook = "hooks=[{name: run_hooks.StopAbove, mean_return: 0.9, iterations: 5}]"
    outcome = ppo_train(*SEA, "total_timesteps=1.5e5", *typed, hook, "hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    return ppo_cli.read("run")


def test_the_recipe_explores_from_its_first_iteration(ppo_train, shown):
    run = dive(ppo_train, "total_timesteps=2560", "eval.episodes=0")
    assert list(run.metrics["charts/intrinsic_coef"]) == [50, 50]
    assert run.metrics["intrinsic/reward"][-1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_sea_of_twenty_rows_is_dived_through_with_it_and_not_without(ppo_train, shown, seed):
    typed = (f"seed={seed}", f"+env.kwargs.mapping_seed={seed}")
    assert dive(ppo_train, *typed).evaluation.mean == pytest.approx(0.99)
    without = ppo_train(*SEA, *typed, "intrinsic=none", "total_timesteps=1e5", "hydra.run.dir=without")
    assert without.status == 0, without.err
    assert not (ppo_cli.read("without").metrics["charts/episodic_return"] > 0).any()
