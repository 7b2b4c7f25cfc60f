"""The face: `train`, `resume`, `load`, `evaluate` and `read` from Python, as the commands do it.

`import ppo_cli` alone imports none of this; docs/python.md shows it at work.
"""

import csv
import io
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv

from ppo_cli.config.overrides import override_texts, read_line
from ppo_cli.config.quoting import hydra_quoted
from ppo_cli.config.running import hydra_kept
from ppo_cli.config.schema import KNOBS, Config
from ppo_cli.envs.named import Vectors, lending
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import ConfigError, EnvError
from ppo_cli.files import read_text
from ppo_cli.hooks import Hook
from ppo_cli.report.broken import LONGEST
from ppo_cli.runs.caller import Caller
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.policy import Policy
from ppo_cli.runs.reevaluation import DEFAULT_EPISODES, load_intact, play_episodes
from ppo_cli.runs.resume import resume as go_on
from ppo_cli.runs.start import start_run
from ppo_cli.seeding import other_generators
from ppo_cli.text import flat

Folder = str | PathLike[str]
Which = Literal["last", "best"] | int
OPTIONS = ("kwargs", "reset_options")  # what ends the names of knobs whose values are options
_PROCESS = threading.RLock()  # what a run sets (see `_borrowed`) is a process's, not a thread's


@dataclass(frozen=True, repr=False)
class Run:
    """What a run's folder holds.

    Attributes:
        folder: The folder.
        config: The run's config; every knob is an attribute, ``config.clip_ratio``, ``config.eval.episodes``.
        metrics: The logged scalars, a float64 array [I] for I iterations by tag (``charts/episodic_return``,
            ``losses/entropy``, …), with ``step`` and ``iteration`` beside them; NaN where an iteration has no
            value.
        evaluation: The final evaluation; None for a run that has none yet.
        checkpoints: The environment steps of the checkpoints that are kept, in rising order.
    """

    folder: Path
    config: Config
    metrics: dict[str, npt.NDArray[np.float64]]
    evaluation: Evaluation | None
    checkpoints: tuple[int, ...]

    def __fspath__(self) -> str:
        """The folder, so that a run can stand where a path does, as in ``train(init_from=run)``."""
        return fspath(self.folder)

    def __repr__(self) -> str:
        """One line: the environment, how far it is, and the evaluation's mean return."""
        steps = self.metrics["step"]
        done = f"{int(steps[-1]) if len(steps) else 0:,} steps"
        found = "" if self.evaluation is None else f", return {self.evaluation.mean:.4g}"
        return f"Run({self.config.env.id}, {done}{found}, {str(self.folder)!r})"


def read(folder: Run | Folder) -> Run:
    """Reads a run's folder, finished or not.

    Args:
        folder: The run's folder, as ``ppo-train`` prints it, or a run that is read again.

    Raises:
        ConfigError: There is no run in it, or a file of it is damaged.
    """
    run = RunFolder(_folder(folder))
    run.check()
    steps = (int(file.stem) for file in run.checkpoints.glob("*.pt") if file.stem.isdigit())
    metrics = _read_metrics(run.metrics_csv)
    evaluated_at, last = run.evaluated_at, max(metrics["step"], default=0)
    goes_on = evaluated_at is not None and evaluated_at < last  # since it was evaluated
    evaluation = None if goes_on else _read_evaluation(run)
    return Run(run.path, run.config, metrics, evaluation, tuple(sorted(steps)))


def train(
    *overrides: str,
    hooks: Sequence[Hook | str | Mapping[str, Any]] = (),
    folder: Folder | None = None,
    verbose: bool = True,
    watchdog: bool = False,
    **knobs: Any,  # noqa: ANN401
) -> Run:
    """Trains as ``ppo-train`` does, with the same checks, files and error texts, and the same bits.

    Example:
        >>> run = ppo_cli.train(env="CartPole-v1", clip_ratio=0.1, eval={"episodes": 100})
        >>> run = ppo_cli.train("env=CartPole-v1", "anneal.clip_ratio.final=0", network="mlp_large")

    Args:
        *overrides: Knobs as they are typed on the command line.
        hooks: Hooks: objects, or as the knob ``hooks`` has them, ``"wandb"`` or ``{"name": ..., ...}``.
        folder: The run's folder; None makes a new one under ``outputs/``.
        verbose: Whether to show how far the run is; else only warnings are shown.
        watchdog: Whether to fork a process that ends this one where an environment hangs, as commands do.
        **knobs: Knobs, groups' choices and sections by name. A section takes a mapping. Where a knob takes an
            import path, the function or class itself can be given; ``env`` also takes a `VectorEnv` that is
            made already.

    Returns:
        The run, as its folder has it.

    Raises:
        ConfigError: It can't be run like that; nothing is left behind then.
        RunError: It could not go on; `resume` goes on from the last checkpoint.
    """
    knobs, lent = _take_environment("env", knobs)
    caller, words = _caller(hooks, verbose, watchdog), _words(overrides, hooks, knobs)
    if lent is not None:  # first: what is typed holds
        words.insert(0, f"n_envs={lent.num_envs}")
    if folder is not None:
        words.append(f"hydra.run.dir={hydra_quoted(fspath(folder))}")
    line = read_line(words)
    if any(line.targets.values()):
        raise ConfigError("resume=: from Python, ppo_cli.resume(folder) goes on with a run")
    try:
        with _borrowed(), lending(_id_of(knobs), lent):
            return read(start_run(line, caller))
    except EnvError as error:
        raise ConfigError(str(error)) from error


def resume(
    run: Run | Folder,
    *overrides: str,
    hooks: Sequence[Hook | str | Mapping[str, Any]] = (),
    verbose: bool = True,
    watchdog: bool = False,
    **knobs: Any,  # noqa: ANN401
) -> Run:
    """Goes on with a run, exactly where it was; a finished one needs a larger ``total_timesteps``.

    Args:
        run: The run, or its folder.
        *overrides: Knobs to change, as they are typed.
        hooks: Hooks, as for `train`. Objects that the run had before get their state back.
        verbose: Whether it shows how far it is, as for `train`.
        watchdog: Whether a hanging environment ends the process, as for `train`.
        **knobs: Knobs to change. ``env`` takes the `VectorEnv` that a run is given anew, or what makes it.

    Returns:
        The run, as its folder has it then.

    Raises:
        ConfigError: There is no run, or a knob can't change any more.
        RunError: It can't go on.
    """
    folder, caller = _folder(run), _caller(hooks, verbose, watchdog)
    knobs, lent = _take_environment("env.id", knobs)
    with _borrowed(), lending(_id_of(knobs), lent):
        go_on(folder, _words(overrides, hooks, knobs), caller)
        return read(folder)


def load(run: Run | Folder, checkpoint: Which = "last") -> Policy:
    """Loads the policy of a run, to act with.

    Args:
        run: The run, its folder, or a checkpoint file.
        checkpoint: Which of the run's checkpoints: ``"last"``, ``"best"`` (by evaluations on the way), or a
            number of environment steps.

    Raises:
        ConfigError: There is no such checkpoint, or the network does not fit its environment.
        RunError: The checkpoint is damaged.
        EnvError: The environment can't be made.
    """
    path, is_named = _folder(run), checkpoint != "last"
    if not path.is_file():
        path = RunFolder(path).find_checkpoint(checkpoint)
    elif is_named:
        raise ConfigError(f"checkpoint={checkpoint!r} chooses among those of a run, and {path} is a file")
    else:
        is_named = True
    with _borrowed():
        return load_intact(path, is_named, None, print)[1]


def evaluate(
    policy: Policy | Run | Folder,
    episodes: int | None = None,
    seed: int | None = None,
    deterministic: bool | None = None,
    checkpoint: Which = "last",
) -> Evaluation:
    """Evaluates a policy over whole episodes, as a run does at its end and ``ppo-eval`` does later.

    With the defaults the returns are those of the run's own evaluation, bit for bit.

    Args:
        policy: A policy, or the run or folder that holds it.
        episodes: How many, at least 1; None for the run's ``eval.episodes``, or 20 where that is 0.
        seed: The evaluation's seed; None for the run's ``eval.seed``.
        deterministic: Whether to take the most probable actions; None for the run's ``eval.deterministic``.
        checkpoint: Which of a run's checkpoints, see `load`.

    Raises:
        ConfigError: ``episodes`` is below 1.
        RunError: An episode failed.
    """
    if not isinstance(policy, Policy):
        policy = load(policy, checkpoint)
    own = policy.config.eval
    wanted = (own.episodes or DEFAULT_EPISODES) if episodes is None else episodes
    if wanted < 1:
        raise ConfigError(f"episodes={wanted}: expected at least 1")
    with _borrowed():
        torch.set_num_threads(policy.config.cpu_threads)  # other sums, other bits
        return play_episodes(
            policy, policy.config, wanted,
            own.seed if seed is None else seed,
            own.deterministic if deterministic is None else deterministic,
        )  # fmt: skip


@contextmanager
def _borrowed() -> Iterator[None]:
    """Gives the process back as it was: global generators, PyTorch's threads, Hydra's config.

    Calls from several threads go one after the other.
    """
    with _PROCESS, hydra_kept(), other_generators(0):
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _folder(run: Run | Folder) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)


def _caller(hooks: Sequence[object], verbose: bool, watchdog: bool) -> Caller:
    """A run in somebody else's process.

    Raises:
        ConfigError: The hooks are no list.
    """
    if isinstance(hooks, str) or not isinstance(hooks, Sequence):
        raise ConfigError(f"hooks: expected a list of hooks, given {flat(repr(hooks))}")
    objects = [hook for hook in hooks if not isinstance(hook, (str, Mapping))]
    given = cast("list[Hook]", objects)  # what is none is refused where they are looked at
    return Caller(live=verbose, hooks=given, owns_process=False, watchdog=watchdog)


def _words(overrides: Sequence[str], hooks: Sequence[object], knobs: Mapping[str, Any]) -> list[str]:
    """Everything as overrides are typed.

    Raises:
        ConfigError: Something can't be.
    """
    for word in overrides:
        if not isinstance(word, str):
            raise ConfigError(f"expected KEY=VALUE as a text, or KEY=value, given {flat(repr(word))}")
    entries = [
        {"name": hook} if isinstance(hook, str) else hook
        for hook in hooks
        if isinstance(hook, (str, Mapping))
    ]
    given = {**knobs, "hooks": entries} if entries else knobs
    return [*overrides, *(word for key, value in given.items() for word in _texts(key, _by_path(key, value)))]


def _texts(key: str, value: Any) -> Iterator[str]:  # noqa: ANN401
    """The overrides of a knob, or of what a mapping sets in a section."""
    if isinstance(value, Mapping) and key not in KNOBS:
        for name, item in value.items():
            yield from _texts(f"{key}.{name}", item)
    else:
        yield from override_texts(key, value)


def _take_environment(key: str, knobs: Mapping[str, Any]) -> tuple[dict[str, Any], "Vectors | None"]:
    """The knobs with an environment that is an object named by its import path, and one that is made itself.

    An id in a section chooses a preset, as one alone does.

    Args:
        key: What names it then, ``env`` or ``env.id``.
        knobs: The knobs.

    Raises:
        ConfigError: It is no vector of environments, and nothing that makes one.
    """
    env = knobs.get("env")
    section = dict(env) if isinstance(env, Mapping) else {"id": env}
    given = section.get("id")
    if given is None or isinstance(given, str):
        if given is None or key != "env" or not isinstance(env, Mapping):
            return dict(knobs), None
        settings = {f"env.{name}": value for name, value in section.items() if name != "id"}
        return {**knobs, key: given, **settings}, None
    if isinstance(given, VectorEnv):
        path, lent = f"{type(given).__module__}.{type(given).__name__}", given
    elif callable(given) and hasattr(given, "__qualname__"):
        path, lent = str(_by_path("env", given)), None
    else:
        raise ConfigError(
            f"env: expected an id, a VectorEnv, or the class or function of one, given {flat(repr(given))}"
        )
    module, _, name = path.rpartition(".")
    rest = {name: value for name, value in knobs.items() if name != "env"}
    named = {**section, "id": f"{module}:{name}"}
    return {key: named["id"] if len(named) == 1 or key == "env.id" else named, **rest}, lent


def _id_of(knobs: Mapping[str, Any]) -> str:
    """The id by which `_take_environment` has named an environment."""
    env = knobs.get("env.id", knobs.get("env"))
    return str(env["id"] if isinstance(env, Mapping) and "id" in env else env)


def _by_path(key: str, value: Any, is_named: bool = True) -> Any:  # noqa: ANN401
    """A value whose functions and classes are their import paths, by which a config names them.

    Args:
        key: The knob or section that it is of.
        value: The value.
        is_named: Whether what it holds may be named so; the options of what is named may not.

    Raises:
        ConfigError: One can't be named, or may not.
    """
    is_named = is_named and not key.endswith(OPTIONS)
    if isinstance(value, Mapping):
        is_entry = "name" in value
        return {
            name: _by_path(f"{key}.{name}", item, is_named and (not is_entry or name == "name"))
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_by_path(key, item, is_named) for item in value]
    name = getattr(value, "__qualname__", None) if callable(value) else None
    if name is None:
        return value
    if not is_named:
        raise ConfigError(
            f"{key}: expected a number, a text, true, false or null, or a list or mapping of such, "
            f"given {name}"
        )
    if getattr(sys.modules.get(value.__module__), name, None) is not value:
        raise ConfigError(
            f"{key}: {name} is a lambda, replaced, or defined inside a function: expected one at the top of "
            "a module or notebook, because the run's config names it by its import path"
        )
    return f"{value.__module__}.{name}"


def _read_metrics(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    try:
        text = read_text(path, LONGEST) if path.is_file() else ""
        ended = text[: text.rfind("\n") + 1] or "iteration,step\n"  # the last row may be on its way
        header, *rows = csv.reader(io.StringIO(ended))
        values = [[float(cell) if cell else math.nan for cell in row] for row in rows]
        if not {"iteration", "step"} <= set(header):
            raise ValueError("no column iteration, or step")
        return dict(zip(header, np.array(values).reshape(-1, len(header)).T, strict=True))
    except (ValueError, OSError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged: {flat(error)}") from error


def _read_evaluation(folder: RunFolder) -> Evaluation | None:
    try:
        found = folder.evaluation
        if found is None:
            return None
        return Evaluation(found["returns"], found["lengths"], found.get("info", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder.eval_json} is damaged: {error}") from error
