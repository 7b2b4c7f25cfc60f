"""`ppo-eval`: evaluates trained policies, with numbers that are the same every time.

PyTorch is imported late: it takes longer than a page of help or an error should.
"""

import argparse
import importlib.util
import json
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ppo_cli import statistics
from ppo_cli.cli.command import Parser, run_command, say_error, typed_program
from ppo_cli.config.typed import typed_values
from ppo_cli.errors import ConfigError, EnvError, RunError
from ppo_cli.importing import importing
from ppo_cli.report.evaluations import EvaluatedRun, lines, table
from ppo_cli.runs.film import EPISODES, go_headless
from ppo_cli.runs.folder import find_checkpoint, without_others
from ppo_cli.runs.signals import Interrupted
from ppo_cli.terminal import output_console
from ppo_cli.text import flat

_DESCRIPTION = """\
Evaluates the policies of runs: whole episodes with frozen weights and normalisation, each with a seed of its
own. With the settings of a run's own evaluation the numbers are those of its eval.json, bit for bit.
"""
_EXAMPLES = """\
  ppo-eval outputs/LunarLander-v3/2026-01-31_12-00-00 --episodes 100
  ppo-eval outputs/CartPole-v1/* --checkpoint best --sampled --json results.json
  ppo-eval outputs/LunarLander-v3/2026-01-31_12-00-00 --video videos --video-episode worst
"""
# The options and what argparse is told of each.
_OPTIONS: dict[str, dict[str, Any]] = {
    "runs": {"metavar": "RUN", "nargs": "+", "help": "a run's folder, or a checkpoint file"},
    "--checkpoint": {"metavar": "last|best|STEPS", "help": "of the run's checkpoints (default: last)"},
    "--episodes": {
        "metavar": "N", "type": int, "help": "how many (default: the run's eval.episodes, or 20)",
    },
    "--seed": {"metavar": "S", "type": int, "help": "of the evaluation (default: the run's eval.seed)"},
    "--deterministic": {
        "action": "store_true", "default": None,
        "help": "take the most probable action (default: as the run's eval.deterministic says)",
    },
    "--sampled": {
        "dest": "deterministic", "action": "store_false", "default": None, "help": "sample the actions",
    },
    "--env-kwargs": {
        "metavar": "KEY=VALUE", "nargs": "+", "action": "extend", "default": [],
        "help": "arguments of the environment over the run's own; YAML values",
    },
    "--reset-options": {
        "metavar": "KEY=VALUE", "nargs": "+", "action": "extend", "default": [],
        "help": "options of every reset over the run's env.reset_options; YAML values",
    },
    "--json": {
        "metavar": "FILE.json", "nargs": "?", "const": "-",
        "help": "write eval.json's keys, checkpoint and interval: instead of the table, or into a file",
    },
    "--video": {"metavar": "DIR", "type": Path, "help": "film an episode into an MP4 there"},
    "--video-episode": {
        "metavar": f"{'|'.join(EPISODES)}|N",
        "help": "which one, by its return or its number from 0 (default: first)",
    },
}  # fmt: skip


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
    either = parser.add_mutually_exclusive_group()
    for name, settings in _OPTIONS.items():
        (either if name in ("--deterministic", "--sampled") else parser).add_argument(name, **settings)
    options = parser.parse_intermixed_args(arguments)
    options.env_kwargs = typed_values("--env-kwargs", options.env_kwargs, "; runs come before it")
    options.reset_options = typed_values("--reset-options", options.reset_options, "; runs come before it")
    if "render_mode" in options.env_kwargs:
        given = f"render_mode={options.env_kwargs['render_mode']}"
        raise ConfigError(f"--env-kwargs {given}: an evaluation draws nothing; --video DIR makes a film")
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
    _check_video(options.video, options.video_episode)


def _check_video(folder: Path | None, which: str | None) -> None:
    if which is not None:
        if folder is None:
            raise ConfigError(f"--video-episode {which} goes with --video DIR, which makes a film")
        if which not in EPISODES and not re.fullmatch("[0-9]{1,9}", which, re.ASCII):
            raise ConfigError(
                f"--video-episode {which}: expected {', '.join(EPISODES)} or a number, 0 for the first"
            )
    if folder is not None:
        if importlib.util.find_spec("imageio_ffmpeg") is None:
            raise ConfigError("--video needs imageio-ffmpeg: pip install 'ppo-cli[video]'")
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--video {folder}: expected a folder")
        go_headless()


def _evaluate_all(options: argparse.Namespace) -> int:
    """Evaluates every run, whether others fail or not, and prints what was found.

    Returns:
        The exit status.
    """
    evaluated: list[EvaluatedRun] = []
    status = 0
    interrupted: Interrupted | None = None
    runs, say = without_others(options.runs), _said_once()
    for run in runs:
        try:
            evaluated.append(EvaluatedRun(run, *_evaluate(Path(run), options, say)))
        except (ConfigError, EnvError, RunError, OSError) as error:  # noqa: PERF203 - each fails on its own
            alone = len(runs) == 1
            status = 2 if alone and isinstance(error, (ConfigError, EnvError)) else 1
            line = flat(error)
            _say(line if run in line else f"{run}: {line}")
        except KeyboardInterrupt as error:
            done = f"interrupted in {run}; {len(evaluated)} of {len(runs)} runs were evaluated"
            interrupted = Interrupted(getattr(error, "number", signal.SIGINT), done)
            break
    if not statistics.has_scipy() and evaluated:
        _say("no intervals without SciPy: pip install 'ppo-cli[report]'")
    if evaluated:
        _show(evaluated, options)
    if interrupted is not None:
        raise interrupted
    return status


def _evaluate(
    run: Path, options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    checkpoint = find_checkpoint(run, options.checkpoint)
    with importing():  # late: they bring PyTorch
        from ppo_cli.runs.reevaluation import EvaluationOptions, evaluate_checkpoint

    names = EvaluationOptions.__dataclass_fields__
    how = EvaluationOptions(**{name: getattr(options, name) for name in names})
    return evaluate_checkpoint(checkpoint, options.checkpoint is not None or run == checkpoint, how, say)


def _said_once() -> Callable[[str], None]:
    """Says a line unless one was said of the same module: what is imported is, for all runs."""
    said: set[str] = set()

    def say(line: str) -> None:
        what, _, _ = line.partition(", which ")
        if what not in said:
            said.add(what)
            _say(line)

    return say


def _show(evaluated: Sequence[EvaluatedRun], options: argparse.Namespace) -> None:
    """Prints what was found, or writes it as JSON."""
    summaries = [each.summary for each in evaluated]
    text = json.dumps(summaries if len(options.runs) > 1 else summaries[0], indent=2) + "\n"
    films = [f"film: {each.film}" for each in evaluated if each.film]
    if options.json == "-":
        print(text, end="", flush=True)
        for line in films:
            _say(line)
        return
    if len(options.runs) > 1:
        console = output_console()
        console.print(table(evaluated, console))
        for line in films:
            print(line)
    else:
        print(lines(evaluated[0]))
    sys.stdout.flush()
    if options.json is not None:  # last, so that a full disk does not lose the table
        Path(options.json).write_text(text, encoding="utf-8")
