"""Compiling ahead of time: the same values, found again in the cache, and no run lost where it fails."""

import logging
import os
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_cli import cache, compiled_step, update
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import flatten_parameters
from ppo_cli.compile import Axis, compile_function, explain_failure
from ppo_cli.distributions import make_distribution
from ppo_cli.optimizers.rules import adam_init
from ppo_cli.rollout import Batch, minibatches, sequences
from ppo_cli.runs.build import compile_cache
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.spaces import PackedActions, PackedObservations

SCALE = torch.tensor([2.0, 3.0])


def function(x, y):
    (grad,) = torch.autograd.grad((x.detach().requires_grad_() * y).sum(), y, allow_unused=True)
    return x * SCALE + y, grad


def test_a_library_is_compiled_once_and_found_again(tmp_path, monkeypatch):
    examples = [torch.ones(4, 2), torch.ones(4, 2, requires_grad=True)]

    def refuse(*_args, **_kwargs):
        raise AssertionError("compiled again")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", refuse)  # the shortcuts work here
    library = compile_function(function, examples, tmp_path)
    inputs = [torch.randn(4, 2), torch.randn(4, 2)]
    expected = (inputs[0] * SCALE + inputs[1], inputs[0])
    for found, right in zip(library(inputs), expected, strict=True):
        torch.testing.assert_close(found, right)
    assert len(list(tmp_path.glob("*.pt2"))) == 1

    monkeypatch.setattr("ppo_cli.compile.library.build", refuse)
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
        monkeypatch.setattr(compiled_step, "compile_function", fail)
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
KNOBS = {"learning_rate": 3e-4, "clip_ratio": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}


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
    params = flatten_parameters(model).clone()
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(rows, 5, generator=generator)
    with torch.no_grad():
        logits = model.policy(observations)
        taken = distribution.sample(logits, distribution.noise((rows,), generator))
        logprobs = distribution.log_prob(logits, taken)
    columns = (torch.randn(rows, generator=generator) for _ in range(3))
    batch = Batch(observations, taken, logprobs, *columns)
    hyper = update.Hyperparameters()
    eager = update.make_step(model, distribution, hyper, (*KNOBS, "target_kl"))
    values = torch.tensor([*KNOBS.values(), 0.05])
    ends = []
    for step in (eager, compiled_step.compile_step(eager, tmp_path)):
        state = update.first_state(params, adam_init(params), hyper)
        shuffle = torch.Generator().manual_seed(1)
        for _ in range(4):
            for indices, weights in minibatches(
                sequences(torch.ones(rows, 1, dtype=torch.bool), 1), size, shuffle
            ):
                state = step(state, batch, indices, weights, values)
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
        (OBSERVATIONS, CONTINUOUS, {"box_policy": "beta", "memory": "gru"}),
        (OBSERVATIONS, CONTINUOUS, {"box_policy": "categorical", "trunk": "simba", "shared": False}),
        (OBSERVATIONS, CONTINUOUS, {"log_std": "softplus", "log_std_max": 0.0}),
        (OBSERVATIONS, CONTINUOUS, {"log_std_max": -0.5, "log_std_init": -0.5}),
    ],
    ids=["lstm", "gru-packed-masked", "packed-squashed-product", "beta", "bins-simba", "softplus", "bounded"],
)
def test_compiled_and_eager_updates_agree_in_every_network(tmp_path, observations, actions, options):
    n_steps, n_envs, length, size = 10, 3, 4, 16  # sequences are ragged
    rows = n_steps * n_envs
    torch.manual_seed(0)
    model = make_actor_critic(observations, actions, hidden_sizes=(16,), memory_size=8, **options)
    policy = options.get("box_policy", "gaussian")
    distribution = make_distribution(actions, options.get("squash_actions", False), policy)
    params = flatten_parameters(model).clone()
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
    memory = [torch.randn(rows, model.state_size, generator=generator)] if model.state_size else []
    with torch.no_grad():
        logits = model.policy(obs, *memory)
        taken = distribution.sample(logits, distribution.noise((rows,), generator))
        logprobs = distribution.log_prob(logits, taken)
    columns = [torch.randn(rows, generator=generator) for _ in range(3)]
    starts = [(torch.rand(rows, 1, generator=generator) < 0.2).float()] if memory else []
    batch = Batch(obs, taken, logprobs, *columns, *memory, *starts)
    length = length if memory else 1
    hyper = update.Hyperparameters(sequence_length=length)
    eager = update.make_step(model, distribution, hyper, tuple(KNOBS))
    values = torch.tensor(list(KNOBS.values()))
    ends = []
    for step in (eager, compiled_step.compile_step(eager, tmp_path, length)):
        state = update.first_state(params, adam_init(params), hyper)
        shuffle = torch.Generator().manual_seed(1)
        for _ in range(3):
            valid = torch.ones(n_steps, n_envs, dtype=torch.bool)
            for indices, weights in minibatches(sequences(valid, length), size, shuffle):
                state = step(state, batch, indices, weights, values)
        ends.append(state)
    first, second = ends
    assert len(list(tmp_path.glob("*.pt2"))) == 1
    assert not torch.equal(first.params, params)
    torch.testing.assert_close(second.params, first.params, rtol=0, atol=1e-5)
    torch.testing.assert_close(second.sums, first.sums, rtol=1e-4, atol=1e-4)


def build_none(monkeypatch, built=b"a library"):
    """Has compiling and loading done by fakes, which note where they compile and what they load."""
    done = SimpleNamespace(compiled=[], loaded=[])

    def compile_in(function, examples, axes, work):
        done.compiled.append(work)
        (work / "library.pt2").write_bytes(built)
        return work / "library.pt2"

    def load(package):
        done.loaded.append(package.read_bytes())
        return lambda inputs: inputs

    monkeypatch.setattr("ppo_cli.compile.library.build", compile_in)
    monkeypatch.setattr("ppo_cli.compile.library._load", load)
    return done


EXAMPLES = [torch.ones(4, 2), torch.ones(4, 2, requires_grad=True)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:4]),
        lambda path: path.write_bytes(b"evil"),
        lambda path: (path.rename(path.with_name("real")), path.symlink_to("real")),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.chmod(0o666),
        lambda path: path.rename(path.with_name(f"{path.name[:32]}.pt2")),  # of an earlier version
    ],
    ids=["empty", "truncated", "other", "link", "fifo", "writable", "unsigned"],
)
def test_what_is_not_as_it_was_compiled_is_never_loaded_and_compiled_anew_once(tmp_path, monkeypatch, damage):
    done = build_none(monkeypatch)
    compile_function(function, EXAMPLES, tmp_path)
    (package,) = tmp_path.glob("*.pt2")
    damage(package)
    compile_function(function, EXAMPLES, tmp_path)
    compile_function(function, EXAMPLES, tmp_path)
    assert len(done.compiled) == 2
    assert done.loaded == [b"a library"] * 3
    assert package.read_bytes() == b"a library"


def test_a_library_that_does_not_load_is_compiled_anew(tmp_path, monkeypatch):
    done = build_none(monkeypatch)
    compile_function(function, EXAMPLES, tmp_path)

    def refuse(package):
        monkeypatch.setattr("ppo_cli.compile.library._load", lambda package: done.loaded.append(package))
        raise RuntimeError("of another PyTorch")

    monkeypatch.setattr("ppo_cli.compile.library._load", refuse)
    compile_function(function, EXAMPLES, tmp_path)
    assert len(done.compiled) == 2
    assert len(list(tmp_path.glob("*.pt2"))) == 1


def rows_of(length):
    return [torch.ones(length, 2), torch.ones(length, 2)]


ANY = [Axis("rows", 2)] * 2


def test_one_library_serves_every_length_and_none_that_it_was_not_made_for(tmp_path, monkeypatch):
    done = build_none(monkeypatch)
    for length in (2, 4, 61, 1000):
        compile_function(lambda x, y: (x + y,), rows_of(length), tmp_path, ANY)
    assert len(done.compiled) == 1
    compile_function(lambda x, y: (x + y,), rows_of(1), tmp_path, ANY)  # below the least
    compile_function(lambda x, y: (x + y,), rows_of(4), tmp_path)
    compile_function(lambda x, y: (x - y,), rows_of(4), tmp_path, ANY)
    assert len(done.compiled) == 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (x + y if len(x) > 3 else x - y,),
        lambda x, y: (x + y if x.shape[0] > 3 else x - y,),
        lambda x, y: (x * x.shape[0] + y.view(61, 2) if x.shape[0] == 61 else x - y,),
    ],
    ids=["len", "threshold", "equality"],
)
def test_what_asks_for_a_length_is_compiled_for_one_after_a_line(tmp_path, monkeypatch, caplog, function):
    lengths = []

    def compile_graph(graph, examples, options):
        lengths.append(tuple(examples[0].shape))
        return [b"a library"]

    monkeypatch.setattr("ppo_cli.compile.library._load", lambda package: lambda inputs: inputs)
    monkeypatch.setattr(torch._inductor, "aot_compile", compile_graph)
    monkeypatch.setattr(
        "torch._inductor.package.package.package_aoti", lambda path, files: Path(path).write_bytes(*files)
    )
    with caplog.at_level(logging.INFO, "ppo_cli"):
        compile_function(function, rows_of(5), tmp_path, ANY)
    compile_function(function, rows_of(5), tmp_path, ANY)  # is there, and nothing is traced
    assert lengths == [(5, 2)]
    assert caplog.text.count("serves this batch_size, n_steps and n_envs alone") == 1


@pytest.mark.parametrize("shortcut", ["torch._inductor.aot_compile", "ppo_cli.compile.build.shortcuts"])
def test_where_a_shortcut_fails_it_is_compiled_as_documented_for_every_length(
    tmp_path, monkeypatch, shortcut
):
    taken = []

    def refuse(*_args, **_kwargs):
        raise RuntimeError("another version of PyTorch")

    def package(exported, package_path, inductor_configs):
        taken.append((len(exported.range_constraints), inductor_configs))
        Path(package_path).write_bytes(b"a library")

    monkeypatch.setattr("ppo_cli.compile.library._load", lambda package: None)
    monkeypatch.setattr(shortcut, refuse)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", package)
    compile_function(lambda x, y: (x + y,), rows_of(5), tmp_path, ANY)
    ((lengths, options),) = taken
    assert lengths == 1
    assert "cpp.vec_isa_ok" not in options  # the compiler is asked what it knows


def test_a_compiler_that_fails_says_so_in_its_error_alone(tmp_path, monkeypatch):
    said = []

    def fail(*_args, **_kwargs):
        said.append(logging.getLogger("torch._inductor.scheduler").isEnabledFor(logging.CRITICAL))
        raise RuntimeError("no working compiler")

    monkeypatch.setattr(torch._inductor, "aot_compile", fail)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(RuntimeError, match="no working compiler"):
        compile_function(lambda x, y: (x + y,), rows_of(5), tmp_path, ANY)
    assert said == [False, False]
    assert logging.getLogger("torch._inductor.scheduler").isEnabledFor(logging.CRITICAL)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary folder that users share."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    cache._temporary_folder.cache_clear()
    yield folder
    cache._temporary_folder.cache_clear()


def test_a_folder_is_made_for_this_user_alone(tmp_path):
    made = cache.trusted_folder(tmp_path / "home" / "ppo-cli" / "compiled")
    assert made == tmp_path / "home" / "ppo-cli" / "compiled"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize("where", ["writable", "link", "file", "other"])
def test_a_folder_that_others_may_have_filled_is_passed_over_with_a_line(
    tmp_path, temporary, monkeypatch, caplog, where
):
    build_none(monkeypatch)
    own = tmp_path / "own"
    if where == "file":
        own.touch()
    elif where == "link":
        own.symlink_to(temporary)
    else:
        own.mkdir()
        own.chmod(0o777 if where == "writable" else 0o755)
    if where == "other":
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setattr(
            cache, "_refusal", lambda path, real=cache._refusal: real(path) if path == own else None
        )
        (temporary / "ppo-cli-12345").mkdir()
    with caplog.at_level(logging.WARNING):
        compile_function(function, EXAMPLES, own)
    said = {
        "writable": "other users can write to it",
        "link": "a link",
        "file": "no folder",
        "other": "another user's",
    }
    (line,) = caplog.messages
    assert line.startswith(f"compiled code is not kept in {own}: ")
    assert said[where] in line
    assert not list(own.glob("*.pt2"))
    assert len(list(temporary.glob("ppo-cli-*/*.pt2"))) == 1


def test_where_another_user_made_our_temporary_folder_first_it_is_a_new_one(temporary, monkeypatch, caplog):
    (temporary / f"ppo-cli-{os.getuid()}").mkdir()
    (temporary / f"ppo-cli-{os.getuid()}").chmod(0o777)
    build_none(monkeypatch)
    monkeypatch.setattr("ppo_cli.runs.build.user_cache_path", lambda name: Path("/proc/not/to/be/made"))
    with caplog.at_level(logging.WARNING):
        compile_function(function, EXAMPLES, compile_cache())
    (line,) = caplog.messages
    assert "other users can write to it" in line
    assert not list(temporary.glob(f"ppo-cli-{os.getuid()}/*"))
    (package,) = temporary.glob("ppo-cli-*/*.pt2")
    assert stat.S_IMODE(package.parent.stat().st_mode) == 0o700


def test_where_the_cache_can_not_be_written_to_libraries_are_found_there_and_kept_elsewhere(
    tmp_path, temporary, monkeypatch
):
    done = build_none(monkeypatch)
    own = tmp_path / "own"
    own.mkdir(mode=0o755)
    compile_function(function, EXAMPLES, own)
    monkeypatch.setattr(cache, "_is_writable", lambda folder: folder != own)
    compile_function(function, EXAMPLES, own)
    other = [torch.ones(5, 2), torch.ones(5, 2, requires_grad=True)]
    for _ in range(2):
        compile_function(function, other, own)
    assert len(done.compiled) == 2
    assert len(list(own.glob("*.pt2"))) == len(list(temporary.glob("ppo-cli-*/*.pt2"))) == 1


def test_on_a_full_disk_what_is_compiled_runs_and_a_line_says_that_it_is_not_kept(
    tmp_path, monkeypatch, caplog
):
    done = build_none(monkeypatch)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        compile_function(function, EXAMPLES, tmp_path)
    assert caplog.messages == [
        "what is compiled can't be kept for other runs: [Errno 28] No space left on device"
    ]
    assert done.loaded == [b"a library"]
    assert list(tmp_path.iterdir()) == []


def test_the_workshop_has_a_name_that_needs_no_quotes(tmp_path, monkeypatch):
    odd = tmp_path / "a b'é"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with cache.workshop() as work:
        assert cache.PLAIN.fullmatch(str(work))
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert not work.exists()


def test_the_reason_is_what_the_compiler_said():
    from torch._inductor.exc import CppCompileError

    error = CppCompileError(
        ["g++", "x.cpp"], "In file included\nx.cpp:1: fatal error: omp.h: No such file\nmore"
    )
    assert explain_failure(error) == "x.cpp:1: fatal error: omp.h: No such file"
    outer = RuntimeError("it failed")
    outer.__cause__ = OSError(28, "No space left on device")
    assert explain_failure(outer) == "[Errno 28] No space left on device"
    assert explain_failure(ValueError()) == "ValueError"


@pytest.mark.slow
def test_it_compiles_where_every_folder_has_a_space_and_a_quote_in_its_name(tmp_path, monkeypatch):
    odd = tmp_path / "my 'home' é"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(odd / "inductor"))
    inputs = [torch.randn(4, 2), torch.randn(4, 2)]
    total, grad = compile_function(function, EXAMPLES, odd / "compiled")(inputs)
    torch.testing.assert_close(total, inputs[0] * SCALE + inputs[1])
    torch.testing.assert_close(grad, inputs[0])
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(odd / "inductor")
    assert len(list(odd.glob("compiled/*.pt2"))) == 1
