"""Runs that were trained alike but for their seed, read from folders into groups of each environment."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppo_cli.errors import ConfigError
from ppo_cli.report.broken import BrokenRunError
from ppo_cli.report.knobs import ARROW, annealed, annealed_knob, order_of, shown
from ppo_cli.report.runs import FailedRun, Run, find_runs, read_run

ABSENT = "unset"  # a knob that another run's config has and this one's lacks


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in their seed alone.

    Attributes:
        name: The knobs in which the groups of this environment differ, an annealed one as ``0.1→0``, or the
            environment's id.
        knobs: The values of those knobs, and how they are annealed, as they are typed.
        runs: The runs in the order of their seeds, each seed once, failed ones among them; may be none.
        failed: The runs that failed before they had anything to compare.
    """

    name: str
    knobs: Mapping[str, str]
    runs: tuple[Run, ...]
    failed: tuple[FailedRun, ...] = ()


def called(typed: str, groups: Sequence[RunGroup]) -> list[RunGroup]:
    """The groups of one environment that have a typed name, with ``->`` for the arrow.

    Where none has it, those that would without how they are annealed.
    """
    name = typed.replace("->", ARROW)
    exact = [group for group in groups if group.name == name]
    return exact or [group for group in groups if re.sub(rf"{ARROW}[^,]*", "", group.name) == name]


def read_groups(roots: Sequence[Path], leave_out: Callable[[str], None]) -> dict[str, list[RunGroup]]:
    """The groups of each environment, of all runs at or below folders.

    Args:
        roots: The folders.
        leave_out: A function that is told, in a line, of each run and folder that is left out, and why.

    Raises:
        ConfigError: One is no folder, or there is no run.
    """
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"{root} is no folder")
    runs: list[Run | FailedRun] = []
    for folder in find_runs(roots, lambda error: leave_out(f"{error.filename}: {error.strerror}")):
        try:
            runs.append(read_run(folder))
        except BrokenRunError as error:  # noqa: PERF203 - each is left out on its own
            leave_out(f"{folder}: {error}")
    if not runs:
        raise ConfigError(f"no run to report in {', '.join(map(str, roots))}")
    environments, repeated = group_runs(runs)
    for line in repeated:
        leave_out(line)
    return environments


def group_runs(runs: Iterable[Run | FailedRun]) -> tuple[dict[str, list[RunGroup]], list[str]]:
    """Groups of each environment, in the order of their knobs' values, and a line on each run left out.

    A second run of one config and seed is the same experiment again and would make intervals too narrow.
    """
    environments: dict[str, dict[tuple[tuple[str, str], ...], dict[int, Run | FailedRun]]] = {}
    left_out = []
    for run in runs:
        groups = environments.setdefault(run.env_id, {})
        seeds = groups.setdefault(tuple(sorted(run.knobs.items())), {})
        other = seeds.get(run.seed)
        if other is not None:
            kept, rest = (run, other) if _extent(run) > _extent(other) else (other, run)
            left_out.append(f"{rest.folder}: repeats seed {run.seed} of {kept.folder}")
            run = kept
        seeds[run.seed] = run
    named = {
        env_id: _named(env_id, [[seeds[seed] for seed in sorted(seeds)] for seeds in groups.values()])
        for env_id, groups in sorted(environments.items())
    }
    return named, left_out


def _named(env_id: str, members: list[list[Run | FailedRun]]) -> list[RunGroup]:
    every = [runs[0].knobs for runs in members]
    names = list(dict.fromkeys(name for knobs in every for name in knobs))
    differing = [name for name in names if len({knobs.get(name, ABSENT) for knobs in every}) > 1]
    # A knob is named where its value differs, or how it is annealed; that is shown with it.
    labelled = list(dict.fromkeys(annealed_knob(name, names) or name for name in differing))
    groups = []
    for runs in members:
        own = runs[0].knobs
        knobs = {name: own.get(name, ABSENT) for name in differing}
        label = ",".join(f"{name}={own.get(name, ABSENT)}{annealed(own, name)}" for name in labelled)
        whole = tuple(run for run in runs if isinstance(run, Run))
        failed = tuple(run for run in runs if isinstance(run, FailedRun))
        groups.append(RunGroup(shown(label) or env_id, knobs, whole, failed))
    return sorted(groups, key=lambda group: [order_of(value) for value in group.knobs.values()])


def _extent(run: Run | FailedRun) -> tuple[bool, bool, int]:
    return isinstance(run, Run), isinstance(run, Run) and run.evaluated is not None, run.last_step
