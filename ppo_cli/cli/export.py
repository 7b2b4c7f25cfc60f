"""`ppo-export`: writes a trained policy as one file that runs without this package.

PyTorch is imported late: it takes longer than a page of help or an error should.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_cli.cli.command import Parser, run_command, say_error, typed_program
from ppo_cli.errors import ConfigError
from ppo_cli.importing import importing
from ppo_cli.runs.folder import find_checkpoint, run_of

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

_DESCRIPTION = """\
Writes a run's policy as one file: normaliser, network, choice of the action and the way to the environment's
own actions. It is compared with the policy on 1,000 observations; a file that differs is not kept.
"""
_EXAMPLES = """\
  ppo-export outputs/LunarLander-v3/2026-01-31_12-00-00
  ppo-export outputs/LunarLander-v3/2026-01-31_12-00-00 --checkpoint best --output lander.onnx
  ppo-export outputs/CartPole-v1/2026-01-31_12-00-00 --format torchscript --sample
"""
# The options and what argparse is told of each.
_OPTIONS: dict[str, dict[str, Any]] = {
    "run": {"metavar": "RUN", "type": Path, "help": "a run's folder, or a checkpoint file"},
    "--checkpoint": {"metavar": "last|best|STEPS", "help": "of the run's checkpoints (default: last)"},
    "--format": {"choices": list(SUFFIXES), "default": "onnx", "help": "of the file (default: onnx)"},
    "--sample": {
        "action": "store_true", "help": "draw actions, from an input `noise` (default: the most probable)",
    },
    "--output": {
        "metavar": "FILE", "type": Path, "help": "(default: policy.onnx or policy.pt in the run's folder)",
    },
    "--force": {"action": "store_true", "help": "replace a file that is there"},
}  # fmt: skip


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-export", lambda: _export(_parse(sys.argv[1:])), needs_output=True)


def _say(line: str) -> None:
    say_error(f"{typed_program('ppo-export')}: {line}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, checked as far as that goes without a run.

    Raises:
        ConfigError: they are not as they should be.
    """
    parser = Parser(
        prog="ppo-export", description=_DESCRIPTION, epilog=f"examples:\n{_EXAMPLES}", allow_abbrev=False,
    )  # fmt: skip
    for name, settings in _OPTIONS.items():
        parser.add_argument(name, **settings)
    options = parser.parse_args(arguments)
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if options.format == "onnx" and missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}: pip install 'ppo-cli[onnx]', or --format torchscript"
        )
    return options


def _export(options: argparse.Namespace) -> None:
    """Writes the file, and says what was found.

    Raises:
        ConfigError: there is no such run, or there is such a file.
        RunError: the checkpoint is damaged, or the policy can't be exported.
    """
    checkpoint = find_checkpoint(options.run, options.checkpoint)
    run = run_of(checkpoint)
    home = checkpoint.parent if run is None else run.path
    output = options.output or home / f"policy{SUFFIXES[options.format]}"
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"--output {output}: expected a file in a folder that exists")
    if output.exists() and not options.force:
        raise ConfigError(f"{output} exists; --force replaces it, --output names another file")
    with importing():  # late: it brings PyTorch
        from ppo_cli.runs.export import export_checkpoint

    found = export_checkpoint(checkpoint, output, options.format, options.sample, str(options.run), _say)
    print(f"{output}: {found}")
