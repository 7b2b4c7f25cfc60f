"""The life of a process of a run that is not the first: it is told what to run, and follows."""

import logging
import os
import socket
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ppo_cli.collective import Collective
from ppo_cli.config.convert import from_dict, to_dict
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.errors import EnvError, RunError, UserCodeError
from ppo_cli.hooks import RunState, telling_hooks
from ppo_cli.runs.build import Checked, build_agent, check_environment
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.runs.checkpointing import begin, restore
from ppo_cli.runs.environments import make_envs, make_shards
from ppo_cli.runs.init_from import Beginning
from ppo_cli.runs.own_hooks import make_evaluating
from ppo_cli.runs.processes import Following, WeightsError, meet
from ppo_cli.runs.ranks import is_first_here, rank
from ppo_cli.runs.signals import Interrupted, StopSignal, end_children, no_advice
from ppo_cli.runs.watchdog import Watchdog
from ppo_cli.trainer import train


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


def follow() -> None:
    """Runs what the first process tells, as one of the others.

    What ends all of them that one says: this one only what it alone knows.

    Raises:
        RunError: Something of its own went wrong, such as an environment.
        SystemExit: Another process is gone, or all come to the same end.
    """
    try:
        _follow_first()
    except Interrupted as error:
        end_children()
        os._exit(128 + error.number)  # whatever is around would say that it was interrupted
    except (ConnectionError, FloatingPointError, WeightsError):
        sys.exit(1)
    except (EnvError, EnvFaultError, UserCodeError, OSError) as error:
        raise RunError(f"{error}; {_which()}") from error


def _follow_first() -> None:
    own = logging.getLogger("ppo_cli")
    own.addHandler(logging.NullHandler())  # the first process alone speaks
    own.propagate = False
    with StopSignal(no_advice, at_once=True) as signal, closing(meet()) as collective:
        told: dict[str, Any] = collective.plain_of_first({})
        saved = None if told["saved"] is None else Checkpoint.checked(told["saved"])
        beginning = told["beginning"]
        if beginning is not None:
            beginning = Beginning(**{**beginning, "left_out": frozenset(beginning["left_out"])})
        checked = check_environment(from_dict(told["config"]), watchdog=False, keep=True, begins=False)
        following = Following(collective, signal, make_evaluating(checked.config).play)
        with Watchdog(checked.config.env.timeout, _which):
            _follow(replace(checked, beginning=beginning), saved, following, collective)


def _which() -> str:
    """Which process this is."""
    return f"it was process {rank()} on {socket.gethostname()}"


def _follow(checked: Checked, saved: Checkpoint | None, following: Following, collective: Collective) -> None:
    config = checked.config
    torch.set_num_threads(config.cpu_threads)
    with ExitStack() as opened:
        vectors, _ = make_envs(checked, saved, collective, opened)
        agent = build_agent(config, checked.spaces, collective)
        shards = make_shards(config, agent, vectors, collective)
        if is_first_here():
            agent.compile_ahead(shards.collectors[0].rollout)
        collective.watch(no_advice)
        run = RunState(Path(), to_dict(config), agent, shards, config.total_timesteps, following)
        if saved is None:
            begin(run, config, checked.beginning)
        else:
            restore(run, config, saved, [], {})
        with telling_hooks(run):
            train(run)
        if not following.has_ended:
            following.listen(run)
