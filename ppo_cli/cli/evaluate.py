"""`ppo-eval`: evaluates trained policies, with numbers that are the same every time.

PyTorch is imported late: it takes longer than a page of help or an error should.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from rich.text import Text
from yaml import YAMLError

from ppo_cli.cli.command import Parser, run_command, typed_program
from ppo_cli.cli.endings import Interrupted, RunError
from ppo_cli.cli.run_dir import folder_name
from ppo_cli.config import Config, ConfigError, EnvConfig
from ppo_cli.envs.make import EnvError

if TYPE_CHECKING:
    from ppo_cli.policy import Policy

Summary = dict[str, Any]  # of one run: what `--json` writes

DEFAULT_EPISODES = 20  # where the run itself asked for none
WIDTH = 200  # of a table that no terminal bounds

_DESCRIPTION = """\
Evaluates the policies of runs: whole episodes with frozen weights and normalisation, each with a seed of its
own. With the settings of a run's own evaluation the numbers are those of its eval.json, bit for bit.
"""
_EXAMPLES = """\
  ppo-eval outputs/LunarLander-v3/2026-01-31_12-00-00 --episodes 100
  ppo-eval outputs/CartPole-v1/* --checkpoint best --sampled --json results.json
  ppo-eval outputs/LunarLander-v3/2026-01-31_12-00-00 --video videos --env-kwargs gravity=-5
"""


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-eval", lambda: _evaluate_all(_parse(sys.argv[1:])), needs_output=True)


def _say(line: object) -> None:
    print(f"{typed_program('ppo-eval')}: {line}", file=sys.stderr)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, checked as far as that goes without a run.

    Raises:
        ConfigError: they are not as they should be.
    """
    parser = Parser(
        prog="ppo-eval", description=_DESCRIPTION, epilog=f"examples:\n{_EXAMPLES}", allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="a run's folder, or a checkpoint file")
    add("--checkpoint", metavar="last|best|STEPS", help="of the run's checkpoints (default: last)")
    add("--episodes", metavar="N", type=int, help="how many (default: the run's eval.episodes, or 20)")
    add("--seed", metavar="S", type=int, help="of the evaluation (default: the run's eval.seed)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--deterministic", action="store_true", default=None,
        help="take the most probable action (default: as the run's eval.deterministic says)",
    )  # fmt: skip
    how.add_argument(
        "--sampled", dest="deterministic", action="store_false", default=None, help="sample the actions"
    )
    add(
        "--env-kwargs", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="arguments of the environment over the run's own; YAML values",
    )  # fmt: skip
    add(
        "--reset-options", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="options of every reset over the run's env.reset_options; YAML values",
    )  # fmt: skip
    add(
        "--json", metavar="FILE.json", nargs="?", const="-",
        help="write eval.json's keys, checkpoint and interval: instead of the table, or into a file",
    )  # fmt: skip
    add("--video", metavar="DIR", type=Path, help="film the first episode into an MP4 there")
    options = parser.parse_intermixed_args(arguments)
    options.env_kwargs = _mapping("--env-kwargs", options.env_kwargs)
    options.reset_options = _mapping("--reset-options", options.reset_options)
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    if options.episodes is not None and options.episodes < 1:
        raise ConfigError(f"--episodes {options.episodes}: expected at least 1")
    if options.seed is not None and options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: expected at least 0")
    if options.checkpoint is not None and not re.fullmatch("last|best|[0-9]+", options.checkpoint):
        raise ConfigError(f"--checkpoint {options.checkpoint}: expected last, best or a number of steps")
    if options.json not in (None, "-"):  # such as a run, which must not be overwritten
        if not options.json.endswith(".json"):
            raise ConfigError(
                f"--json {options.json}: expected a name that ends in .json; runs come before it"
            )
        if not Path(options.json).parent.is_dir():
            raise ConfigError(f"--json {options.json}: no such folder")
    if options.video is not None:
        if importlib.util.find_spec("imageio_ffmpeg") is None:
            raise ConfigError("--video needs imageio-ffmpeg: pip install 'ppo-cli[video]'")
        if options.video.exists() and not options.video.is_dir():
            raise ConfigError(f"--video {options.video}: expected a folder")
        _go_headless()


def _go_headless() -> None:
    """Lets environments draw into memory without a display; libraries read this when they are imported."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def _mapping(option: str, typed: Sequence[str]) -> dict[str, Any]:
    """What an option of several KEY=VALUE holds, the values read as ppo-train reads them from YAML."""
    values: dict[str, Any] = {}
    for item in typed:
        key, equals, _ = item.partition("=")
        if not (equals and key.isidentifier()):
            raise ConfigError(f"{option} {item}: expected KEY=VALUE; runs come before it")
        try:
            read = OmegaConf.to_container(OmegaConf.from_dotlist([item]))
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{option} {item}: the value is no YAML") from error
        if option == "--env-kwargs" and key == "render_mode":
            raise ConfigError(f"{option} {item}: an evaluation draws nothing; --video DIR makes a film")
        values[key] = read[key] if isinstance(read, dict) else None
    return values


def _evaluate_all(options: argparse.Namespace) -> int:
    """Evaluates every run, whether others fail or not, and prints what was found.

    Returns:
        The exit status.
    """
    found: list[tuple[str, Summary]] = []
    status = 0
    interrupted: Interrupted | None = None
    for run in options.runs:
        try:
            checkpoint = find_checkpoint(Path(run), options.checkpoint)
            named = options.checkpoint is not None or Path(run) == checkpoint
            found.append((run, _evaluate_run(checkpoint, named, options)))
        except (ConfigError, EnvError, RunError, OSError) as error:  # noqa: PERF203 - each fails on its own
            alone = len(options.runs) == 1
            status = 2 if alone and isinstance(error, (ConfigError, EnvError)) else 1
            line = " ".join(str(error).split())
            _say(line if run in line else f"{run}: {line}")
        except KeyboardInterrupt as error:
            done = f"interrupted in {run}; {len(found)} of {len(options.runs)} runs were evaluated"
            interrupted = Interrupted(getattr(error, "number", signal.SIGINT), done)
            break
    if not _has_scipy() and found:
        _say("no intervals without SciPy: pip install 'ppo-cli[report]'")
    if found:
        _show(found, options)
    if interrupted is not None:
        raise interrupted
    return status


def find_checkpoint(run: Path, which: str | None) -> Path:
    """The checkpoint file of a run, by its folder, or the file itself.

    Args:
        run: the folder or file.
        which: ``last``, ``best`` or a number of steps; None is ``last``.

    Raises:
        ConfigError: there is none; with those that there are.
    """
    if run.is_file():
        if which is not None:
            raise ConfigError(f"--checkpoint {which} chooses among those of a run, and {run} is a file")
        return run
    if not run.exists():
        hint = "; arguments of the environment follow --env-kwargs" if "=" in run.name else ""
        raise ConfigError(f"{run}: no such folder or file{hint}")
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run}: no run there (no config.yaml); runs lie below outputs/")
    path = run / "checkpoints" / f"{which or 'last'}.pt"
    if not path.is_file():
        names = [file.stem for file in path.parent.glob("*.pt")]
        names.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
        why = " (best.pt needs an evaluation: eval.every, eval.episodes)" if which == "best" else ""
        raise ConfigError(f"{run} has no checkpoint {path.stem}{why}; it has {', '.join(names) or 'none'}")
    return path


def _evaluate_run(checkpoint: Path, named: bool, options: argparse.Namespace) -> Summary:
    """Evaluates one checkpoint, which was asked for by name or not, and films it where that is asked for."""
    import torch

    from ppo_cli.cli.build import env_maker, on_error_of, wanted_infos
    from ppo_cli.encoders import EncoderError
    from ppo_cli.envs.group import EnvFaultError, explain
    from ppo_cli.evaluation import bootstrap_interval, evaluate, summarize

    checkpoint, policy, config, steps = _load(checkpoint, named, options.env_kwargs)
    reset_options = {**config.env.reset_options, **options.reset_options}
    config = replace(config, env=replace(config.env, reset_options=reset_options))
    torch.set_num_threads(1 if config.threads == "auto" else int(config.threads))  # other sums, other bits
    own = config.eval
    episodes = options.episodes or own.episodes or DEFAULT_EPISODES
    seed = own.seed if options.seed is None else options.seed
    deterministic = own.deterministic if options.deterministic is None else options.deterministic
    if options.video is not None:
        from ppo_cli.cli.film import check_pictures

        check_pictures(config.env)  # before the evaluation, not after
        options.video.mkdir(parents=True, exist_ok=True)
    actions: list[Any] = []
    make = env_maker(config.env)
    try:
        evaluation = evaluate(
            policy, make, episodes, seed, deterministic, own.max_steps, actions, on_error_of(config.env),
            wanted_infos(config),
        )  # fmt: skip
    except (EnvFaultError, EncoderError, FloatingPointError) as error:
        raise RunError(f"{config.env.id}: {error}") from error
    except Exception as error:  # observations of another shape, where arguments have changed them
        raise RunError(f"{config.env.id} {explain(error)}") from error
    cut = sum(length >= own.max_steps for length in evaluation.lengths)
    if cut:
        _say(f"{checkpoint}: {cut} episodes were cut at eval.max_steps={own.max_steps}")
    if options.video is not None:
        _film(config.env, seed, actions, evaluation.returns[0], options.video, checkpoint)
    interval = bootstrap_interval(evaluation.returns, seed) if _has_scipy() else None
    summary = summarize(evaluation, steps, deterministic, seed)
    return {**summary, "checkpoint": str(checkpoint), "interval": interval}


def _load(checkpoint: Path, named: bool, env_kwargs: dict[str, Any]) -> "tuple[Path, Policy, Config, int]":
    """The policy of a checkpoint, or of the newest intact one where the run's last is damaged.

    Returns:
        The file that was read, the policy, its config and its environment steps.

    Raises:
        RunError: the checkpoint is damaged, and was asked for by name or is the only one; or it is no run's.
    """
    from ppo_cli.checkpoint import CheckpointError, load_newest, load_run
    from ppo_cli.cli.build import restore_policy

    try:
        try:
            payload = load_run(checkpoint)
        except CheckpointError as damage:
            if checkpoint.parent.name != "checkpoints":
                raise
            newest, _ = load_newest(checkpoint.parent)
            if newest is None:
                raise
            other = checkpoint.with_name(f"{newest['steps']}.pt")
            if named:
                raise RunError(f"{damage}; the newest intact one is {other.name}") from damage
            _say(f"{damage}; evaluating {other.name}, the newest that is intact")
            checkpoint, payload = other, newest
        policy, config = restore_policy(payload, checkpoint, env_kwargs, _say)
        return checkpoint, policy, config, payload["steps"]
    except CheckpointError as error:
        raise RunError(error if str(checkpoint) in str(error) else f"{checkpoint}: {error}") from error


def _film(
    config: EnvConfig, seed: int, actions: Sequence[Any], expected: float, folder: Path, checkpoint: Path
) -> None:
    """Films the first episode by playing its actions again.

    The evaluation itself renders nothing, so that its numbers do not depend on a film: some environments
    simulate more when they are drawn.
    """
    from ppo_cli.cli.film import film
    from ppo_cli.envs.vector import spawn_seeds

    name = folder_name(str(checkpoint.with_suffix(""))).strip("-.")
    shown = film(config, spawn_seeds(seed, "eval", 1)[0], actions, folder / f"{name}-episode-0.mp4")
    if shown != expected:
        _say(f"{checkpoint}: the film shows another episode, with return {shown:g} instead of {expected:g}")


def _has_scipy() -> bool:
    return importlib.util.find_spec("scipy") is not None


def _show(found: Sequence[tuple[str, Summary]], options: argparse.Namespace) -> None:
    """Prints what was found, or writes it as JSON."""
    summaries = [summary for _, summary in found]
    text = json.dumps(summaries if len(options.runs) > 1 else summaries[0], indent=2) + "\n"
    if options.json == "-":
        print(text, end="", flush=True)
        return
    if len(options.runs) > 1:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(_table(found))
    else:
        print(_lines(*found[0]))
    sys.stdout.flush()
    if options.json is not None:  # last, so that a full disk does not lose the table
        Path(options.json).write_text(text, encoding="utf-8")


def _lines(run: str, summary: Summary) -> str:
    lengths = summary["lengths"]
    kind = "deterministic" if summary["deterministic"] else "sampled"
    lines = [
        f"{run} · {Path(summary['checkpoint']).name}, {summary['steps']:,} steps · "
        f"{summary['episodes']} {kind} episode{'s'[: summary['episodes'] - 1]}, seed {summary['seed']}",
        f"return  {summary['mean']:.2f} ± {summary['std']:.2f}",
        f"IQM     {summary['iqm']:.2f}",
        f"95 %    {_interval(summary)} (bootstrap interval of the mean)",
        f"length  {np.mean(lengths):.1f} ({min(lengths)} to {max(lengths)})",
    ]
    told = summary.get("info", {}).items()
    lines += [f"{key}  {value:.2f}" for key, value in told if "success" in key.lower()]
    return "\n".join(lines)


def _table(found: Sequence[tuple[str, Summary]]) -> Table:
    """A row for each run, in the order in which they were given."""
    table = Table()
    table.add_column("run", overflow="fold")
    for heading in ("steps", "episodes", "return", "IQM", "95 % of the mean", "length"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run, summary in found:
        table.add_row(
            Text(run),
            f"{summary['steps']:,}",
            str(summary["episodes"]),
            f"{summary['mean']:.2f} ± {summary['std']:.2f}",
            f"{summary['iqm']:.2f}",
            _interval(summary),
            f"{np.mean(summary['lengths']):.1f}",
        )
    return table


def _interval(summary: Summary) -> str:
    return "–" if summary["interval"] is None else "{:.2f} to {:.2f}".format(*summary["interval"])
