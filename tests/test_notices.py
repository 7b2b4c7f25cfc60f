"""What was asked for happens, or is refused or spoken of in a line."""

import csv
import json
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from ppo_cli.cli import evaluate
from ppo_cli.config.compose import load
from ppo_cli.encoders import make_simple_encoder
from ppo_cli.envs.make import env_fn, make_env
from ppo_cli.envs.notices import image_notice, normalization_notice, range_notice
from ppo_cli.envs.snapshot import find_kind
from ppo_cli.envs.wrappers import learning_layers
from ppo_cli.runs.build import check_environment
from ppo_cli.spaces import PackedActions, PackedObservations

TINY = (
    "n_envs=2", "n_steps=32", "total_timesteps=256", "batch_size=32", "n_epochs=1", "eval.episodes=2",
    "compile=false", "hydra.run.dir=run",
)  # fmt: skip


def odd(name, *arguments):
    return (f"env.id=odd_envs:{name}-v0", *TINY, *arguments)


def evaluated(monkeypatch, *arguments):
    """The status of `ppo-eval`."""
    monkeypatch.setattr(sys, "argv", ["ppo-eval", *arguments])
    try:
        evaluate.main()
    except SystemExit as ended:
        return ended.code or 0
    return 0


def box(low, high, n=1):
    return spaces.Box(low, high, (n,), np.float32)


@pytest.mark.parametrize(
    "name",
    ["NormalizeObservation", "NormalizeReward", "odd_envs.OwnLearner", "odd_envs.Welford", "odd_envs.Inside"],
)
@pytest.mark.parametrize("when", ["", ",when:train"])
def test_a_wrapper_that_learns_is_refused(ppo_train, tmp_path, name, when):
    outcome = ppo_train(*odd("Ten", f"env.wrappers=[{{name:{name}{when}}}]"))
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"ppo-train: env.wrappers: {name} learns")
    assert "normalize.observations=true and normalize.rewards=true" in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_wrapper_with_statistics_that_stay_as_they_are_is_taken():
    make_env("odd_envs:Ten-v0", None, [{"name": "odd_envs.Frozen"}]).close()


@pytest.mark.parametrize(
    ("name", "layer"), [("Normalizing", "NormalizeObservation"), ("Learning", "Learning")]
)
def test_an_environment_that_brings_one_is_spoken_of(ppo_train, name, layer):
    outcome = ppo_train(*odd(name))
    assert outcome.status == 0
    assert f"{name}-v0 keeps running statistics of its own ({layer})" in outcome.out


@pytest.mark.parametrize(
    ("space", "is_far"),
    [
        (box(-1, 1), False),
        (box(-2, 2), False),  # Pendulum
        (box(-0.4, 0.4), False),  # Humanoid
        (box(-3, 3), False),  # InvertedPendulum
        (box(np.array([-1, 0, 0], np.float32), 1, 3), False),  # CarRacing
        (box(-np.inf, np.inf), False),
        (box(0, np.inf), False),
        (spaces.Discrete(3), False),
        (spaces.Box(0, 255, (1,), np.uint8), True),
        (box(300, 500), True),
        (box(300, np.inf), True),
        (box(-100, 100), True),
        (box(-0.01, 0.01), True),
        (PackedActions(spaces.Dict({"a": box(-1, 1), "b": box(-500, -300)})), True),
    ],
)
def test_a_range_that_a_fresh_policy_hardly_meets_is_far(space, is_far):
    line = range_notice(space, 0.0)
    assert (line is not None) == is_far
    if line is not None and "inf" not in line:
        assert "squash_actions=true" in line
        assert "RescaleAction" in line


def test_a_wide_policy_is_not_far_from_a_wide_range():
    assert range_notice(box(-100, 100), 4.0) is None
    assert range_notice(box(-1, 1), -3.0) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("advice", "learns"),
    [
        ("squash_actions=true", True),
        ("box_policy=beta", True),
        ("env.wrappers=[{name:RescaleAction,min_action:-1,max_action:1}]", True),
        ("squash_actions=false", False),
    ],
)
def test_what_the_line_about_the_range_advises_learns(ppo_train, tmp_path, advice, learns):
    more = ("n_envs=8", "n_steps=64", "total_timesteps=2e4", "n_epochs=10", "batch_size=64")
    outcome = ppo_train(*odd("Middle", *more, "vectorization=sync", advice))
    assert ("far from the [-1, 1]" in outcome.out) == (not learns)
    assert (json.loads((tmp_path / "run" / "eval.json").read_text())["mean"] > -3) == learns


@pytest.mark.parametrize("where", ["method", "late"])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_masks_beside_the_observation_are_obeyed_everywhere(ppo_train, monkeypatch, where, vectorization):
    masking = (f"+env.kwargs.where={where}", f"vectorization={vectorization}", "eval.deterministic=false")
    outcome = ppo_train(*odd("Masking", *masking))  # an illegal action raises
    assert outcome.status == 0, outcome.err
    assert ("at an episode's first step every action counts as legal" in outcome.out) == (where == "late")
    assert find_kind(env_fn("odd_envs:Masking-v0", {"where": where}, action_mask=True)) == "replay"
    assert evaluated(monkeypatch, "run", "--sampled") == 0


def test_a_wrappers_mask_method_is_found(ppo_train, tmp_path, monkeypatch):
    (tmp_path / "own_masker.py").write_text(
        "import gymnasium as gym\n"
        "class Masker(gym.Wrapper):\n"
        "    def action_masks(self):\n"
        "        return [False, True]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = ppo_train(*odd("Ten", "env.wrappers=[{name: own_masker.Masker}]", "eval.deterministic=false"))
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["returns"] == [10.0, 10.0]


@pytest.mark.parametrize(
    ("where", "actions", "said"),
    [
        ("method", "box", "action_masks() is no mask here"),
        ("info", "box", "info['action_mask'] is no mask here"),
        ("key", "dict", "the observation's 'action_mask' is no mask here"),
        ("key", "box", "the observation's 'action_mask' is no mask here"),
    ],
)
def test_a_mask_that_nothing_obeys_is_spoken_of(ppo_train, where, actions, said):
    outcome = ppo_train(*odd("Masking", f"+env.kwargs.where={where}", f"+env.kwargs.actions={actions}"))
    assert outcome.status == 0, outcome.err
    assert said in outcome.out


def test_options_and_bounded_seeds_reach_every_reset(ppo_train, tmp_path, monkeypatch):
    choosy = ("env.seed_below=1000", "+env.reset_options.level=3", "checkpoint.every=1")
    refused = ppo_train(*odd("Choosy", "+env.reset_options.level=3"))
    assert (refused.status, "is not below 1000" in refused.err) == (1, True)
    assert ppo_train(*odd("Choosy", *choosy, "hydra.run.dir=whole", "vectorization=async")).status == 0
    assert json.loads((tmp_path / "whole" / "eval.json").read_text())["returns"] == [30.0, 30.0]
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["charts/episodic_return"] for row in rows} == {"30.0"}
    make = env_fn("odd_envs:Choosy-v0", reset_options={"level": 1}, seed_below=1000)
    assert find_kind(make) == "replay"
    assert evaluated(monkeypatch, "whole", "--reset-options", "level=5", "--json", "found.json") == 0
    assert json.loads((tmp_path / "found.json").read_text())["returns"] == [50.0, 50.0]
    changed = ppo_train("resume=whole", "env.reset_options.level=4", "total_timesteps=512")
    assert (changed.status, "can't change on resuming" in changed.err) == (2, True)


def test_a_bound_maps_seeds_and_leaves_those_below_it():
    bounded = make_env("odd_envs:Ten-v0", seed_below=1000)
    plain = make_env("odd_envs:Ten-v0")
    for given, taken in ((7, 7), (999, 999), (1000, 0), (2**31 - 1, (2**31 - 1) % 1000)):
        assert np.array_equal(bounded.reset(seed=given)[0], plain.reset(seed=taken)[0])


@pytest.mark.parametrize("knob", ["+env.reset_options.level=3", "env.seed_below=5"])
def test_envpools_environments_take_neither(ppo_train, knob):
    outcome = ppo_train("env=CartPole-v1", "vectorization=envpool", knob)
    assert outcome.status == 2
    assert outcome.err.startswith(
        f"ppo-train: {knob.strip('+').split('=')[0].removesuffix('.level')}: vectorization=envpool gives "
    )


def test_tensors_are_taken_as_observations(ppo_train, tmp_path):
    assert ppo_train(*odd("Tensors")).status == 0
    assert ppo_train(*odd("Ten", "hydra.run.dir=arrays")).status == 0
    returns = [json.loads((tmp_path / run / "eval.json").read_text())["returns"] for run in ("run", "arrays")]
    assert returns[0] == returns[1]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Wraps", "environment 0 returned an observation with 300, where its space says uint8: 0 to 255"),
        ("Huge", "an observation holds 1e+50, which is not finite in float32; normalize.observations=true"),
    ],
)
def test_what_can_not_be_kept_is_named(ppo_train, name, said, vectorization):
    outcome = ppo_train(*odd(name, f"vectorization={vectorization}"))
    assert outcome.status == 1
    assert outcome.err.startswith(f"ppo-train: {said}")
    assert outcome.err.count("\n") == 1


def test_numbers_beyond_float32_can_be_normalised(ppo_train):
    assert ppo_train(*odd("Huge", "normalize.observations=true")).status == 0


def test_an_episode_of_the_environments_own_is_not_believed(ppo_train, tmp_path):
    assert ppo_train(*odd("Telling")).status == 0
    assert ppo_train(*odd("Ten", "hydra.run.dir=plain")).status == 0
    logged = []
    for run in ("run", "plain"):
        with (tmp_path / run / "metrics.csv").open() as file:
            logged.append([row["charts/episodic_return"] for row in csv.DictReader(file)])
    assert logged[0] == logged[1]


def test_an_episode_that_gymnasium_recorded_is_believed(ppo_train, tmp_path):
    clipped = "env.wrappers=[{name:RecordEpisodeStatistics},{name:ClipReward,min_reward:0,max_reward:0.1}]"
    for run, more in (("run", [clipped]), ("plain", [])):
        assert ppo_train(*odd("Ten", "total_timesteps=64", f"hydra.run.dir={run}", *more)).status == 0
    logged = []
    for run in ("run", "plain"):
        with (tmp_path / run / "metrics.csv").open() as file:
            logged.append(next(csv.DictReader(file))["charts/episodic_return"])
    assert logged[0] == logged[1] != ""


@pytest.mark.parametrize("switch", ["compile=false", pytest.param("compile=true", marks=pytest.mark.slow)])
def test_an_encoder_that_raises_in_mid_training_is_named(ppo_train, switch):
    outcome = ppo_train(*odd("Ten", switch, "+network.encoders.observation=odd_envs.Breaks"))
    assert outcome.status == 1
    assert "the encoder odd_envs.Breaks raised ArithmeticError: worn out" in outcome.err
    assert outcome.err.count("\n") == 1


IMAGE = (36, 36, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_an_image_of_other_integers_is_spoken_of(dtype):
    space = spaces.Box(0, 255, IMAGE, dtype)
    for given in (space, PackedObservations(spaces.Dict({"eye": space}))):
        line = image_notice(given)
        assert (line is not None and "int64" in line) == (dtype is np.int64)
    assert image_notice(spaces.Box(0, 255, (4,), dtype)) is None


def test_only_two_of_gymnasiums_wrappers_learn():
    env = gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 100)
    for wrapper, arguments in (
        (gym.wrappers.RecordEpisodeStatistics, {}),
        (gym.wrappers.FrameStackObservation, {"stack_size": 3}),
        (gym.wrappers.ClipReward, {"max_reward": 1}),
        (gym.wrappers.TimeAwareObservation, {}),
    ):
        env = wrapper(env, **arguments)
    env.reset(seed=0)
    assert learning_layers(env) == []
    assert learning_layers(gym.wrappers.NormalizeReward(env)) == ["NormalizeReward"]
    env.close()


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Box(0, 255, IMAGE, np.uint8), "leaves images"),
        (spaces.Box(0, 1, IMAGE, np.float32), "leaves images"),
        (spaces.Box(-np.inf, np.inf, IMAGE, np.float32), None),
        (spaces.Box(-1, 1, (3,)), None),
        (spaces.Discrete(3), "leaves Discrete observations"),
        (PackedObservations(spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Discrete(2)})), None),
        (
            PackedObservations(spaces.Dict({"a": spaces.Box(-1, 1), "eye": spaces.Box(0, 1, IMAGE)})),
            "images and bytes (eye)",
        ),
        (PackedObservations(spaces.Dict({"b": spaces.Discrete(2)})), "without Box numbers"),
    ],
)
def test_what_normalisation_leaves_alone_is_spoken_of(space, said):
    line = normalization_notice(space)
    assert (line is None) if said is None else (line is not None and said in line)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("sde_sample_freq=4", "sde_sample_freq=4 does nothing: use_sde=false"),
        ("network.memory_size=7", "network.memory_size=7 does nothing: network.memory=none"),
        ("normalize.clip=3", "normalize.clip=3.0 does nothing: normalize.observations=false"),
        ("anneal.clip_ratio.shape=cosine", "anneal.clip_ratio.shape=cosine does nothing"),
        ("network.log_std=state", "does nothing: no Box among the actions Discrete(2)"),
        ("network.log_std_max=1", "log_std_max=1.0 does nothing: no Box among the actions Discrete(2)"),
        ("action_bins=7", "action_bins=7 does nothing: box_policy is not categorical"),
        ("network.trunk=simba network.layer_norm=true", "layer_norm=True does nothing: simba's blocks"),
        ("network.image_encoder=impala_cnn", "does nothing: no image among the observations"),
        ("vf_clip_ratio=0.1 vf_coef=0", "vf_clip_ratio=0.1 does nothing: vf_coef=0"),
        ("clip_ratio=0.1 objective=kl_penalty", "clip_ratio=0.1 does nothing: objective=kl_penalty"),
        ("anneal.intrinsic_coef.warmup=0.2", "anneal.intrinsic_coef.warmup=0.2 does nothing: intrinsic=none"),
    ],
)
def test_a_knob_that_does_nothing_is_said(typed, said):
    config = load("env=CartPole-v1", "preset=none", "eval.episodes=0", *typed.split())
    (line,) = check_environment(config).notices
    assert said in line


def test_knobs_that_do_something_are_not_spoken_of():
    typed = ["network.memory=gru", "network.memory_size=7", "use_sde=true", "sde_sample_freq=4"]
    config = load("env=Pendulum-v1", "preset=none", "network.log_std_init=-1", *typed)
    assert check_environment(config).notices == ()
    typed = ["eval.episodes=0", "eval.seed=5"]  # which `ppo-eval` takes
    typed += [
        "network.layer_norm=true",
        "network.hidden_sizes=[]",
        "network.critic.hidden_sizes=[8]",
        "network.shared=false",
    ]
    assert check_environment(load("env=CartPole-v1", "preset=none", *typed)).notices == ()


@pytest.mark.parametrize("policy", ["beta", "categorical"])
def test_a_policy_within_bounds_has_no_deviation_and_no_range_to_miss(policy):
    config = load(
        "env.id=odd_envs:Middle-v0", "preset=none", f"box_policy={policy}", "network.log_std_init=-1"
    )
    (line,) = check_environment(config).notices
    assert line == "network.log_std_init=-1.0 does nothing: only box_policy=gaussian has deviations"


def test_an_observation_without_numbers_is_refused():
    with pytest.raises(ValueError, match="holds no values"):
        make_simple_encoder(spaces.Box(-1, 1, (0,)))
