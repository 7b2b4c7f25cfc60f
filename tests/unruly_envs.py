"""Environments that hang, exit, crash, or are there once only, registered as ``unruly_envs:Id``."""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces


class Ten(gym.Env):
    """Episodes of ten steps."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def look(self):
        return np.array([self.t, self.np_random.random()], np.float32)

    def step(self, action):
        self.t += 1
        return self.look(), 1.0, self.t >= 10, False, {}


class Slow(Ten):
    """Everything takes a moment."""

    def __init__(self):
        time.sleep(0.25)

    def step(self, action):
        time.sleep(0.006)
        return super().step(action)


class Hangs(Ten):
    """Hangs in the ``at``-th call of one kind, or in a step after a reset with a seed."""

    calls: "dict[str, int]" = {"make": 0, "reset": 0, "step": 0}  # noqa: RUF012 - shared on purpose

    def __init__(self, what="", at=0, seed=None):
        self.what, self.at, self.seed = what, at, seed
        self.count("make")

    def count(self, call):
        self.calls[call] += 1
        if call == self.what and self.calls[call] >= self.at:
            time.sleep(1000)

    def reset(self, *, seed=None, options=None):
        self.count("reset")
        self.reset_seed = seed
        return super().reset(seed=seed)

    def step(self, action):
        self.count("step")
        if self.seed is not None and self.reset_seed == self.seed:
            time.sleep(1000)
        return super().step(action)


class MuteError(Exception):
    """Can't say what it is."""

    def __str__(self):
        raise RuntimeError


class OwnBaseError(BaseException):
    """Nothing that `except Exception` sees."""


class Ends(Ten):
    """Ends in some way in the 25th step of its life."""

    def __init__(self, mode):
        self.mode, self.steps = mode, 0

    def step(self, action):
        self.steps += 1
        if self.steps % 25 == 0:
            if self.mode == "exit":
                sys.exit()
            elif self.mode == "mute":
                raise MuteError
            elif self.mode == "base":
                raise OwnBaseError("very")
            elif self.mode == "crash":
                faulthandler.disable()  # pytest's
                os.kill(os.getpid(), signal.SIGSEGV)
        return super().step(action)


class FailingReset(Ten):
    """Its second reset fails, and the first of the next ``times - 1`` that are made."""

    left = 0

    def __init__(self, times=1):
        self.times, self.resets = times, 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        if self.resets == 2:
            type(self).left = self.times - 1
            raise RuntimeError("no way back")
        if type(self).left:
            type(self).left -= 1
            raise RuntimeError("no way at all")
        return super().reset(seed=seed)


class FailsOnce(Ten):
    """The first that is made fails in its fifth step."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.number = self.made

    def step(self, action):
        if self.number == 1 and self.t == 4:
            raise RuntimeError("once")
        return super().step(action)


class Server(Ten):
    """Has a process of its own."""

    def __init__(self):
        self.server = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        self.server.start()

    def close(self):
        self.server.kill()


class Window(Ten):
    """Its close() takes for granted that there was a reset."""

    def reset(self, *, seed=None, options=None):
        self.window = None
        return super().reset(seed=seed)

    def close(self):
        if self.window:
            self.window.close()


class Single(Ten):
    """There may be one at a time."""

    there = False

    def __init__(self):
        if Single.there:
            raise RuntimeError("there is one already")
        Single.there = True

    def close(self):
        Single.there = False


class TorchNoise(Ten):
    """Draws from PyTorch's global generator."""

    def look(self):
        return np.array([self.t, torch.rand(()).item()], np.float32)


class Forks(Ten):
    """Starts a process with every 70th step, which ends as a script does."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps % 70 == 0 and not os.fork():
            raise SystemExit
        return super().step(action)


class OneArray(Ten):
    """All environments write their observations into one array."""

    array = np.zeros(2, np.float32)

    def look(self):
        self.array[:] = super().look()
        return self.array


for env in (Slow, Hangs, Ends, FailingReset, FailsOnce, Server, Window, Single, TorchNoise, Forks, OneArray):
    gym.register(f"{env.__name__}-v0", env)
