"""The critic's own eyes: keys, encoders, memory and widths that only the actor or only the critic has."""

import csv
import json
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from gymnasium import spaces
from refusals import refusal
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE
from torch import nn

import ppo_cli
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.cli import evaluate as eval_cli
from ppo_cli.config.convert import from_stored
from ppo_cli.config.trust import imports
from ppo_cli.distributions import make_distribution
from ppo_cli.encoders import EncoderChoice, MlpEncoder, PackedEncoder
from ppo_cli.errors import ConfigError
from ppo_cli.export.files import write_policy
from ppo_cli.export.graph import load
from ppo_cli.normalize import make_observation_normalizer
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs.checkpoint import load_checkpoint, load_run
from ppo_cli.runs.messages import network_words
from ppo_cli.runs.policy import restore_policy
from ppo_cli.spaces import PackedObservations
from ppo_cli.targets import compute_values

BOX = spaces.Box(-1, 1, (2,))
ROBOT = spaces.Dict(
    {
        "robot": spaces.Dict({"arm": BOX, "gear": spaces.Discrete(3)}),
        "privileged": spaces.Box(-1, 1, (4,)),
        "action_mask": spaces.MultiBinary(3),
    }
)
PACKED = PackedObservations(ROBOT)
ALL = "privileged, robot.arm, robot.gear"
ASYMMETRIC = ("network.shared=false", "network.actor.observations=[state]")
TINY = (
    "env.id=probe_envs:HiddenReward-v0", "preset=none", "n_envs=2", "n_steps=16", "batch_size=16",
    "n_epochs=1", "total_timesteps=96", "network.hidden_sizes=[8]", "network.memory_size=8",
    "network.sequence_length=4", "checkpoint.every=1", "eval.episodes=3", "learning_rate=0.01",
    "compile=false", "vectorization=sync",
)  # fmt: skip


def network(actor=None, critic=None, own=None, shared=False, **options):
    choice = EncoderChoice(actor_sees=actor, critic_sees=critic, critic_by_key=own or {})
    torch.manual_seed(0)
    return make_actor_critic(
        PACKED, spaces.Discrete(3), encoders=choice, shared=shared, hidden_sizes=(8,), **options
    )


def rows(count, **replaced):
    """Packed observations with random numbers, every action legal, and some leaves given."""
    generator = np.random.default_rng(0)
    packed = np.zeros((count, *PACKED.shape), np.uint8)
    for leaf, view in zip(PACKED.leaves, PACKED.views(packed), strict=True):
        drawn = (
            generator.integers(0, 3, view.shape) if leaf.dtype == "int64" else generator.random(view.shape)
        )
        view[...] = 1 if leaf.is_mask else replaced.get(leaf.path[-1], drawn)
    return torch.from_numpy(packed)


@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
def test_each_sees_its_own_keys_alone(memory):
    model = network(["robot.arm"], ["robot.gear", "privileged"], memory=memory, memory_size=8)
    state = torch.randn(5, model.state_size)
    seen, moved = rows(5), rows(5, arm=0.5)
    hidden = rows(5, privileged=0.5)
    assert torch.equal(model.policy(seen, state), model.policy(hidden, state))
    assert not torch.equal(model.value(seen, state), model.value(hidden, state))
    assert torch.equal(model.value(seen, state), model.value(moved, state))
    assert not torch.equal(model.policy(seen, state), model.policy(moved, state))


@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_the_actors_part_of_a_state_stands_first_and_is_all_that_acting_reads(memory):
    model = network(["robot"], memory=memory, memory_size=8)
    state, obs = torch.randn(5, model.state_size), rows(5)
    encoded, after = model.encode(obs, state)
    alone, same = model.encode(obs, state[:, : model.actor_state_size])
    assert torch.equal(encoded, alone)
    assert torch.equal(after, same)
    values, whole, _ = model.judge(obs, state, encoded, after)
    assert whole.shape == state.shape
    assert torch.equal(whole[:, : model.actor_state_size], after)
    assert torch.equal(values, model.value(obs, state))
    assert not torch.equal(whole[:, model.actor_state_size :], state[:, model.actor_state_size :])


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_the_update_computes_what_acting_does(memory):
    model = network(["robot"], memory=memory, memory_size=8)
    obs, state = rows(4), torch.randn(4, model.state_size)
    starts = torch.zeros(4, min(1, model.state_size))
    logits, outputs = model(obs, state, starts)
    torch.testing.assert_close(logits, model.policy(obs, state))
    torch.testing.assert_close(model.value_head.decode(outputs), model.value(obs, state))


def test_an_ordinary_network_has_no_part_more():
    names = {name.split(".")[0] for name in network(["robot", "privileged"], None, shared=True).state_dict()}
    assert names == {"trunk", "policy_head", "value_head"}
    own = {name.split(".")[0] for name in network(["robot"], memory="gru").state_dict()}
    assert own == names | {"value_trunk", "memory", "value_memory"}


def test_the_critic_has_widths_and_encoders_of_its_own():
    model = network(own={"robot": {"arm": {"name": "mlp", "hidden_sizes": [5]}}}, critic_hidden_sizes=(7, 6))
    assert [linear.out_features for linear in model.trunk.linears] == [8]
    assert [linear.out_features for linear in model.value_trunk.linears] == [7, 6]
    assert isinstance(model.critic.encoder, PackedEncoder)
    (own,) = (each for each in model.critic.encoder.encoders if isinstance(each, MlpEncoder))
    assert not any(isinstance(each, MlpEncoder) for each in model.encoder.encoders)
    assert model.value(rows(3)).shape == (3,)
    assert (
        torch.linalg.svdvals(own.layers[0].weight) - 2**0.5
    ).abs().max() < 1e-5  # as the actor's are initialised


def test_the_policys_encoders_are_made_anew_for_a_critic_that_sees_more():
    choice = EncoderChoice(by_key={"robot": {"arm": "mlp"}}, actor_sees=["robot"])
    model = make_actor_critic(PACKED, spaces.Discrete(3), encoders=choice, shared=False)
    first, second = (
        [each for each in eyes.encoder.encoders if isinstance(each, MlpEncoder)]
        for eyes in (model.actor, model.critic)
    )
    assert len(first) == len(second) == 1
    assert not torch.equal(first[0].layers[0].weight, second[0].layers[0].weight)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"critic_hidden_sizes": (7, 6)}, "actor 8 tanh, critic 7-6 tanh"),
        ({"critic": ["robot.arm"]}, f"actor of {ALL}: 8 tanh; critic of robot.arm: 8 tanh"),
        (
            {"actor": ["robot"], "memory": "gru", "memory_size": 5},
            f"actor of robot.arm, robot.gear: gru 5, 8 tanh; critic of {ALL}: gru 5, 8 tanh",
        ),
    ],
)
def test_a_network_of_two_eyes_in_words(options, said):
    assert network_words(network(**options)) == said


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (("network.actor.observations=[state]",), "set network.shared=false"),
        (
            (*ASYMMETRIC, "network.critic.observations=[sate]"),
            "no observation 'sate'; there are luck, state; did",
        ),
        (
            ("network.actor.observations=[]",),
            "network.actor.observations=[]: expected keys of the observation",
        ),
        (
            ("network.critic.hidden_sizes=[8]",),
            "network.critic.hidden_sizes=[8]: network.shared=true has one",
        ),
        (("+network.critic.encoders.luck=mlp",), "set network.shared=false"),
        (
            (*ASYMMETRIC, "+network.critic.encoders.lick=mlp"),
            "network.critic.encoders.lick: no such observation",
        ),
        ((*ASYMMETRIC, "network.critic.hidden_sizes=8"), "expected a list of integers or null"),
        ((*ASYMMETRIC, "network.critic.hidden_sizes=[0]"), "expected a value from 1"),
    ],
)
def test_what_nobody_can_see_or_share_is_said_in_a_line(knobs, said):
    assert said in refusal(TINY, *knobs)


def test_a_class_that_only_the_critic_uses_is_said_before_it_is_imported():
    encoders = {"a": {"b": {"name": "mine.Map"}}, "luck": "his.Net"}
    config = from_stored(
        {"env": {"id": "CartPole-v1"}, "network": {"shared": False, "critic": {"encoders": encoders}}}
    )
    lines = imports(config, "config.yaml")
    assert any("importing mine" in line and "network.critic.encoders.a.b=mine.Map" in line for line in lines)
    assert any("importing his" in line for line in lines)


def test_no_class_is_hidden_behind_an_observation_that_is_called_name():
    space = PackedObservations(spaces.Dict({"robot": spaces.Dict({"name": BOX, "arm": BOX})}))

    def made(**by_key):
        choice = EncoderChoice(by_key={"robot": by_key})
        return make_actor_critic(space, spaces.Discrete(3), encoders=choice)

    hidden = {"name": "flatten", "arm": "his.Net"}
    with pytest.raises(ValueError, match=r"robot\.name=flatten: expected {name: flatten} for an observation"):
        made(**hidden)
    assert isinstance(made(name={"name": "mlp"}, arm="flatten").encoder.encoders[1], MlpEncoder)


def finish(main, monkeypatch, capfd, *argv):
    monkeypatch.setattr("sys.argv", [main.__module__, *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capfd.readouterr()
    assert ended.value.code == 0, err
    return out


def test_what_acts_needs_the_actors_part_alone(ppo_train, tmp_path, monkeypatch, capfd, interrupt):
    arguments = (
        *TINY, *ASYMMETRIC, "network.memory=lstm", "normalize.observations=true", INTERRUPTIBLE,
        "network.critic.hidden_sizes=[6]",
    )  # fmt: skip
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")

    stored = json.loads((tmp_path / "whole" / "eval.json").read_text())
    # in an environment that has never heard of luck
    out = finish(eval_cli.main, monkeypatch, capfd, "whole", "--json", "--env-kwargs", "tells=false")
    assert json.loads(out)["returns"] == stored["returns"]

    policy = ppo_cli.load("whole")
    whole = {"state": np.array([0.5], np.float32), "luck": np.array([np.nan], np.float32)}
    seen = {"state": whole["state"]}
    action, state = policy.act(whole), policy.state
    assert state.shape == (16,)  # h and c of the actor
    policy.reset()
    assert policy.act(seen) == action
    assert np.array_equal(policy.state, state)
    policy.reset()
    assert policy.act({"state": np.repeat(seen["state"][None], 3, 0)}).tolist() == [action] * 3
    policy.reset()
    with pytest.raises(ValueError, match="an observation without 'state'"):
        policy.act({"luck": whole["luck"]})


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_exported_file_acts_as_the_policy_and_refuses_what_only_the_critic_sees(tmp_path, kind):
    pytest.importorskip("onnxruntime")
    model = network(["robot"], memory="lstm", memory_size=8)
    distribution = make_distribution(spaces.Discrete(3))
    normalizer = make_observation_normalizer(PACKED, 10.0)
    normalizer.update(rows(50).numpy())
    policy = BatchPolicy(model, distribution, normalizer)
    said = write_policy(tmp_path / "policy", kind, policy, PACKED, spaces.Discrete(3), {})
    assert said.startswith("action_mask, robot.arm, robot.gear, state -> action, next_state; largest")
    run, states = load(tmp_path / "policy", kind), np.zeros((3, 16), np.float32)
    for _ in range(5):
        packed = rows(3).numpy()
        values = {leaf.key: view for leaf, view in zip(PACKED.leaves, PACKED.views(packed), strict=True)}
        values["action_mask"] = values["action_mask"].astype(np.int8)
        hidden = {"privileged": values.pop("privileged")}
        given = run({**values, "state": states})
        actions, after = policy.act(packed, states=torch.from_numpy(states))
        assert given["action"].tolist() == actions.tolist()
        np.testing.assert_allclose(given["next_state"], after.numpy(), atol=1e-6)
        with pytest.raises(Exception, match=r"(Invalid input name:|has no input) privileged"):
            run({**values, **hidden, "state": states})
        states = given["next_state"]


@pytest.mark.slow
def test_what_the_policy_sees_is_not_left_out(ppo_train):
    assert ppo_train(*TINY, "eval.episodes=0", "total_timesteps=32", "hydra.run.dir=run").status == 0
    checkpoint = Path("run/checkpoints/last.pt")
    with pytest.raises(ConfigError, match=r"the network does not fit .* with env.kwargs={'tells': False}"):
        restore_policy(load_run(checkpoint), checkpoint, {"tells": False})


class Heavy(nn.Module):
    """An encoder that is worth more than the rest of acting."""

    def __init__(self, space):
        super().__init__()
        self.linear = nn.Linear(space.shape[0], 3)

    def forward(self, rows):
        return self.linear(rows)


def test_a_vector_is_acted_on_in_numpy_whatever_the_critic_makes_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ppo_cli.train(
        env="CartPole-v1", network={"shared": False, "critic": {"encoders": {"observation": Heavy}}},
        total_timesteps=256, n_steps=64, n_envs=2, batch_size=32, eval={"episodes": 0}, compile=False,
    )  # fmt: skip
    with (tmp_path / run.folder / "metrics.csv").open() as file:
        first = next(csv.DictReader(file))
    assert abs(float(first["losses/approx_kl"])) < 0.1  # of log-probabilities that were computed, not kept
    names = load_checkpoint(tmp_path / run.folder / "checkpoints" / "last.pt")["model"]
    assert "value_encoder.module.linear.weight" in names


def test_images_that_only_the_critic_sees_are_encoded_a_few_at_a_time(monkeypatch):
    """A rollout at once would take gigabytes between the layers."""
    space = spaces.Dict({"camera": spaces.Box(0, 255, (36, 36, 3), np.uint8), "speed": BOX})
    choice = EncoderChoice(actor_sees=["speed"])
    model = make_actor_critic(PackedObservations(space), spaces.Discrete(3), encoders=choice, shared=False)
    assert not model.is_heavy
    encode, seen = model.critic.encoder.forward, []
    monkeypatch.setattr(model.critic.encoder, "forward", lambda rows: seen.append(len(rows)) or encode(rows))
    rows = torch.zeros((600, *PackedObservations(space).shape), dtype=torch.uint8)
    with torch.no_grad():
        values, _ = compute_values(model, rows, torch.zeros(600, 0))
    assert len(values) == sum(seen) == 600
    assert max(seen) <= 256


def learnt(folder):
    """The share of steps at which the action was right, over a whole run."""
    with (folder / "metrics.csv").open() as file:
        return fmean(float(row["info/agrees"]) for row in csv.DictReader(file))


@pytest.mark.slow
def test_a_critic_that_sees_what_the_actor_can_not_has_it_learn_sooner(ppo_train, tmp_path):
    found = {"sees": [], "blind": []}
    for seed in range(5):
        for name, keys in (("sees", "[state,luck]"), ("blind", "[state]")):
            outcome = ppo_train(
                "env.id=probe_envs:HiddenReward-v0", "preset=none", "n_envs=8", "n_steps=64",
                "batch_size=128", "n_epochs=4", "learning_rate=3e-3", "gamma=0.5", "gae_lambda=0.9",
                "total_timesteps=10000", "network.hidden_sizes=[32,32]", "log.info_keys=[agrees:mean]",
                "eval.episodes=0",
                "compile=false", *ASYMMETRIC, f"network.critic.observations={keys}", f"seed={seed}",
                f"hydra.run.dir={name}{seed}",
            )  # fmt: skip
            assert outcome.status == 0, outcome.err
            found[name].append(learnt(tmp_path / f"{name}{seed}"))
    assert min(found["sees"]) > max(found["blind"]) + 0.03, found
