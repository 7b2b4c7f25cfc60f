"""Compiling ahead of time: the same values, found again in the cache, and no run lost where it fails."""

import logging

import pytest
import torch

from ppo_cli import agent
from ppo_cli.checkpoint import load_checkpoint
from ppo_cli.compiled import compile_function

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
