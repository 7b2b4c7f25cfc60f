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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console, Group
from yaml import YAMLError

from ppo_cli.cli.command import Parser, run_command, say_error, typed_program
from ppo_cli.config.schema import Config, ConfigError, EnvConfig
from ppo_cli.envs.make import EnvError
from ppo_cli.errors import RunError
from ppo_cli.names import split_name
from ppo_cli.runs.endings import Interrupted
from ppo_cli.runs.run_dir import folder_name
from ppo_cli.tables import Column, draw
from ppo_cli.terminal import output_console
from ppo_cli.text import decimals_of, mean_and_deviation, short

if TYPE_CHECKING:
    from ppo_cli.policy import Policy

Summary = dict[str, Any]  # of one run: what `--json` writes

DECIMALS = 2  # of returns, at least
DEFAULT_EPISODES = 20  # where the run itself asked for none
EPISODES = ("first", "best", "median", "worst")  # which of them a film shows, beside their numbers

_DESCRIPTION = """\
Evaluates the policies of runs: whole episodes with frozen weights and normalisation, each with a seed of its
own. With the settings of a run's own evaluation the numbers are those of its eval.json, bit for bit.
"""
_EXAMPLES = """\
  ppo-eval outputs/LunarLander-v3/2026-01-31_12-00-00 --episodes 100
  ppo-eval outputs/CartPole-v1/* --checkpoint best --sampled --json results.json
  ppo-eval outputs/LunarLander-v3/2026-01-31_12-00-00 --video videos --video-episode worst
"""


@dataclass(frozen=True)
class Found:
    """What an evaluation found.

    Attributes:
        run: as it was typed.
        summary: of its episodes.
        film: of one of them, in words, or nothing.
    """

    run: str
    summary: Summary
    film: str = ""


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-eval", lambda: _evaluate_all(_parse(sys.argv[1:])), needs_output=True)


def _say(line: object) -> None:
    say_error(f"{typed_program('ppo-eval')}: {line}")


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
    add("--video", metavar="DIR", type=Path, help="film an episode into an MP4 there")
    add(
        "--video-episode", metavar=f"{'|'.join(EPISODES)}|N",
        help="which one, by its return or its number from 0 (default: first)",
    )  # fmt: skip
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
    _check_video(options)


def _check_video(options: argparse.Namespace) -> None:
    which = options.video_episode
    if which is not None:
        if options.video is None:
            raise ConfigError(f"--video-episode {which} goes with --video DIR, which makes a film")
        if which not in EPISODES and not re.fullmatch("[0-9]{1,9}", which, re.ASCII):
            raise ConfigError(
                f"--video-episode {which}: expected {', '.join(EPISODES)} or a number, 0 for the first"
            )
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
    found: list[Found] = []
    status = 0
    interrupted: Interrupted | None = None
    runs, say_once = _of_runs(options.runs), _said_once()
    for run in runs:
        try:
            checkpoint = find_checkpoint(Path(run), options.checkpoint)
            named = options.checkpoint is not None or Path(run) == checkpoint
            found.append(Found(run, *_evaluate_run(checkpoint, named, options, say_once)))
        except (ConfigError, EnvError, RunError, OSError) as error:  # noqa: PERF203 - each fails on its own
            alone = len(runs) == 1
            status = 2 if alone and isinstance(error, (ConfigError, EnvError)) else 1
            line = " ".join(str(error).split())
            _say(line if run in line else f"{run}: {line}")
        except KeyboardInterrupt as error:
            done = f"interrupted in {run}; {len(found)} of {len(runs)} runs were evaluated"
            interrupted = Interrupted(getattr(error, "number", signal.SIGINT), done)
            break
    if not _has_scipy() and found:
        _say("no intervals without SciPy: pip install 'ppo-cli[report]'")
    if found:
        _show(found, options)
    if interrupted is not None:
        raise interrupted
    return status


def _of_runs(typed: Sequence[str]) -> list[str]:
    """The runs among several words: what a pattern such as ``SWEEP/*`` finds beside them is left out."""
    runs = [run for run in typed if not _is_beside_runs(Path(run))]
    return runs if len(typed) > 1 and runs else list(typed)


def _is_beside_runs(path: Path) -> bool:
    """Whether a path is what a sweep, a search or a report leaves in a folder of runs."""
    own = path.is_file() and path.suffix != ".pt" if path.name != "report" else path.is_dir()
    return own and not (path / "config.yaml").exists() and any(path.parent.glob("*/config.yaml"))


def _said_once() -> Callable[[str], None]:
    """Says a line unless one was said of the same module: what is imported is, for all runs."""
    said: set[str] = set()

    def say(line: str) -> None:
        what, _, _ = line.partition(", which ")
        if what not in said:
            said.add(what)
            _say(line)

    return say


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


def _evaluate_run(
    checkpoint: Path, named: bool, options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[Summary, str]:
    """Evaluates one checkpoint, which was asked for by name or not, and films it where that is asked for.

    ``say`` is told what is imported.

    Returns:
        What was found, and a line on the film, or nothing.
    """
    import torch

    from ppo_cli.encoders import EncoderError
    from ppo_cli.envs.group import EnvFaultError, explain
    from ppo_cli.runs.build import env_maker, on_error_of, wanted_infos
    from ppo_cli.runs.evaluation import bootstrap_interval, evaluate, summarize

    checkpoint, policy, config, steps = _load(checkpoint, named, options.env_kwargs, say)
    reset_options = {**config.env.reset_options, **options.reset_options}
    config = replace(config, env=replace(config.env, reset_options=reset_options))
    torch.set_num_threads(config.cpu_threads)  # other sums, other bits
    own = config.eval
    episodes = options.episodes or own.episodes or DEFAULT_EPISODES
    seed = own.seed if options.seed is None else options.seed
    deterministic = own.deterministic if options.deterministic is None else options.deterministic
    actions: dict[int, list[Any]] = {}
    if options.video is not None:
        from ppo_cli.cli.film import check_pictures

        actions = {episode: [] for episode in _candidates(options.video_episode, episodes)}
        check_pictures(config.env)  # before the evaluation, not after
        options.video.mkdir(parents=True, exist_ok=True)
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
    film = ""
    if options.video is not None:
        episode = choose_episode(options.video_episode or "first", evaluation.returns)
        film = _film(
            config.env, seed, episode, actions[episode], evaluation.returns, options.video, checkpoint
        )
    interval = bootstrap_interval(evaluation.returns, seed) if _has_scipy() else None
    summary = summarize(evaluation, steps, deterministic, seed)
    return {**summary, "checkpoint": str(checkpoint), "interval": interval}, film


def _load(
    checkpoint: Path, named: bool, env_kwargs: dict[str, Any], say: Callable[[str], None]
) -> "tuple[Path, Policy, Config, int]":
    """The policy of a checkpoint, or of the newest intact one where the run's last is damaged.

    Returns:
        The file that was read, the policy, its config and its environment steps.

    Raises:
        RunError: the checkpoint is damaged, and was asked for by name or is the only one; or it is no run's.
    """
    from ppo_cli.runs.checkpoint import CheckpointError, load_newest, load_run
    from ppo_cli.runs.policy import restore_policy

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
        loaded = restore_policy(payload, checkpoint, env_kwargs, say)
        return checkpoint, loaded.batch, loaded.config, loaded.steps
    except CheckpointError as error:
        raise RunError(error if str(checkpoint) in str(error) else f"{checkpoint}: {error}") from error


def _candidates(which: str | None, episodes: int) -> Sequence[int]:
    """The episodes of which one may be filmed.

    Raises:
        ConfigError: there is no such episode.
    """
    if which in (None, "first"):
        return [0]
    if which in EPISODES:
        return range(episodes)
    if int(which or 0) >= episodes:
        raise ConfigError(
            f"--video-episode {which}: expected 0 to {episodes - 1}; --episodes says how many there are"
        )
    return [int(which or 0)]


def choose_episode(which: str, returns: Sequence[float]) -> int:
    """The number of an episode.

    Args:
        which: the number itself; ``first``; ``best`` and ``worst``, by return; or ``median``, the lower of
            two. Of several that are equal it is the first.
        returns: of the episodes.
    """
    if which not in EPISODES:
        return int(which)
    order = sorted(range(len(returns)), key=lambda episode: returns[episode])
    best = max(order, key=lambda episode: (returns[episode], -episode))
    return {"first": 0, "worst": order[0], "median": order[(len(order) - 1) // 2], "best": best}[which]


def _film(
    config: EnvConfig,
    seed: int,
    episode: int,
    actions: Sequence[Any],
    returns: Sequence[float],
    folder: Path,
    checkpoint: Path,
) -> str:
    """Films an episode by playing its actions again; where the film lies, and what it shows.

    The evaluation itself renders nothing, so that its numbers do not depend on a film: some environments
    simulate more when they are drawn.
    """
    from ppo_cli.cli.film import film
    from ppo_cli.envs.vector import spawn_seeds

    path = folder / _film_name(checkpoint, episode)
    expected = returns[episode]
    shown = film(config, spawn_seeds(seed, "eval", len(returns))[episode], actions, path)
    if shown != expected:
        _say(f"{checkpoint}: the film shows another episode, with return {shown:g} instead of {expected:g}")
    return f"{_short_path(path)} (episode {episode}, return {shown:.2f})"


def _film_name(checkpoint: Path, episode: int) -> str:
    """Of the run's folder, the checkpoint and the episode, without folders that every run has."""
    parts = [part for part in Path(_short_path(checkpoint)).with_suffix("").parts if part != "checkpoints"]
    own = parts[1:] if parts[0] == "outputs" else parts
    return f"{folder_name('-'.join(own)).strip('-.')}-episode-{episode}.mp4"


def _short_path(path: Path) -> str:
    """A path as it is, or from the current folder, whichever is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def _has_scipy() -> bool:
    return importlib.util.find_spec("scipy") is not None


def _show(found: Sequence[Found], options: argparse.Namespace) -> None:
    """Prints what was found, or writes it as JSON."""
    summaries = [each.summary for each in found]
    text = json.dumps(summaries if len(options.runs) > 1 else summaries[0], indent=2) + "\n"
    if options.json == "-":
        print(text, end="", flush=True)
        for each in found:
            if each.film:
                _say(f"film: {each.film}")
        return
    if len(options.runs) > 1:
        console = output_console()
        console.print(_table(found, console))
        for each in found:
            if each.film:
                print(f"film: {each.film}")
    else:
        print(_lines(found[0]))
    sys.stdout.flush()
    if options.json is not None:  # last, so that a full disk does not lose the table
        Path(options.json).write_text(text, encoding="utf-8")


def _lines(found: Found) -> str:
    summary = found.summary
    lengths = summary["lengths"]
    kind = "deterministic" if summary["deterministic"] else "sampled"
    lines = [
        f"{found.run} · {Path(summary['checkpoint']).name}, {summary['steps']:,} steps · "
        f"{summary['episodes']} {kind} episode{'s'[: summary['episodes'] - 1]}, seed {summary['seed']}",
        f"return  {mean_and_deviation(summary['mean'], summary['std'], DECIMALS)}",
        f"IQM     {_rounded(summary['iqm'])}",
        f"95 %    {_interval(summary)} (bootstrap interval of the mean)",
        f"length  {np.mean(lengths):.1f} ({min(lengths)} to {max(lengths)})",
    ]
    lines += [f"{key}  {value:.2f}" for key, value in _successes(summary).items()]
    if found.film:
        lines.append(f"film    {found.film}")
    return "\n".join(lines)


def _successes(summary: Summary) -> dict[str, float]:
    """What the environment told of success: the share of the episodes, by key."""
    return {key: value for key, value in summary.get("info", {}).items() if "success" in key.lower()}


def _table(found: Sequence[Found], console: Console) -> Group:
    """A row for each run, in the order in which they were given; what all share is in the title."""
    summaries = [each.summary for each in found]
    how = {
        "actions": ["deterministic" if summary["deterministic"] else "sampled" for summary in summaries],
        "episodes": [f"{summary['episodes']:,}" for summary in summaries],
        "seed": [str(summary["seed"]) for summary in summaries],
        "steps": [f"{summary['steps']:,}" for summary in summaries],
        "checkpoint": [Path(summary["checkpoint"]).name for summary in summaries],
    }
    shared = {key: cells[0] for key, cells in how.items() if len(set(cells)) == 1}
    successes = [_successes(summary) for summary in summaries]
    columns = [
        Column("return", _aligned([mean_and_deviation(s["mean"], s["std"], DECIMALS) for s in summaries])),
        Column("IQM", [_rounded(summary["iqm"]) for summary in summaries], 2),
        Column("95 % of the mean", [_interval(summary) for summary in summaries], 3),
        Column("length", [f"{np.mean(summary['lengths']):,.1f}" for summary in summaries], 4),
        *(
            Column(key, [f"{told[key]:.2f}" if key in told else "" for told in successes], 1)
            for key in dict.fromkeys(key for told in successes for key in told)
        ),
        *(
            Column(key, cells, 0 if key == "steps" else 1, key not in ("actions", "checkpoint"))
            for key, cells in how.items()
            if key not in shared
        ),
    ]
    names = [split_name(os.path.normpath(each.run)) for each in found]
    return draw(console, "run", names, columns, title=_shared_words(shared))


def _shared_words(shared: Mapping[str, str]) -> str:
    """What is the same for all runs, in words."""
    words = []
    if "episodes" in shared:
        words.append(
            " ".join([shared["episodes"], *([shared["actions"]] if "actions" in shared else [])])
            + " episodes each"
        )
    elif "actions" in shared:
        words.append(f"{shared['actions']} episodes")
    if "seed" in shared:
        words.append(f"seed {shared['seed']}")
    if "checkpoint" in shared:
        words.append(shared["checkpoint"])
    if "steps" in shared:
        words.append(f"{shared['steps']} steps")
    return " · ".join(words)


def _aligned(cells: Sequence[str], between: str = " ± ") -> list[str]:
    """Pairs of numbers, each below the one of the row before."""
    pairs = [cell.split(between) for cell in cells]
    width = max(len(second) for _, second in pairs)
    return [f"{first}{between}{second:>{width}}" for first, second in pairs]


def _rounded(value: float) -> str:
    return short(value, max(DECIMALS, decimals_of(value)))


def _interval(summary: Summary) -> str:
    return "–" if summary["interval"] is None else " to ".join(map(_rounded, summary["interval"]))
