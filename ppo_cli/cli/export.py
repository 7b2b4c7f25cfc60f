"""`ppo-export`: writes a trained policy as one file that runs without this package.

PyTorch is imported late: it takes longer than a page of help or an error should.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_cli.cli.command import Parser, run_command, say_error, typed_program
from ppo_cli.cli.evaluate import find_checkpoint
from ppo_cli.config.schema import ConfigError
from ppo_cli.errors import RunError

if TYPE_CHECKING:
    from ppo_cli.config.schema import Config
    from ppo_cli.policy import Policy

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
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="a run's folder, or a checkpoint file")
    add("--checkpoint", metavar="last|best|STEPS", help="of the run's checkpoints (default: last)")
    add("--format", choices=list(SUFFIXES), default="onnx", help="of the file (default: onnx)")
    add(
        "--sample",
        action="store_true",
        help="draw actions, from an input `noise` (default: the most probable)",
    )
    add("--output", metavar="FILE", type=Path, help="(default: policy.onnx or policy.pt in the run's folder)")
    add("--force", action="store_true", help="replace a file that is there")
    options = parser.parse_args(arguments)
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if options.format == "onnx" and missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}: pip install 'ppo-cli[onnx]', or --format torchscript"
        )
    return options


def _export(options: argparse.Namespace) -> None:
    """Writes the file beside its place, checks it, and only then puts it there.

    Raises:
        ConfigError: there is no such run, or there is such a file.
        RunError: the checkpoint is damaged, or the policy can't be exported.
    """
    checkpoint = find_checkpoint(options.run, options.checkpoint)
    output = options.output or _home(checkpoint) / f"policy{SUFFIXES[options.format]}"
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"--output {output}: expected a file in a folder that exists")
    if output.exists() and not options.force:
        raise ConfigError(f"{output} exists; --force replaces it, --output names another file")
    policy, config, steps = _policy(checkpoint)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        found = _write(policy, config, steps, options, unfinished)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"{output}: {found}")


def _home(checkpoint: Path) -> Path:
    """The folder of a checkpoint's run, or the file's own where it lies elsewhere."""
    run = checkpoint.parent.parent
    inside = checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file()
    return run if inside else checkpoint.parent


def _policy(checkpoint: Path) -> "tuple[Policy, Config, int]":
    from ppo_cli.runs.checkpoint import CheckpointError, load_run
    from ppo_cli.runs.policy import restore_policy

    try:
        loaded = restore_policy(load_run(checkpoint), checkpoint, say=_say)
        return loaded.batch, loaded.config, loaded.steps
    except CheckpointError as error:
        raise RunError(error if str(checkpoint) in str(error) else f"{checkpoint}: {error}") from error


def _write(policy: "Policy", config: "Config", steps: int, options: argparse.Namespace, path: Path) -> str:
    """Writes and checks the file; what was found, in a line."""
    from ppo_cli.envs import calls
    from ppo_cli.export.graph import ExportError, Graph, load, write_onnx, write_torchscript
    from ppo_cli.export.parity import check_parity
    from ppo_cli.runs.build import env_maker

    env = env_maker(config.env)()
    observations, actions = env.observation_space, env.action_space
    calls.close(env)
    about: dict[str, Any] = {
        "ppo_cli": version("ppo-cli"),
        "env": config.env.id,
        "steps": steps,
        "sampled": options.sample,
        "wrappers": config.env.wrappers,
    }
    write = write_onnx if options.format == "onnx" else write_torchscript
    try:
        graph = Graph(policy, observations, actions, options.sample)
        write(graph, path, about)
        parity = check_parity(load(path, options.format), graph.ports, policy, observations, actions)
    except ExportError as error:
        raise RunError(" ".join(f"{options.run}: {error}".split())) from error
    ties = f", {parity.ties} choices between equals differ" if parity.ties else ""
    ins, outs = (", ".join(port.name for port in each) for each in (graph.ports.inputs, graph.ports.outputs))
    return (
        f"{ins} -> {outs}; largest difference on {parity.observations:,} observations "
        f"{parity.difference:.1e}{ties}"
    )
