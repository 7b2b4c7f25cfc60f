"""The update as a CUDA graph, on an emulation: what is recorded is done again in the same memory."""

import contextlib

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils._python_dispatch import TorchDispatchMode

from ppo_cli import compiled_step, update
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import flatten_parameters
from ppo_cli.compile.cuda_graph import capture
from ppo_cli.distributions import make_distribution
from ppo_cli.optimizers.rules import adam_init
from ppo_cli.rollout import Batch


class FakeStream:
    def wait_stream(self, other):
        assert isinstance(other, FakeStream)


class FakeGraph(TorchDispatchMode):
    """Records operations with the tensors that they read and wrote, and repeats them on those."""

    def __init__(self):
        super().__init__()
        self.recorded, self.replays = [], 0

    @classmethod
    def _should_skip_dynamo(cls):  # that imports it
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.recorded.append((func, args, kwargs or {}, result))
        return result

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, result in self.recorded:
                again = func(*args, **kwargs)
                before = result if isinstance(result, (list, tuple)) else [result]
                after = again if isinstance(again, (list, tuple)) else [again]
                for old, new in zip(before, after, strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # else a view
                        old.copy_(new)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are captured, by an emulation of what of `torch.cuda` that takes."""
    captured = []

    @contextlib.contextmanager
    def graph(recorder):
        with recorder:
            yield
        captured.append(recorder)

    current = FakeStream()
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return captured


def test_inputs_are_copied_in_and_what_came_out_is_never_overwritten(graphs):
    calls = []

    def double(x):
        calls.append(x)
        return (x * 2,)

    replay = capture(double, [torch.zeros(3)])
    traced = len(calls)
    first, second = torch.ones(3), torch.arange(3.0)
    (of_first,) = replay([first])
    (of_second,) = replay([second])
    assert len(calls) == traced  # the graph runs, not the function
    assert of_first.tolist() == [2, 2, 2]
    assert of_second.tolist() == [0, 2, 4]
    assert first.tolist() == [1, 1, 1]  # the inputs are nobody else's
    assert calls[-1] is not first


class Copies(TorchDispatchMode):
    """Counts the copies of numbers into given memory, by their size."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    @classmethod
    def _should_skip_dynamo(cls):  # that imports it
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.copy_.default:
            self.sizes.append(args[0].numel())
        return func(*args, **(kwargs or {}))


def test_an_input_is_copied_again_only_where_it_is_another_or_was_changed(graphs, monkeypatch):
    replay = capture(lambda x, y: (x.sum() + y,), [torch.zeros(1000), torch.zeros(())])
    monkeypatch.setattr(FakeGraph, "replay", lambda graph: None)
    rows = torch.ones(1000)
    for change, copied in (
        (lambda: None, [1000, 1]),
        (lambda: None, [1]),
        (lambda: rows.mul_(2), [1000, 1]),
        (lambda: None, [1]),
        (lambda: rows[3:5].zero_(), [1000, 1]),  # through a view
    ):
        change()
        with Copies() as copies:
            replay([rows, torch.ones(())])
        assert copies.sizes == copied


def test_columns_that_inference_mode_made_are_copied_once(graphs, monkeypatch):
    replay = capture(lambda x: (x + 1,), [torch.zeros(1000)])
    monkeypatch.setattr(FakeGraph, "replay", lambda graph: None)
    with torch.inference_mode():
        rows = torch.ones(1000)
    with Copies() as copies:
        replay([rows])
        replay([rows])
    assert copies.sizes == [1000]
    with pytest.raises(RuntimeError, match="inference"):  # which is why no version has to be looked at
        rows.mul_(2)


def test_the_captured_update_is_the_eager_one(graphs, tmp_path, monkeypatch):
    observations, actions = spaces.Box(-1, 1, (5,), np.float32), spaces.Discrete(3)
    torch.manual_seed(0)
    model, distribution = (
        make_actor_critic(observations, actions, hidden_sizes=(8,)),
        make_distribution(actions),
    )
    params = flatten_parameters(model).clone()
    knobs = {"learning_rate": 3e-4, "clip_ratio": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
    knobs["target_kl"] = 0.05
    hyper = update.Hyperparameters(batch_size=20)
    eager = update.make_step(model, distribution, hyper, tuple(knobs))
    monkeypatch.setattr(
        compiled_step, "compile_function", lambda function, examples, *_: capture(function, examples)
    )
    generator = torch.Generator().manual_seed(0)
    ends = []
    for step in (eager, compiled_step.compile_step(eager, tmp_path)):
        generator.manual_seed(0)
        state = update.first_state(params, adam_init(params), hyper)
        states = [state]
        for _ in range(2):  # iterations
            columns = [torch.randn(60, generator=generator) for _ in range(3)]
            logprobs = torch.full((60,), -np.log(3))
            taken = torch.randint(3, (60,), generator=generator)
            batch = Batch(torch.randn(60, 5, generator=generator), taken, logprobs, *columns)
            values = torch.tensor(list(knobs.values()))
            for rows in torch.randperm(60, generator=generator).view(3, 20):
                state = step(state, batch, rows, torch.ones(20), values)
                states.append(state)
        ends.append(states)
    for first, second in zip(*ends, strict=True):  # the states in between, too, are as they were
        assert torch.equal(first.params, second.params)
        assert torch.equal(first.sums, second.sums)
        assert all(torch.equal(a, b) for a, b in zip(first.optimizer, second.optimizer, strict=True))
    assert not torch.equal(ends[1][-1].params, params)
    assert [graph.replays for graph in graphs] == [6]
