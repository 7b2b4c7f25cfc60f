"""Atari's games in EnvPool: the published wrappers as arguments of its own preprocessing, which is C++.

What the emulator is given and what is seen of it is the same as through the wrappers, frame by frame, but for
the beginning of a life: see docs/extending.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from ppo_cli.envs.backends import ATARI
from ppo_cli.errors import EnvError

Array = npt.NDArray[Any]
Entry = Mapping[str, Any]

# The wrappers that EnvPool's preprocessing stands for, from the innermost, with what each may be given: a
# type, or the one value that EnvPool has.
WRAPPERS: dict[str, dict[str, Any]] = {
    "RecordEpisodeStatistics": {},
    "AtariPreprocessing": {
        "noop_max": int, "frame_skip": int, "screen_size": int, "terminal_on_life_loss": False,
        "grayscale_obs": True, "grayscale_newaxis": False, "scale_obs": False,
    },
    "EpisodicLife": {},
    "FireReset": {},
    "SignReward": {},
    "FrameStackObservation": {"stack_size": int, "padding_type": "reset"},
}  # fmt: skip
NEEDED = ("AtariPreprocessing", "FrameStackObservation")
LEAST = {"noop_max": 1, "frame_skip": 2}
UNLIMITED = 2**31 - 1  # frames of a game, as EnvPool says what the emulator says by None or 0
# The emulator's arguments that EnvPool knows too; what it draws is grey whatever `obs_type` says.
KWARGS = (
    "frameskip", "repeat_action_probability", "full_action_space", "max_num_frames_per_episode", "obs_type",
)  # fmt: skip
TAKES, INSTEAD = "vectorization=envpool takes", "for others use vectorization=auto"


def translate(
    env_id: str, kwargs: Mapping[str, Any], wrappers: Sequence[Entry]
) -> tuple[str, dict[str, Any]]:
    """EnvPool's name of a task, and its arguments beside those of every task.

    Args:
        env_id: An id that Gymnasium knows.
        kwargs: The arguments of the environment.
        wrappers: The entries as `ppo_cli.envs.wrappers` describes them, the innermost first.

    Raises:
        EnvError: EnvPool can't make a game of Atari's as it is asked for; one line.
    """
    if not ATARI.match(env_id):
        return env_id, {}
    for key in kwargs:
        if key not in KWARGS:
            raise EnvError(f"env.kwargs.{key}: {TAKES} {', '.join(KWARGS)} of Atari's arguments; {INSTEAD}")
    registered = gym.spec(env_id).kwargs
    emulator, chosen = {**registered, **kwargs}, _chosen(wrappers)
    preprocessing = {"noop_max": 30, "frame_skip": 4, "screen_size": 84, **chosen["AtariPreprocessing"]}
    for key, least in LEAST.items():
        if preprocessing[key] < least:
            given = f"AtariPreprocessing with {key}={preprocessing[key]}"
            raise EnvError(f"env.wrappers: {given}: {TAKES} at least {least}; {INSTEAD}")
    frames = emulator["max_num_frames_per_episode"] or UNLIMITED
    a_step = preprocessing["frame_skip"]
    if not (isinstance(frames, int) and a_step <= frames <= UNLIMITED):
        raise EnvError(
            f"env.kwargs.max_num_frames_per_episode={frames}: {TAKES} 0, which is no limit, or an integer "
            f"from {a_step}, the frames of a step, to {UNLIMITED:,}; {INSTEAD}"
        )
    task = "".join(word.capitalize() for word in str(registered["game"]).split("_"))
    return f"{task}-v5", {
        "noop_max": preprocessing["noop_max"],
        "frame_skip": preprocessing["frame_skip"],
        "img_height": preprocessing["screen_size"],
        "img_width": preprocessing["screen_size"],
        "stack_num": chosen["FrameStackObservation"]["stack_size"],
        "episodic_life": "EpisodicLife" in chosen,
        "use_fire_reset": "FireReset" in chosen,
        "reward_clip": "SignReward" in chosen,
        "repeat_action_probability": emulator["repeat_action_probability"],
        "full_action_space": emulator["full_action_space"],
        "max_episode_steps": frames // a_step,
    }


def _chosen(wrappers: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """The arguments of each wrapper by its name.

    Raises:
        EnvError: EnvPool's preprocessing is not what they are together.
    """
    names = [str(entry["name"]) for entry in wrappers]
    if names != [name for name in WRAPPERS if name in names] or not {*NEEDED} <= {*names}:
        raise EnvError(
            f"env.wrappers: {TAKES} {', '.join(WRAPPERS)} around Atari's games, in this order, of which "
            f"{' and '.join(NEEDED)} always, given {', '.join(names) or 'none'}; {INSTEAD}"
        )
    return {name: _options(name, entry) for name, entry in zip(names, wrappers, strict=True)}


def _options(name: str, entry: Entry) -> dict[str, Any]:
    options = {key: value for key, value in entry.items() if key not in ("name", "when")}
    for key, value in options.items():
        allowed = WRAPPERS[name].get(key)
        if allowed is None or not (isinstance(value, int) if allowed is int else value == allowed):
            takes = ", ".join(key if of is int else f"{key}={of}" for key, of in WRAPPERS[name].items())
            raise EnvError(
                f"env.wrappers: {name} with {key}={value}: {TAKES} {takes or 'no arguments'}; {INSTEAD}"
            )
    return options


class Games:
    """Whole games: their scores and ends, behind the lives and the clipped rewards that are learned from."""

    def __init__(self, n_envs: int, is_recorded: bool) -> None:
        """Starts at the beginning of N games.

        Args:
            n_envs: The number of environments N.
            is_recorded: Whether scores are told of, as by `RecordEpisodeStatistics`.
        """
        self._scores, self._is_recorded = np.zeros(n_envs), is_recorded

    def step(self, info: Mapping[str, Array], truncated: Array) -> dict[str, Array]:
        """What the other backends tell of ends: ``env_over`` and ``returns``, [N] each.

        Args:
            info: What EnvPool tells of a step.
            truncated: Whether each was cut in it, [N].
        """
        self._scores += info["reward"]
        over = (info["terminated"] != 0) | truncated
        returns = np.where(over & self._is_recorded, self._scores, np.nan)
        self._scores[over] = 0.0
        return {"env_over": over, "returns": returns}
