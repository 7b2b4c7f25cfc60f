"""What a run says in lines: what it is, how its evaluations end, and what to type next."""

from collections.abc import Sequence
from pathlib import Path

from ppo_cli.actor_critic import ActorCritic, Eyes
from ppo_cli.config.quoting import program_to_paste, shell_quoted
from ppo_cli.encoders import ImpalaCNN, MinAtarCNN, NatureCNN, PackedEncoder, UserEncoder
from ppo_cli.envs.make import resolve_env_id
from ppo_cli.envs.named import maker_of
from ppo_cli.episodes import Evaluation
from ppo_cli.memory import RecurrentMemory
from ppo_cli.parts import frozen_parts
from ppo_cli.runs.folder import RunFolder
from ppo_cli.schedules import trained_steps
from ppo_cli.text import counted, mean_and_deviation, short
from ppo_cli.trunks import Trunk

_ENCODERS = {
    NatureCNN: "nature_cnn",
    ImpalaCNN: "impala_cnn",
    MinAtarCNN: "minatar_cnn",
    UserEncoder: "an encoder of your own",
}
MOST_KEYS = 5  # of an observation that are named, rather than counted
MUCH = 0.2  # of the larger return: what the evaluation's may differ from the training's without a word


def pack(pieces: Sequence[str], columns: int) -> list[str]:
    """Pieces in as few lines as they fit into whole; further lines are indented."""
    lines = [pieces[0]]
    for piece in pieces[1:]:
        longer = f"{lines[-1]} · {piece}"
        lines[-1:] = [longer] if len(longer) <= columns else [lines[-1], f"  {piece}"]
    return lines


def network_words(model: ActorCritic) -> str:
    """A network from the observations to the heads: encoders other than flat ones, memory, hidden layers."""
    frozen = frozen_parts(model)
    return ", ".join([_path_words(model), *([f"frozen: {' and '.join(frozen)}"] if frozen else [])])


def _path_words(model: ActorCritic) -> str:
    """What is between the observations and the heads, of actor and critic."""
    actor, critic = (", ".join(_eyes_words(eyes)) for eyes in (model.actor, model.critic))
    widths, own = (_trunk_words(trunk) for trunk in (model.trunk, model.value_trunk or model.trunk))
    if model.has_own_critic:
        return f"actor of {_seen_words(model.actor, actor, widths)}; critic of " + _seen_words(
            model.critic, critic, own
        )
    if widths != own:
        return ", ".join(filter(None, (actor, f"actor {widths or 'linear'}", f"critic {own or 'linear'}")))
    verb, each = ("share ", "") if model.value_trunk is None else ("", " each")
    trunks = f"actor and critic {verb}{widths}{each}" if widths else ""
    return ", ".join(filter(None, (actor, trunks))) or "actor and critic linear"


def _eyes_words(eyes: Eyes) -> list[str]:
    """Encoders other than flat ones, and the memory."""
    encoder, memory = eyes.encoder, eyes.memory
    encoders = list(encoder.encoders) if isinstance(encoder, PackedEncoder) else [encoder]
    parts = [name for kind, name in _ENCODERS.items() if any(isinstance(each, kind) for each in encoders)]
    return [*parts, f"{memory.kind} {memory.size}"] if isinstance(memory, RecurrentMemory) else parts


def _trunk_words(trunk: Trunk) -> str:
    choice = trunk.choice
    widths = "-".join(map(str, choice.hidden_sizes))
    kind = "" if choice.trunk == "mlp" else f"{choice.trunk} "
    return f"{kind}{widths} {choice.activation}" if widths else ""


def _seen_words(eyes: Eyes, front: str, trunk: str) -> str:
    """What somebody sees by eyes of its own, and what it makes of it."""
    encoder = eyes.encoder
    keys = (
        [encoder.space.leaves[number].key for number in encoder.leaves]
        if isinstance(encoder, PackedEncoder)
        else ["the observation"]
    )
    seen = ", ".join(keys) if len(keys) <= MOST_KEYS else counted(len(keys), "key")
    return f"{seen}: {', '.join(filter(None, (front, trunk))) or 'linear'}"


def budget_words(asked: int, n_envs: int, n_steps: int, filled: bool = False) -> str:
    """The environment steps that a run will have trained for, `trained_steps`.

    Args:
        asked: ``total_timesteps``.
        n_envs: The number of environments N.
        n_steps: The number of steps T of a rollout.
        filled: Whether a backend has rows that are no steps, so that the end is not known beforehand.
    """
    shape = f"{n_envs:,} × {n_steps:,}"
    if filled:
        return f"at least {asked:,} steps (iterations of {shape})"
    steps = trained_steps(asked, n_envs, n_steps)
    if steps == asked:
        return f"{steps:,} steps (iterations of {shape})"
    return f"{steps:,} steps (asked: {asked:,}; whole iterations of {shape})"


def device_words(device: object, threads: int) -> str:
    """What the network is computed on."""
    return f"{device}, {counted(threads, 'thread')}"


def result_words(evaluation: Evaluation, deterministic: bool | None = None) -> str:
    """The mean return of an evaluation, and of what.

    Args:
        evaluation: The evaluation of a policy.
        deterministic: Whether it took the most probable actions, where that is to be said.
    """
    kinds = {True: "deterministic ", False: "sampled ", None: ""}
    episodes = counted(len(evaluation.returns), f"{kinds[deterministic]}episode")
    return f"return {mean_and_deviation(evaluation.mean, evaluation.std)} over {episodes}"


def training_words(evaluation: Evaluation, trained: float) -> str:
    """Why a deterministic evaluation's return is not the training's, where it differs much; else nothing.

    Much is more than the evaluation's standard deviation and than a fifth of the larger of both.

    Args:
        evaluation: The evaluation of the policy, which took its most probable actions.
        trained: The mean return of the training's last episodes; NaN where none ended.
    """
    gap = abs(evaluation.mean - trained)
    if not gap > max(evaluation.std, MUCH * max(abs(evaluation.mean), abs(trained))):  # nor with NaN
        return ""
    return f" (training's last: {short(trained)}, whose policy samples its actions)"


def next_lines(folder: Path) -> str:
    """What to type when a run has ended, to look at it: a film, where one can be made."""
    logdir = "outputs" if folder.parts[:1] == ("outputs",) else shell_quoted(folder)
    look = f"{program_to_paste('tensorboard')} --logdir {logdir}"
    env_id = resolve_env_id(RunFolder(folder).config.env.id)
    film = " --video films" if maker_of(env_id) is None else ""
    return f"next: {look}\n      {program_to_paste('ppo-eval')} {shell_quoted(folder)}{film}"
