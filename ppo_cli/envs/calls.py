"""Calls of environments' own code, as a watchdog in another process sees them.

Each process has a slot of two integers: a mark that says what it calls, 0 while it calls nothing, and a count
that goes up, so that two calls never look alike. The hot loop of `EnvGroup` writes its marks itself.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import gymnasium as gym

Slot = memoryview  # int64 [2]: mark, count

WIDTH = 2
SLOTS = 1024  # processes of a run that a watchdog can see: more than there are cores
IDLE = 0


class Call(IntEnum):
    """What is called."""

    STEP = 0
    RESET = 1
    MAKE = 2
    CLOSE = 3


_slots: Slot = memoryview(bytearray(8 * WIDTH * SLOTS)).cast("q")
_own: Slot = _slots[:WIDTH]
_process: int | None = None  # that reports there


def report_to(slots: Slot) -> Slot:
    """Reports into other memory from now on, int64 [SLOTS * WIDTH]; returns where it went before."""
    global _slots, _own, _process
    _process = os.getpid()
    before, _slots = _slots, slots
    _own = slots[:WIDTH]
    return before


def use_slot(number: int) -> None:
    """Reports into a slot of its own, as a forked process has to."""
    global _own, _process
    _process = os.getpid()
    first = WIDTH * min(number, SLOTS - 1)
    _own = _slots[first : first + WIDTH]


def own_slot() -> Slot:
    """This process's slot."""
    return _own


def mark(what: Call, env: int | None = None) -> int:
    """What stands for a call of one environment, by its number among all; None for one without a number."""
    return 1 + what + len(Call) * (0 if env is None else env + 1)


def describe(marked: int) -> str:
    """A mark in words."""
    env, what = divmod(marked - 1, len(Call))
    which = f"environment {env - 1}" if env else "an environment"
    verb = {Call.STEP: "a step of", Call.RESET: "a reset of", Call.MAKE: "making", Call.CLOSE: "closing"}
    return f"{verb[Call(what)]} {which}"


@contextmanager
def calling(what: Call, env: int | None = None) -> Iterator[None]:
    """Marks a call, which is over at the end."""
    _own[1] += 1
    _own[0] = mark(what, env)
    try:
        yield
    finally:
        _own[0] = IDLE


def let_interrupt_pass(error: BaseException) -> None:
    """Raises an interrupt again; all else that is raised, `sys.exit()` too, is a fault of what it called.

    A process that the environment has forked ends here: it is not the run, and must not become a second one.
    """
    if _process is not None and os.getpid() != _process:
        os._exit(1)
    if isinstance(error, KeyboardInterrupt):
        raise error


@contextmanager
def closing(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Closes an environment at the end."""
    try:
        yield env
    finally:
        close(env)


def close(env: gym.Env[Any, Any], number: int | None = None) -> None:
    """Closes an environment, which is not needed any more: what it raises then ends nothing."""
    with calling(Call.CLOSE, number):
        try:
            env.close()
        except BaseException as error:  # such as of a window that only a reset opens
            let_interrupt_pass(error)
