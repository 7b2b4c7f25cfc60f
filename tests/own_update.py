"""What a stranger's module may hold for the update: losses and optimizers, good ones and bad ones."""

import random
from typing import NamedTuple

import torch

from ppo_cli.losses import weighted_mean

VALUE = 3


def soft_clip(terms, width=1.0):
    """An objective: the surrogate with a smooth bound."""
    bounded = 1 + terms.clip_ratio * torch.tanh((terms.ratio - 1) / (width * terms.clip_ratio))
    return -weighted_mean(torch.min(terms.ratio, bounded) * terms.advantages, terms.weights)


def confidence(terms, power=2):
    """An extra loss: logits that are large."""
    return weighted_mean((terms.logits**power).sum(-1), terms.weights)


def drift(terms):
    """Another: values that move."""
    return weighted_mean((terms.values - terms.old_values) ** 2, terms.weights)


def expectile(terms, tau=0.7):
    """A value loss: values below their targets count more."""
    error = terms.returns - terms.values
    return weighted_mean(torch.where(error > 0, tau, 1 - tau) * error**2, terms.weights)


def entropy(terms):
    """One with a name that is taken."""
    return terms.values.mean()


def ent(terms):
    """One whose coefficient would have a name that is taken."""
    return terms.values.mean()


def somebody_elses(path, mode="r"):
    """A function of some library's, which was not written for this."""
    raise AssertionError("it is never called")


def rows(terms):
    """One that forgets to average."""
    return terms.values


def nothing(terms):
    """One that forgets to return."""


def broken(terms):
    """One with a slip in it."""
    return terms.value.mean()


def untraceable(terms):
    """One whose control flow depends on values."""
    return terms.values.mean() if terms.values.sum().item() > 0 else 2 * terms.values.mean()


def noisy(terms):
    """One that draws from PyTorch's global generator."""
    return weighted_mean(torch.rand_like(terms.values) * terms.values, terms.weights)


def drawn(terms):
    """One that draws from Python's, which is no operation."""
    return random.random() * terms.values.mean()


def double(terms):
    """One in double precision."""
    return weighted_mean(terms.values, terms.weights).double()


def in_place(terms):
    """One that changes what others are given."""
    return terms.ratio.clamp_(0.8, 1.2).mean()


class Backless(torch.autograd.Function):
    """Has no backward pass."""

    @staticmethod
    def forward(_, x):
        return x.clone()


def backless(terms):
    """One without a gradient."""
    return Backless.apply(terms.values).mean()


class LionState(NamedTuple):
    momentum: torch.Tensor
    count: torch.Tensor


class Lion:
    """The sign of a running direction (Chen et al. 2023)."""

    def init(self, params, shapes):
        assert sum(shape.numel() for shape in shapes) == len(params)
        return LionState(torch.zeros_like(params), torch.zeros((), dtype=torch.int64))

    def step(self, params, grad, state, learning_rate, shapes, betas=(0.9, 0.99)):
        direction = torch.lerp(grad, state.momentum, betas[0]).sign()
        momentum = torch.lerp(grad, state.momentum, betas[1])
        return params - learning_rate * direction, LionState(momentum, state.count + 1)


lion = Lion()


class NeedsMore(Lion):
    def __init__(self, what):
        pass


class StepOnly:
    def step(self, params, grad, state, learning_rate, shapes):
        return params, state


class NoState(Lion):
    def init(self, params, shapes):
        return {"momentum": params}


class Anchored(Lion):
    """Keeps the weights that it was given first."""

    def init(self, params, shapes):
        return LionState(params, torch.zeros((), dtype=torch.int64))

    def step(self, params, grad, state, learning_rate, shapes):
        return params - learning_rate * grad, state


class InPlace(Lion):
    def step(self, params, grad, state, learning_rate, shapes):
        state.momentum.add_(grad)
        return params - learning_rate * state.momentum, state


class HalfStep(Lion):
    def step(self, params, grad, state, learning_rate, shapes):
        return params - learning_rate * grad


class ForgetsState(Lion):
    def step(self, params, grad, state, learning_rate, shapes):
        return params - learning_rate * grad, (state.momentum,)
