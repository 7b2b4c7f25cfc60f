"""The life of a process of a run that is not the first: it is told what to run, and follows."""

import logging
import os
import signal
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ppo_cli.collective import Collective
from ppo_cli.config.convert import from_dict, to_dict
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.errors import EnvError, RunError
from ppo_cli.hooks import RunState, telling_hooks
from ppo_cli.runs.build import Checked, build_agent, check_environment
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.runs.checkpointing import begin, restore
from ppo_cli.runs.environments import make_envs, make_shards
from ppo_cli.runs.init_from import Beginning
from ppo_cli.runs.own_hooks import make_evaluating
from ppo_cli.runs.processes import Following, meet
from ppo_cli.runs.pulse import Pulse
from ppo_cli.runs.ranks import here, is_first_here
from ppo_cli.runs.signals import StopSignal, end_children, no_advice
from ppo_cli.runs.watchdog import Watchdog
from ppo_cli.text import flat
from ppo_cli.trainer import train

# What a line of the first process explains; anything else is a fault of ours, and is printed whole.
EXPLAINED = EnvError, EnvFaultError, RunError, FloatingPointError, OSError, MemoryError


def lead(checked: Checked, saved: Checkpoint | None, collective: Collective) -> None:
    """Tells the other processes what is run.

    Args:
        checked: The config.
        saved: The checkpoint that it goes on from, if it does.
        collective: The processes of the run, of which this is the first.
    """
    if collective.processes == 1:
        return
    beginning = None if checked.beginning is None else asdict(checked.beginning)
    if beginning is not None:
        beginning["left_out"] = sorted(beginning["left_out"])
    told = {
        "config": to_dict(checked.config),
        "saved": None if saved is None else saved.payload(),
        "beginning": beginning,
    }
    collective.plain_of_first(told)


def follow(pulse: Pulse) -> None:
    """Runs what the first process tells, as one of the others, which say nothing.

    Args:
        pulse: What tells the first process how this one ends.
    """
    try:
        _follow_first()
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        gone = pulse.lost_by_signal(number)
        end_children()
        # Whatever is around would say that it was interrupted.
        os._exit(int(gone.code or 0) if isinstance(gone, SystemExit) else 128 + number)
    except Exception as error:
        if not (isinstance(error, EXPLAINED) or "can't allocate memory" in str(error)):
            raise
        pulse.end(f"{flat(error) or type(error).__name__}; it was {here()}")
        sys.exit(1)


def _follow_first() -> None:
    own = logging.getLogger("ppo_cli")
    own.addHandler(logging.NullHandler())  # the first process alone speaks
    own.propagate = False
    with StopSignal(no_advice, at_once=True) as stop, closing(meet()) as collective:
        told: dict[str, Any] = collective.plain_of_first({})
        saved = None if told["saved"] is None else Checkpoint.checked(told["saved"])
        beginning = told["beginning"]
        if beginning is not None:
            beginning = Beginning(**{**beginning, "left_out": frozenset(beginning["left_out"])})
        checked = check_environment(from_dict(told["config"]), watchdog=False, keep=True, begins=False)
        following = Following(collective, stop, make_evaluating(checked.config).play)
        with Watchdog(checked.config.env.timeout, no_advice):
            _follow(replace(checked, beginning=beginning), saved, following, collective)


def _follow(checked: Checked, saved: Checkpoint | None, following: Following, collective: Collective) -> None:
    config = checked.config
    torch.set_num_threads(config.cpu_threads)
    with ExitStack() as opened:
        vectors, _ = make_envs(checked, saved, collective, opened)
        agent = build_agent(config, checked.spaces, collective)
        shards = make_shards(config, agent, vectors, collective)
        if is_first_here():
            agent.compile_ahead(shards.collectors[0].rollout)
        run = RunState(Path(), to_dict(config), agent, shards, config.total_timesteps, following)
        if saved is None:
            begin(run, config, checked.beginning)
        else:
            restore(run, config, saved, [], {})
        with telling_hooks(run):
            train(run)
        if not following.has_ended:
            following.listen(run)
