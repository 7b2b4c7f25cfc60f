"""Runs ppo-train inside the test process, in an empty folder."""

import copy
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from run_hooks import Interrupt

from ppo_cli.cli.train import main


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def no_waiting() -> Iterator[None]:
    """No test pulls the plug, so none waits for a disk; and a config file that is as it was is read once.

    Composing a config takes half of what a tiny run does, and reading the same files a quarter of that.
    """
    read, known = OmegaConf.load, {}

    def read_once(file: Any) -> Any:
        if not hasattr(file, "read"):
            return read(file)
        start, text = file.tell(), file.read()
        if text not in known:
            file.seek(start)
            known[text] = read(file)
        return copy.deepcopy(known[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which fails where that would: on what is no open file
        patch.setattr(OmegaConf, "load", staticmethod(read_once))
        yield


@pytest.fixture
def ppo_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """A function that runs `ppo-train ARGUMENTS` in an empty folder (the current one from then on)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # as in an active venv

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ppo-train", *arguments])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def interrupt(monkeypatch):
    """A function that makes runs with `INTERRUPTIBLE` get a signal in an iteration, or (None) no more."""
    monkeypatch.setattr(Interrupt, "at", None)
    monkeypatch.setattr(Interrupt, "number", signal.SIGTERM)

    def at(iteration, number=signal.SIGTERM):
        Interrupt.at, Interrupt.number = iteration, number

    return at
