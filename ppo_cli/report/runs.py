"""Finding runs below folders, reading them, and grouping them by what was trained."""

import csv
import hashlib
import io
import json
import math
import os
import re
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from ppo_cli.config.schema import find_knob
from ppo_cli.envs.backends import backend
from ppo_cli.files import NotPlainError, first_line, printable, read_json, read_text, read_yaml

Floats = npt.NDArray[np.float64]
Status = Literal[
    "finished", "running", "failed"
]  # running: short of its budget, whether it goes on or stands

COLUMNS = ("step", "charts/episodic_return", "charts/SPS")
CUT = "charts/cut_episodes"
INFO = "info/"  # what the columns of an environment's own scalars begin with
FAILED = "failed.txt"  # why a run failed, in its first line
ARROW = "→"
NUMBER = re.compile(r"((?:(?<![\w.])-)?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)")
LAST_SHARE = 0.1  # of the logged returns: what stands for the final return where there is no evaluation
ANNEALS = "anneal."  # the section that says how knobs change over a run: anneal.KNOB.final and .shape
ABSENT = "unset"  # a knob that another run's config has and this one's lacks
# A run's files may be damaged, or anybody's: what is beyond these is none of a run, and would spoil a report.
LONGEST = 256 * 2**20  # bytes of a metrics.csv: a million iterations
MOST_KNOBS = 1_000
MOST_INFOS = 64  # columns of an environment's own scalars that are read
LONGEST_NAME = 200  # characters of a value, and of a group's name, as it is shown
LARGEST = 1e100  # a return, or a knob that is drawn as a number, so that sums and axes stay finite
MOST_STEPS = 2.0**63
DEEPEST = 60  # folders below the one that is asked for


class BrokenRunError(ValueError):
    """A folder can't be read as a run; the message is a few words that say why."""


class NothingYetError(BrokenRunError):
    """A run has logged nothing yet."""


@dataclass(frozen=True)
class Run:
    """One run as far as it has come.

    Attributes:
        folder: where it lies.
        env_id: its environment.
        seed: its seed.
        knobs: what was trained: every other knob that matters, by dotted name, as it is typed.
        budget: ``total_timesteps``.
        last_step: environment steps so far.
        steps: environment steps at each iteration in which an episode ended.
        returns: mean return of the episodes that ended there.
        speed: median of the iterations' steps per second.
        cut_episodes: number of episodes that resuming cut; 0 where the run is that of one that never stopped.
        evaluated: mean return of the final evaluation, or None.
        evaluation: how its evaluations are made, in words.
        status: finished when it has trained to its budget, failed when its folder says so, running otherwise.
        reason: one line on why it failed, or nothing.
        held: whether a process is known to run it now.
        logged_steps: environment steps at each iteration.
        infos: the environment's own scalars by their key, at each of ``logged_steps``, or NaN.
    """

    folder: Path
    env_id: str
    seed: int
    knobs: Mapping[str, str]
    budget: int
    last_step: int
    steps: Floats
    returns: Floats
    speed: float
    cut_episodes: int
    evaluated: float | None
    evaluation: str
    status: Status
    reason: str
    held: bool
    logged_steps: Floats
    infos: Mapping[str, Floats]

    @property
    def final_return(self) -> float:
        """The evaluation's mean, or else the mean of the last tenth of the logged returns."""
        return _last_tenth(self.returns) if self.evaluated is None else self.evaluated

    @property
    def kind(self) -> str:
        """What the final return is of, in words: returns of two kinds are not alike."""
        return "training" if self.evaluated is None else self.evaluation.partition(" ")[2]

    def final_info(self, key: str) -> float:
        """The mean of the last tenth of what was logged of an environment's own scalar; NaN for nothing."""
        values = self.infos.get(key, np.empty(0))
        return _last_tenth(values[np.isfinite(values)])


@dataclass(frozen=True)
class FailedRun:
    """A run that failed before it had anything to compare.

    Attributes:
        folder: where it lies.
        env_id: its environment.
        seed: its seed.
        knobs: as those of a `Run`.
        last_step: environment steps as far as they are logged.
        reason: one line on why it failed.
    """

    folder: Path
    env_id: str
    seed: int
    knobs: Mapping[str, str]
    last_step: int
    reason: str


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        name: the knobs in which the groups of this environment differ, an annealed one as ``0.1→0``, or the
            environment's id.
        knobs: those knobs, and how they are annealed, as they are typed.
        runs: in the order of their seeds, each seed once, failed ones among them; may be none.
        failed: those that failed before they had anything to compare.
    """

    name: str
    knobs: Mapping[str, str]
    runs: tuple[Run, ...]
    failed: tuple[FailedRun, ...] = ()

    def is_called(self, typed: str) -> bool:
        """Whether a typed name is this group's: with ``->`` for the arrow, or without the annealing."""
        return typed.replace("->", ARROW) in (self.name, re.sub(rf"{ARROW}[^,]*", "", self.name))


def find_runs(roots: Iterable[Path], passed_over: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Folders at or below ``roots``, links followed, that are runs or look as if they had become one.

    Each comes once, and a link to a folder that it lies in leads nowhere.

    Args:
        roots: folders to look into.
        passed_over: is told of each folder that can't be read.
    """
    seen = set()
    for root in roots:
        for name, folders, files in os.walk(root, followlinks=True, onerror=passed_over):
            here = Path(name).resolve()
            if here.parts[1:2] in (("proc",), ("sys",)):  # a link to other processes' folders
                folders.clear()
                continue
            if here in seen or (Path(name).is_symlink() and here in Path(name).parent.resolve().parents):
                folders.clear()
                continue
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            # A run that ended before its first row has no metrics.csv; a config alone is no run.
            if "metrics.csv" in files or ("config.yaml" in files and {"train.log", FAILED} & set(files)):
                folders.clear()
                yield Path(name)
            if len(Path(name).parts) - len(root.parts) >= DEEPEST:
                folders.clear()
            seen.add(here)


def read_run(folder: Path) -> Run | FailedRun:
    """Reads a run, finished, still going, or failed.

    Raises:
        BrokenRunError: it has no readable config, or nothing to report and no note that it failed.
    """
    reason = _failure(folder)
    try:
        knobs = _read_config(folder / "config.yaml")
        env_id, seed = _needed(knobs, "env.id"), _whole(knobs, "seed")
        budget, learned = _whole(knobs, "total_timesteps"), _learned(knobs)
        try:
            log = _read_metrics(folder / "metrics.csv")
        except (FileNotFoundError, NothingYetError):
            if not reason:
                raise
            return FailedRun(folder, env_id, seed, learned, 0, reason)
        evaluated = _read_evaluation(folder / "eval.json", log.steps[-1])
    except FileNotFoundError as error:
        raise BrokenRunError(f"it has no {Path(error.filename).name}") from error
    except NotPlainError as error:
        raise BrokenRunError(str(error).removeprefix(f"{folder}{os.sep}")) from error
    except OSError as error:
        raise BrokenRunError(f"{Path(error.filename or folder).name}: {error.strerror}") from error
    last_step = int(log.steps[-1])
    ended = np.isfinite(log.returns)
    if evaluated is None and not ended.any():
        if reason:
            return FailedRun(folder, env_id, seed, learned, last_step, reason)
        raise BrokenRunError("no episode has ended yet")
    sampled = knobs.get("eval.deterministic") == "false"
    return Run(
        folder=folder,
        env_id=env_id,
        seed=seed,
        knobs=learned,
        budget=budget,
        last_step=last_step,
        steps=log.steps[ended],
        returns=log.returns[ended],
        speed=float(np.median(log.speeds)),
        cut_episodes=log.cut_episodes,
        evaluated=evaluated,
        evaluation=f"{knobs.get('eval.episodes')} {'sampled' if sampled else 'deterministic'} episodes",
        status="failed" if reason else "finished" if last_step >= budget else "running",
        reason=reason,
        held=_is_held(folder),
        logged_steps=log.steps,
        infos=log.infos,
    )


def _failure(folder: Path) -> str:
    """Why a run failed, in a line; nothing where its folder does not say that it did.

    ``ppo-train`` writes ``failed.txt`` when a run fails, and takes it away when the run goes on.
    """
    line = ""
    if (folder / FAILED).is_file():
        line = first_line(folder / FAILED) or f"{FAILED} does not say why"
    else:  # a search notes beside a trial's seeds which of them failed
        seed, _, why = first_line(folder.parent / FAILED).partition(": ")
        line = why if seed == folder.name else ""
    return shown(line.partition("; `ppo-train resume=")[0])


def _is_held(folder: Path) -> bool:
    """Whether a process runs in a run's folder now; False where that can't be told."""
    if sys.platform != "linux":  # where the lock's layout is known
        return False
    import fcntl  # late: Windows has none

    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # asks, and takes nothing
        kind: int = struct.unpack_from("h", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _learned(knobs: Mapping[str, str]) -> dict[str, str]:
    """The knobs that matter; not the shape of an annealing that there is none of."""
    idle = {
        f"{name.removesuffix('.final')}.shape" for name, value in knobs.items() if _is_constant(name, value)
    }
    return {name: value for name, value in knobs.items() if _is_learned(name) and name not in idle}


def _is_constant(name: str, value: str) -> bool:
    return name.startswith(ANNEALS) and name.endswith(".final") and value == "null"


def _needed(knobs: Mapping[str, str], name: str) -> str:
    if name not in knobs:
        raise BrokenRunError(f"config.yaml has no {name}")
    return knobs[name]


def _whole(knobs: Mapping[str, str], name: str) -> int:
    value = number(_needed(knobs, name))
    if value is None or not abs(value) < MOST_STEPS:
        raise BrokenRunError(f"{name} in config.yaml is no number: {knobs[name]}")
    return int(value)


def group_runs(runs: Iterable[Run | FailedRun]) -> tuple[dict[str, list[Group]], list[str]]:
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


def number(value: str) -> float | None:
    """A knob's value as a number that can be drawn, or None."""
    try:
        parsed = float(value)
    except ValueError:
        return None
    return parsed if parsed == 0 or 1 / LARGEST <= abs(parsed) <= LARGEST else None


def annealed(knobs: Mapping[str, str], name: str) -> str:
    """How a knob changes over a run: ``→0``, ``→0 cosine`` where that is not linear, or nothing."""
    final = knobs.get(f"{ANNEALS}{name}.final", "null")
    shape = knobs.get(f"{ANNEALS}{name}.shape", "linear")
    return "" if final == "null" else f"{ARROW}{final}{'' if shape == 'linear' else f' {shape}'}"


def _named(env_id: str, members: list[list[Run | FailedRun]]) -> list[Group]:
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
        groups.append(Group(shown(label) or env_id, knobs, whole, failed))
    return sorted(groups, key=lambda group: [_order(value) for value in group.knobs.values()])


def annealed_knob(name: str, names: Collection[str]) -> str | None:
    """The knob that a ``anneal.KNOB.final`` or ``.shape`` is of, if there is one."""
    section, _, rest = name.partition(".")
    knob, _, what = rest.rpartition(".")
    return knob if f"{section}." == ANNEALS and what in ("final", "shape") and knob in names else None


def _order(value: str) -> list[tuple[bool, float, str]]:
    """A key by which values sort: the numbers in them as numbers, before what is none."""
    parts = []
    for part in filter(None, (part.strip("[]") for part in re.split(NUMBER, value))):
        parsed = number(part)
        parts.append((parsed is None, 0.0 if parsed is None else parsed, part))
    return parts


def _extent(run: Run | FailedRun) -> tuple[bool, bool, int]:
    return isinstance(run, Run), isinstance(run, Run) and run.evaluated is not None, run.last_step


def _last_tenth(values: Floats) -> float:
    return float(np.mean(values[-math.ceil(LAST_SHARE * len(values)) :])) if len(values) else math.nan


def _is_learned(name: str) -> bool:
    return name != "env.id" and find_knob(name).learned


def _read_config(path: Path) -> dict[str, str]:
    """Every knob of a config.yaml by dotted name, as it is typed."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    try:  # a ValueError is also what a date or a number raises that is none
        config = yaml.load(read_yaml(path), loader)
    except OSError:
        raise
    except Exception as error:  # a tag of YAML's may lead to anything
        raise BrokenRunError("config.yaml is no YAML") from error
    if not isinstance(config, dict) or not isinstance(config.get("env"), dict):
        raise BrokenRunError("config.yaml is not that of a run")
    if backend(str(config.get("vectorization"))).steps == backend("auto").steps:  # to the same bits
        config["vectorization"] = "auto"
    knobs = {shown(name): shown(value) for name, value in _flatten(config)}
    if len(knobs) > MOST_KNOBS:
        raise BrokenRunError(f"config.yaml has {len(knobs):,} values, more than any run's")
    return knobs


def _flatten(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _typed(value)


def shown(text: str) -> str:
    """A text as it can be printed and drawn; a long one ends in a hash."""
    plain = printable(text)
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[: LONGEST_NAME - 9]}_{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _typed(value: Any) -> str:  # noqa: ANN401
    """A value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(_typed(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


class _Log(NamedTuple):
    """What is read of a metrics.csv, a value for each iteration, where an empty cell is NaN."""

    steps: Floats
    returns: Floats
    speeds: Floats
    cut_episodes: int
    infos: dict[str, Floats]


def _read_metrics(path: Path) -> _Log:
    """Reads a metrics.csv.

    Raises:
        NothingYetError: it has no row.
        BrokenRunError: it is damaged.
        OSError: it can't be read.
    """
    try:
        text = read_text(path, LONGEST)
    except UnicodeDecodeError as error:
        raise BrokenRunError("metrics.csv is no text") from error
    whole = text[: text.rfind("\n") + 1]  # what follows is a row that is being written
    rows = csv.reader(io.StringIO(whole))
    try:
        header = _checked(next(rows, []))
        keys = [name for name in header if name.startswith(INFO) and header.count(name) == 1][:MOST_INFOS]
        values = list(_cells(rows, header, keys))
    except (ValueError, IndexError, csv.Error) as error:
        if isinstance(error, BrokenRunError):
            raise
        raise BrokenRunError(f"metrics.csv is damaged in line {rows.line_num}") from error
    if not values:
        raise NothingYetError("no iteration has ended yet")
    steps, returns, speeds, cuts, *infos = np.array(values).T
    if np.isinf(returns).any():
        raise BrokenRunError("metrics.csv has an infinite charts/episodic_return")
    if not (np.diff(steps, prepend=0) > 0).all():
        raise BrokenRunError("the steps of metrics.csv do not rise")
    for column, numbers, most in zip(
        COLUMNS, (steps, returns, speeds), (MOST_STEPS, LARGEST, LARGEST), strict=True
    ):
        if (np.abs(numbers) > most).any():
            raise BrokenRunError(f"metrics.csv has a {column} beyond {most:.0e}")
    return _Log(
        steps=steps,
        returns=returns,
        speeds=speeds,
        cut_episodes=int(np.nan_to_num(cuts[-1], posinf=0.0, neginf=0.0)),
        infos={
            shown(key.removeprefix(INFO)): np.where(np.abs(column) <= LARGEST, column, np.nan)
            for key, column in zip(keys, infos, strict=True)
        },
    )


def _checked(header: list[str]) -> list[str]:
    """The header of a metrics.csv; raises BrokenRunError where it lacks one of `COLUMNS`, or has it twice."""
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise BrokenRunError(f"metrics.csv has no column {missing[0]}" if header else "metrics.csv is empty")
    twice = [column for column in COLUMNS if header.count(column) > 1]
    if twice:
        raise BrokenRunError(f"metrics.csv has the column {twice[0]} twice")
    return header


def _cells(rows: Iterator[list[str]], header: list[str], infos: Sequence[str]) -> Iterator[list[float]]:
    """The numbers of `COLUMNS`, `CUT` and the environment's own scalars, row by row."""
    places = [header.index(column) for column in COLUMNS]
    cut = header.index(CUT) if CUT in header else None  # an older version's runs have none
    others = [header.index(key) for key in infos]
    for row in rows:
        yield [
            *(float(row[place] or "nan") for place in places),
            0.0 if cut is None else float(row[cut]),
            *(float(row[place] or "nan") for place in others),
        ]


def _read_evaluation(path: Path, last_step: float) -> float | None:
    """Mean return of the final evaluation; None where there is none, or the run has gone on since."""
    try:  # a ValueError is also what no text raises
        summary = read_json(path)
        mean, steps = float(summary["mean"]), int(summary["steps"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise BrokenRunError("eval.json is damaged") from error
    if not math.isfinite(mean):
        raise BrokenRunError("the mean of eval.json is not finite")
    if abs(mean) > LARGEST:
        raise BrokenRunError(f"the mean of eval.json is beyond {LARGEST:.0e}")
    return mean if steps >= last_step else None
