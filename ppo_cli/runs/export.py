"""A run's policy written as a file that runs without this package."""

from collections.abc import Callable
from pathlib import Path

from ppo_cli import __version__
from ppo_cli.envs import calls
from ppo_cli.errors import RunError
from ppo_cli.export.files import write_policy
from ppo_cli.export.graph import ExportError
from ppo_cli.runs.build import env_maker
from ppo_cli.runs.checkpoint import CheckpointError, load_run
from ppo_cli.runs.policy import restore_policy
from ppo_cli.text import flat


def export_checkpoint(
    checkpoint: Path, path: Path, kind: str, sample: bool, run: str, say: Callable[[str], None]
) -> str:
    """Writes the policy of a checkpoint as `ppo_cli.export.files.write_policy` does.

    Args:
        checkpoint: The checkpoint's file.
        path: The path of the file to write; what lies there is replaced.
        kind: ``onnx`` or ``torchscript``.
        sample: Whether the file draws its actions.
        run: The run as it was typed, for the message.
        say: A function that is told what the config has imported.

    Returns:
        What was found, in a line.

    Raises:
        RunError: The checkpoint is damaged, or the policy can't be exported.
        ConfigError: The network does not fit its environment.
        EnvError: The environment can't be made.
    """
    try:
        policy = restore_policy(load_run(checkpoint), checkpoint, say=say)
    except CheckpointError as error:
        raise RunError(error if str(checkpoint) in str(error) else f"{checkpoint}: {error}") from error
    env = policy.config.env
    with calls.closing(env_maker(env, n_envs=policy.config.shard_envs)()) as made:
        spaces = made.observation_space, made.action_space
    about = {
        "ppo_cli": __version__,
        "env": env.id,
        "steps": policy.steps,
        "sampled": sample,
        "wrappers": env.wrappers,
    }
    try:
        return write_policy(path, kind, policy.batch, *spaces, about, sample)
    except ExportError as error:
        raise RunError(f"{run}: {flat(error)}") from error
