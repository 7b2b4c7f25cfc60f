"""ppo-export: files that act as the policy does, and run without this package."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.cli.export import main
from ppo_cli.distributions import make_distribution
from ppo_cli.encoders import EncoderChoice
from ppo_cli.export.graph import ExportError, Graph, load, make_ports, write_onnx, write_torchscript
from ppo_cli.export.parity import TOLERANCE, check_parity, sample_observations
from ppo_cli.normalize import ObservationNormalizer
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs.policy import load_policy
from ppo_cli.spaces import PackedActions, PackedObservations, is_nested

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DOC = Path(__file__).parent.parent / "docs" / "export.md"
WRITERS = {"onnx": write_onnx, "torchscript": write_torchscript}
VECTOR = spaces.Box(-2, 2, (3,))
ARM = spaces.Box(-np.inf, np.inf, (2, 2), np.float64)
NESTED = spaces.Dict(
    {
        "robot": spaces.Dict({"arm": ARM, "on": spaces.MultiBinary(3)}),
        "camera": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        "at": spaces.Tuple([spaces.Discrete(4, start=2), spaces.Box(-1, 5, (2,), np.int32)]),
        "action_mask": spaces.MultiBinary(5),
    }
)  # fmt: skip


class Exported(NamedTuple):
    """A policy with random weights, and its spaces."""

    policy: BatchPolicy
    observations: spaces.Space[Any]
    actions: spaces.Space[Any]

    def write(self, path, kind, sample=False):
        """The file's function, and its ports."""
        graph = Graph(*self, sample)
        WRITERS[kind](graph, path, {"env": "Test-v0"})
        return load(path, kind), graph.ports


def build(observations, actions, normalized=False, squash=False, box_policy="gaussian", **network):
    """A policy whose choices vary."""
    torch.manual_seed(0)
    if is_nested(observations):
        observations = PackedObservations(observations)
    if is_nested(actions):
        actions = PackedActions(actions)
    network = {"hidden_sizes": (16,), "ortho_init": False, "squash_actions": squash, **network}
    network["box_policy"] = box_policy
    model = make_actor_critic(observations, actions, **network)
    with torch.no_grad():
        for name, parameter in model.policy_head.named_parameters():
            parameter.mul_(1.0 if "log_std" in name else 5.0)
    normalizer = None
    if normalized:
        packed = isinstance(observations, PackedObservations)
        shape = (observations.floats,) if packed else observations.shape
        normalizer = ObservationNormalizer(shape, 2.0, packed)
        rng = np.random.default_rng(1)
        normalizer.statistics.mean = rng.normal(3, 2, shape)
        normalizer.statistics.var = rng.uniform(0.1, 9, shape)
    distribution = make_distribution(actions, squash, box_policy, network.get("action_bins", 41))
    return Exported(BatchPolicy(model, distribution, normalizer), observations, actions)


UNEVEN = spaces.Box(np.array([-0.1, 2.0], np.float32), np.array([0.3, 70.0], np.float32))
CASES = {
    "Discrete": lambda: build(VECTOR, spaces.Discrete(4)),
    "Discrete with a start": lambda: build(VECTOR, spaces.Discrete(4, start=-7), activation="gelu"),
    "MultiDiscrete": lambda: build(VECTOR, spaces.MultiDiscrete([[2, 3], [4, 5]], dtype=np.int32)),
    "MultiBinary": lambda: build(spaces.MultiBinary((2, 3)), spaces.MultiBinary((2, 2)), layer_norm=True),
    "Box clipped": lambda: build(VECTOR, UNEVEN),
    "Box squashed": lambda: build(VECTOR, UNEVEN, squash=True),
    "Box of integers": lambda: build(VECTOR, spaces.Box(-3, 3, (2, 2), np.int64)),
    "gSDE": lambda: build(VECTOR, spaces.Box(-1, 1, (2,), np.float64), use_sde=True),
    "log_std of the state": lambda: build(VECTOR, spaces.Box(-1, 1, ()), log_std="state"),
    "softplus, bounded": lambda: build(
        VECTOR, UNEVEN, log_std="softplus", log_std_min=-2, log_std_max=0.1, trunk="simba", hidden_sizes=(8,)
    ),
    "Beta": lambda: build(VECTOR, UNEVEN, box_policy="beta"),
    "Beta of integers": lambda: build(VECTOR, spaces.Box(-3, 3, (2, 2), np.int64), box_policy="beta"),
    "categorical": lambda: build(VECTOR, spaces.Box(-1, 1, (2, 1), np.float64), box_policy="categorical"),
    "normalised": lambda: build(
        spaces.Box(-np.inf, np.inf, (3,), np.float64), spaces.Box(-np.inf, np.inf, (2,)), normalized=True
    ),
    "one-hot": lambda: build(spaces.Discrete(6, start=3), spaces.Discrete(3)),
    "image": lambda: build(
        spaces.Box(0, 255, (36, 36, 2), np.uint8), spaces.Box(-1, 1, (2,)),
        encoders=EncoderChoice(by_key={"observation": {"name": "nature_cnn", "features": 16}}),
    ),
    "Dict, mask": lambda: build(
        NESTED, spaces.Discrete(5), normalized=True, encoders=EncoderChoice("flatten", {"at": {"1": "mlp"}})
    ),
    "masks of components": lambda: build(NESTED, spaces.MultiDiscrete([2, 3]), memory="gru", memory_size=8),
    "Dict of actions": lambda: build(
        VECTOR,
        spaces.Dict(
            {"go": UNEVEN, "pick": spaces.Discrete(3, start=1), "bits": spaces.Tuple([spaces.MultiBinary(2)])}
        ),
        squash=True,
    ),
    "Tuple of Boxes": lambda: build(
        VECTOR, spaces.Tuple([spaces.Discrete(3), UNEVEN, spaces.Box(-3, 3, (), np.int8)]),
        box_policy="categorical", action_bins=7,
    ),
    "GRU": lambda: build(VECTOR, spaces.Box(-1, 1, (2,)), memory="gru", memory_size=8),
    "LSTM": lambda: build(VECTOR, spaces.Discrete(4), normalized=True, memory="lstm", memory_size=8),
}  # fmt: skip
SAMPLED = (
    "MultiDiscrete", "MultiBinary", "gSDE", "softplus, bounded", "Beta", "categorical", "Dict, mask",
    "Dict of actions", "Tuple of Boxes", "LSTM",
)  # fmt: skip
# Whose parts others have too; ONNX takes a second a file.
SHOWN_ELSEWHERE = (
    "MultiBinary", "Box of integers", "log_std of the state", "softplus, bounded", "Beta", "Beta of integers",
    "categorical", "Tuple of Boxes", "one-hot", "Box clipped", "Box squashed", "Discrete", "GRU",
)  # fmt: skip
FILES = [
    *((name, "torchscript", False) for name in CASES),
    *(
        pytest.param(name, "onnx", False, marks=pytest.mark.slow if name in SHOWN_ELSEWHERE else [])
        for name in CASES
        if name != "masks of components"  # which has a test below
    ),
    *((name, "torchscript", True) for name in SAMPLED),
    # ONNX takes seconds a file: one with all kinds of noise, and the two that differ most from it
    *((name, "onnx", True) for name in ("Dict of actions", "gSDE", "LSTM")),
    *(
        pytest.param(name, "onnx", True, marks=pytest.mark.slow)
        for name in ("softplus, bounded", "Beta", "categorical", "Tuple of Boxes")
    ),
]


@pytest.mark.parametrize(("name", "kind", "sample"), FILES)
def test_files_act_as_the_policy_does(tmp_path, name, kind, sample):
    exported = CASES[name]()
    run, ports = exported.write(tmp_path / "file", kind, sample)
    parity = check_parity(run, ports, *exported)
    assert (parity.observations, parity.ties) == (1000, 0)
    assert parity.difference <= TOLERANCE

    inputs = some_inputs(exported, ports, 50)
    outputs = run(inputs)
    assert list(outputs) == [port.name for port in ports.outputs]
    given = outputs[ports.action[-1].name]
    assert len(np.unique(given, axis=0)) > 1  # else nothing would have been compared
    if not is_nested(getattr(exported.actions, "original", exported.actions)):
        assert all(exported.actions.contains(own_kind(exported.actions, action)) for action in given)


def own_kind(space, action):
    """An action as the environment is sent it: of an array scalar a Box would warn."""
    return np.asarray(action) if isinstance(space, spaces.Box) else action


def some_inputs(exported, ports, size):
    rng = np.random.default_rng(0)
    values = sample_observations(exported.policy, exported.observations, size, rng)
    others = [port for port in (ports.state, ports.noise) if port is not None]
    return {
        **{port.name: value for port, value in zip(ports.observation, values, strict=True)},
        **{port.name: rng.normal(size=(size, *port.shape)).astype(np.float32) for port in others},
    }


@pytest.mark.parametrize("kind", WRITERS)
def test_masks_and_states_and_noise_matter(tmp_path, kind):
    exported = CASES["masks of components"]()
    run, ports = exported.write(tmp_path / "file", kind, sample=True)
    assert check_parity(run, ports, *exported).difference <= TOLERANCE
    inputs = some_inputs(exported, ports, 400)
    acted = run(inputs)
    actions = acted["action"]
    mask = inputs["action_mask"]
    rows = np.arange(400)
    assert mask[rows, actions[:, 0]].all()
    assert mask[rows, 2 + actions[:, 1]].all()
    for name, shows_in in (
        ("action_mask", "action"),
        ("noise", "action"),
        ("state", "next_state"),
        ("camera", "next_state"),
    ):
        other = {**inputs, name: inputs[name][::-1].copy()}
        assert (run(other)[shows_in] != acted[shows_in]).any(), name


def test_no_noise_gives_the_most_probable_action(tmp_path):
    exported = CASES["Dict of actions"]()
    sampled, ports = exported.write(tmp_path / "sampled", "torchscript", sample=True)
    likely, _ = exported.write(tmp_path / "likely", "torchscript")
    inputs = some_inputs(exported, ports, 50)
    drawn = sampled(inputs)
    still = sampled({**inputs, "noise": np.zeros_like(inputs["noise"])})
    expected = likely({"observation": inputs["observation"]})
    assert all(np.array_equal(still[name], expected[name]) for name in expected)
    assert all((drawn[name] != expected[name]).any() for name in expected)
    assert re.findall(r"(\w+)\[(\d):(\d)\]", ports.noise.meaning) == [
        (kind, *cuts) for kind, cuts in noise_by_hand(exported.actions)
    ]


def test_no_noise_gives_a_beta_policys_action_near_the_median(tmp_path):
    exported = CASES["Beta"]()
    run, ports = exported.write(tmp_path / "sampled", "torchscript", sample=True)
    assert re.search(r": normal\[0:24\], exponential\[24:48\]; zeros give an action near the median$",
                     ports.noise.meaning)  # fmt: skip
    inputs = some_inputs(exported, ports, 50)
    logits = exported.policy.logits(inputs["observation"])[0]
    alpha, beta = (1 + torch.nn.functional.softplus(logits)).chunk(2, -1)
    median = stats.beta(alpha.numpy(), beta.numpy()).median()
    still = run({**inputs, "noise": np.zeros_like(inputs["noise"])})["action"]
    share = (still - UNEVEN.low) / (UNEVEN.high - UNEVEN.low)
    np.testing.assert_allclose(share, median, atol=0.01)


def noise_by_hand(actions):
    """Kinds and places of the parts' noise: Gumbel a logit, logistic a bit, normal a number."""
    start = 0
    for part in actions.parts:
        kind, size = {
            spaces.Box: ("normal", 2), spaces.Discrete: ("gumbel", 3), spaces.MultiBinary: ("logistic", 2)
        }[type(part)]  # fmt: skip
        yield kind, (str(start), str(start + size))
        start += size


class TestCheck:
    """The comparison, on files that are wrong in some way."""

    @pytest.fixture
    def policy(self):
        return build(VECTOR, spaces.Dict({"a": UNEVEN, "b": spaces.Discrete(3)}), memory="gru", memory_size=8)

    @pytest.fixture
    def file(self, policy, tmp_path):
        return policy.write(tmp_path / "policy.pt", "torchscript")

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("action.a", lambda x: x + 4e-5 * np.maximum(1, np.abs(x))),
            ("action.a", lambda x: x.astype(np.float64)),
            ("action.a", lambda x: x * np.float32(np.nan)),
            ("action.b", lambda x: (x + 1) % 3),
            ("action.b", lambda x: x[:, None]),
            ("next_state", lambda x: x * np.float32(0.999)),
        ],
    )
    def test_a_difference_is_found(self, policy, file, name, wrong):
        run, ports = file

        def other(inputs):
            outputs = run(inputs)
            return {**outputs, name: wrong(outputs[name]).astype(wrong(outputs[name]).dtype)}

        with pytest.raises(ExportError, match=f"^{name}: the file gives .* policy") as error:
            check_parity(other, ports, *policy)
        assert "\n" not in str(error.value)

    def test_a_batch_that_is_fixed_is_found(self, policy, file):
        run, ports = file
        first = []

        def other(inputs):
            first.append(run(inputs))
            return first[0]

        with pytest.raises(ExportError):
            check_parity(other, ports, *policy)

    def test_choices_between_equals_may_differ(self):
        equal = build(VECTOR, spaces.Discrete(3))
        torch.nn.init.zeros_(equal.policy.model.policy_head.weight)
        torch.nn.init.zeros_(equal.policy.model.policy_head.bias)
        ports = make_ports(*equal, sample=False)
        parity = check_parity(lambda x: {"action": np.full(len(x["observation"]), 2)}, ports, *equal)
        assert parity.ties == 1000
        assert parity.difference == 0

    def test_every_input_has_a_name(self):
        ports = make_ports(*build(spaces.Dict({"": VECTOR, "_": VECTOR}), spaces.Discrete(2)), sample=False)
        assert [port.name for port in ports.observation] == ["_", "__2"]

    def test_observations_lie_in_their_space_and_masks_allow_something(self):
        exported = CASES["masks of components"]()
        values = sample_observations(exported.policy, exported.observations, 300, np.random.default_rng(0))
        names = [port.name for port in make_ports(*exported, sample=False).observation]
        by_key = dict(zip(names, values, strict=True))
        mask = by_key["action_mask"]
        assert mask[:, :2].any(1).all()
        assert mask[:, 2:].any(1).all()
        assert 0 < mask.mean() < 1
        for i in range(300):
            row = {key: value[i] for key, value in by_key.items()}
            nested = {
                "robot": {"arm": row["robot.arm"], "on": row["robot.on"]},
                "camera": row["camera"],
                "at": (row["at.0"], row["at.1"]),
                "action_mask": row["action_mask"],
            }
            assert NESTED.contains(nested)


def test_names_that_are_taken_or_unsafe(tmp_path):
    keys = ("state", "action", "linear", "inner", "a b", "a_b", "tanh")
    observations = spaces.Dict({key: spaces.Box(-1, 1, (2,)) for key in keys})
    exported = build(observations, spaces.Discrete(3), memory="gru", memory_size=4)
    run, ports = exported.write(tmp_path / "policy.onnx", "onnx")
    names = {port.path[0]: port.name for port in ports.observation}
    assert names["state"] == "state_2"
    assert names["action"] == "action_2"
    assert {names["a b"], names["a_b"]} == {"a_b", "a_b_2"}
    onnx.checker.check_model(onnx.load(tmp_path / "policy.onnx"))
    assert check_parity(run, ports, *exported).difference <= TOLERANCE


def test_files_describe_themselves(tmp_path):
    exported = CASES["LSTM"]()
    exported.write(tmp_path / "policy.onnx", "onnx", sample=True)
    exported.write(tmp_path / "policy.pt", "torchscript", sample=True)
    model = onnx.load(tmp_path / "policy.onnx")
    (description,) = [entry.value for entry in model.metadata_props if entry.key == "ppo_cli"]
    files = {"ppo_cli.json": ""}
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.load(tmp_path / "policy.pt", _extra_files=files)
    assert json.loads(files["ppo_cli.json"]) == json.loads(description)
    told = json.loads(description)
    assert told["env"] == "Test-v0"
    assert [port["name"] for port in told["inputs"]] == ["observation", "state", "noise"]
    assert [port["name"] for port in told["outputs"]] == ["action", "next_state"]
    assert [port["shape"] for port in told["inputs"]] == [[3], [16], [4]]
    graph = model.graph
    assert [i.name for i in graph.input] == ["observation", "state", "noise"]
    assert {i.type.tensor_type.shape.dim[0].dim_param for i in (*graph.input, *graph.output)} == {"batch"}
    assert [(each.domain, each.version) for each in model.opset_import if not each.domain] == [("", 18)]


def test_files_hold_no_more_than_acting_needs(tmp_path):
    policy = build(VECTOR, spaces.Discrete(3), hidden_sizes=(256, 256), shared=False)
    before = [parameter.clone() for parameter in policy.policy.model.parameters()]
    acting = 4 * sum(p.numel() for p in policy.policy.model.trunk.parameters())
    for kind in WRITERS:
        policy.write(tmp_path / kind, kind)
        assert acting < (tmp_path / kind).stat().st_size < 1.3 * acting  # the value network is as large again
    assert all(map(torch.equal, before, policy.policy.model.parameters()))


class Branching(torch.nn.Module):
    """An encoder that does one thing or another, which a graph can't."""

    def __init__(self, space):
        super().__init__()

    def forward(self, obs):
        return obs if obs.mean() > 0 else obs**2 + 3


@pytest.mark.parametrize("kind", WRITERS)
def test_encoders_that_can_not_be_exported_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("ppo_cli.encoders.load_class", lambda *_: Branching)
    asked = EncoderChoice(by_key={"observation": "branching"})
    exported = build(VECTOR, spaces.Box(-9, 9, (2,)), encoders=asked)
    with pytest.raises(ExportError) as error:
        run, ports = exported.write(tmp_path / "file", kind)
        check_parity(run, ports, *exported)
    assert "\n" not in str(error.value)


@pytest.fixture
def ppo_export(ppo_train, monkeypatch, capfd):
    """A function that runs `ppo-export ARGUMENTS`: status, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ppo-export", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def cartpole(ppo_train):
    """A run with a memory and normalisation, in the folder `run`."""
    outcome = ppo_train(
        "env=CartPole-v1", "total_timesteps=300", "n_envs=2", "n_steps=50", "batch_size=50", "n_epochs=1",
        "eval.episodes=2", "compile=false", "vectorization=sync", "preset=none", "checkpoint.every=1",
        "checkpoint.keep=9",
        "normalize.observations=true", "network.memory=lstm", "network.memory_size=8", "hydra.run.dir=run",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    return Path("run")


BLOCKER = """\
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def run_without(blocked, program, folder):
    """What a program prints where some packages can't be imported."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"BLOCKED = {blocked!r}\n{BLOCKER}")
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def episode_return(policy):
    """Of the policy's own episode, with the seed of the documentation's."""
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    state = policy.initial_state.repeat(1, 1)
    total, done = 0.0, False
    while not done:
        action, state = policy.act(observation[None], states=state)
        observation, reward, terminated, truncated, _ = env.step(action[0])
        total, done = total + float(reward), terminated or truncated
    return total


@pytest.mark.slow
def test_from_the_command_line_to_an_episode_without_this_package(ppo_export, cartpole, tmp_path):
    status, out, err = ppo_export("run")
    assert (status, err) == (0, "")
    assert "run/policy.onnx: observation, state -> action, next_state" in out
    assert float(re.findall(r"1,000 observations (\S+)$", out.strip())[0]) <= TOLERANCE
    expected = episode_return(load_policy(Path("run/checkpoints/last.pt")).batch)

    (example,) = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
    program = f"import os; os.chdir('run')\n{example}"
    printed = run_without(["torch", "ppo_cli", "onnx", "onnxscript"], program, tmp_path / "without")
    assert printed == f"return {expected}\n"

    for arguments in (["run"], ["run", "--format", "torchscript", "--output", "run/policy.onnx"]):
        status, out, err = ppo_export(*arguments)
        assert (status, out) == (2, "")
        assert err == "ppo-export: run/policy.onnx exists; --force replaces it, --output names another file\n"
    before = Path("run/policy.onnx").read_bytes()
    assert ppo_export("run/checkpoints/100.pt", "--force")[0] == 0
    assert Path("run/policy.onnx").read_bytes() != before
    told = json.loads({e.key: e.value for e in onnx.load("run/policy.onnx").metadata_props}["ppo_cli"])
    assert (told["env"], told["steps"], told["sampled"]) == ("CartPole-v1", 100, False)


def test_torchscript_runs_without_this_package(ppo_export, cartpole, tmp_path):
    status, out, err = ppo_export("run", "--format", "torchscript", "--sample", "--checkpoint", "100")
    assert (status, err) == (0, "")
    assert "run/policy.pt: observation, state, noise -> action, next_state" in out
    program = (
        "import torch; f = torch.jit.load('run/policy.pt'); z = torch.zeros\n"
        "print(f({'observation': z(5, 4), 'state': z(5, 16), 'noise': z(5, 2)})['action'].shape)"
    )
    assert run_without(["ppo_cli"], program, tmp_path / "without") == "torch.Size([5])\n"


def test_a_file_that_acts_otherwise_is_not_kept(ppo_export, cartpole, monkeypatch):
    def broken(path, kind):
        run = load(path, kind)
        return lambda inputs: {key: value + 1 for key, value in run(inputs).items()}

    monkeypatch.setattr("ppo_cli.export.files.load", broken)
    before = sorted(Path("run").iterdir())
    status, out, err = ppo_export("run", "--format", "torchscript")
    assert (status, out) == (1, "")
    assert err.startswith("ppo-export: run: action: the file gives")
    assert err.count("\n") == 1
    assert sorted(Path("run").iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["required: RUN"]),
        (("run", "--format", "pickle"), ["pickle", "onnx"]),
        (("nowhere",), ["nowhere: no such folder"]),
        (("begun", "--checkpoint", "best"), ["no checkpoint best"]),
        (("file.pt", "--output", "nowhere/a.onnx"), ["nowhere/a.onnx", "expected a file"]),
        (("file.pt", "--output", "begun"), ["begun", "expected a file"]),
        (("file.pt", "--output", "file.pt", "--force", "--checkpoint", "5"), ["file.pt is a file"]),
    ],
)
def test_bad_input_ends_in_a_line(ppo_export, tmp_path, arguments, words):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").touch()
    (tmp_path / "file.pt").touch()
    status, out, err = ppo_export(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("ppo-export: ")
    assert all(word in err for word in words), err


def test_a_damaged_checkpoint(ppo_export, tmp_path):
    (tmp_path / "file.pt").write_bytes(b"no checkpoint")
    status, out, err = ppo_export("file.pt")
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert "file.pt" in err


def test_without_onnx(ppo_export, monkeypatch):
    monkeypatch.setattr("ppo_cli.cli.export.PACKAGES", ("onnx", "onnx_is_not_there"))
    status, _, err = ppo_export("run")
    assert status == 2
    assert err == (
        "ppo-export: --format onnx needs onnx_is_not_there: pip install 'ppo-cli[onnx]', "
        "or --format torchscript\n"
    )


def test_help_needs_no_pytorch():
    program = (
        "import sys; from ppo_cli.cli.export import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    for arguments, status in ((["--help"], 0), (["nowhere"], 2)):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_nothing_is_written_below_the_home_folder(tmp_path):
    """onnxruntime notes a device id there for its telemetry when it is imported."""
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from pathlib import Path; from ppo_cli.export.graph import load\n"
        "try: load(Path('nowhere.onnx'), 'onnx')\n"
        "except Exception: assert 'onnxruntime' in sys.modules"
    )
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    done = subprocess.run([sys.executable, "-c", program], env={**outside, "HOME": str(home)}, cwd=tmp_path)
    assert done.returncode == 0
    assert list(home.rglob("*")) == []


def test_the_policy_is_left_alone():
    exported = CASES["normalised"]()
    observations = np.random.default_rng(0).normal(size=(5, 3))
    before = exported.policy.act(observations)[0]
    graph = Graph(*exported, sample=False)
    with torch.no_grad():
        next(graph.parameters()).zero_()
    assert np.array_equal(exported.policy.act(observations)[0], before)
    assert all(parameter.requires_grad for parameter in exported.policy.model.parameters())
    assert replace(exported.policy) == exported.policy
