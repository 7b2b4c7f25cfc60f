"""Films of episodes: frame by frame to ffmpeg, so that a long one needs no more memory than a short one.

An episode is filmed by playing its actions again. The evaluation itself renders nothing, so that its numbers
do not depend on a film: some environments simulate more when they are drawn.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from ppo_cli.config.schema import EnvConfig
from ppo_cli.envs import calls
from ppo_cli.envs.group import explain, statistics_of
from ppo_cli.envs.one_of import OneOf
from ppo_cli.errors import ConfigError, EnvError, RunError
from ppo_cli.files import written_aside
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.new_folder import folder_name

Frame = npt.NDArray[np.uint8]  # [height, width, 3]

FRAMES_PER_SECOND = 30  # where an environment's metadata names none
EPISODES = ("first", "best", "median", "worst")  # which of them a film shows, beside their numbers


def candidates(which: str, episodes: int) -> Sequence[int]:
    """The episodes of which one may be filmed.

    Raises:
        ConfigError: there is no such episode.
    """
    if which == "first":
        return [0]
    if which in EPISODES:
        return range(episodes)
    if int(which) >= episodes:
        raise ConfigError(
            f"--video-episode {which}: expected 0 to {episodes - 1}; --episodes says how many there are"
        )
    return [int(which)]


def choose_episode(which: str, returns: Sequence[float]) -> int:
    """The number of an episode.

    Args:
        which: The number itself; ``first``; ``best`` and ``worst``, by return; or ``median``, the lower of
            two. Of several that are equal it is the first.
        returns: The returns of the episodes.
    """
    if which not in EPISODES:
        return int(which)
    order = sorted(range(len(returns)), key=lambda episode: returns[episode])
    best = max(order, key=lambda episode: (returns[episode], -episode))
    return {"first": 0, "worst": order[0], "median": order[(len(order) - 1) // 2], "best": best}[which]


def film_name(checkpoint: Path, episode: int) -> str:
    """A name of the run's folder, the checkpoint and the episode, without folders that every run has."""
    every = Path(short_path(checkpoint)).with_suffix("").parts
    parts = [part for part in every if part != RunFolder.checkpoints.name]
    own = parts[1:] if parts[0] == "outputs" else parts
    return f"{folder_name('-'.join(own)).strip('-.')}-episode-{episode}.mp4"


def short_path(path: Path) -> str:
    """A path as it is, or from the current folder, whichever is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def go_headless() -> None:
    """Lets environments draw into memory without a display; libraries read this when they are imported."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def check_pictures(config: EnvConfig) -> None:
    """Raises EnvError where an environment can't be filmed."""
    from ppo_cli.runs.build import env_maker  # late: it brings PyTorch

    plain = env_maker(config)()
    calls.close(plain)
    if isinstance(plain.unwrapped, OneOf):
        raise EnvError(f"--video: of {config.id} there are vectors alone, of which no episode can be filmed")
    modes = [str(mode) for mode in plain.metadata.get("render_modes") or ()]
    if "rgb_array" not in modes:
        raise EnvError(
            f"--video: {config.id} has no render_mode rgb_array, only {', '.join(modes) or 'none'}"
        )
    env = _with_pictures(config)
    try:
        env.reset(seed=0)
        _frame(env)
    except Exception as error:  # a missing package, no OpenGL, ...
        raise EnvError(f"--video: rendering {config.id} {explain(error)}") from error
    finally:
        calls.close(env)


def film(config: EnvConfig, seed: int, actions: Sequence[Any], path: Path) -> float:
    """Films an episode into an MP4 by playing its actions again.

    Args:
        config: The config of the environment.
        seed: The seed of the episode.
        actions: The actions as the environment took them.
        path: The path of the film; it is there whole or not at all.

    Returns:
        The return of the episode that the film shows.

    Raises:
        RunError: the environment or the encoder failed.
    """
    rewards: list[float] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path, ".tmp.mp4") as aside, calls.closing(_with_pictures(config)) as env:
            fps = env.metadata.get("render_fps") or FRAMES_PER_SECOND
            _encode(aside, _frames(env, seed, actions, rewards), fps)
    except Exception as error:
        raise RunError(f"--video: filming {config.id} {explain(error)}") from error
    return sum(rewards)


def _with_pictures(config: EnvConfig) -> "gym.Env[Any, Any]":
    from ppo_cli.runs.build import env_maker  # late: it brings PyTorch

    return env_maker(replace(config, kwargs={**config.kwargs, "render_mode": "rgb_array"}))()


def _frames(
    env: "gym.Env[Any, Any]", seed: int, actions: Sequence[Any], rewards: list[float]
) -> Iterator[Frame]:
    """The picture at the episode's start and after each action; adds what makes its return to a list."""
    env.reset(seed=seed)
    yield _frame(env)
    for action in actions:
        rewards.append(float(env.step(action)[1]))
        yield _frame(env)
    if (statistics := statistics_of(env)) is not None:  # as in the evaluation
        rewards[:] = [float(statistics.episode_returns)]


def _frame(env: "gym.Env[Any, Any]") -> Frame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an error says enough
        frame = env.render()
    if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape[2:] == (3,)):
        what = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"render() gave {what}, expected uint8 (height, width, 3)")
    return frame


def _encode(path: Path, frames: Iterable[Frame], fps: float) -> None:
    """Sends frames to ffmpeg as they come.

    `imageio_ffmpeg.write_frames` does not say when ffmpeg failed, as on a full disk, and lets it write to the
    terminal.

    Raises:
        OSError: ffmpeg failed; with its words.
        ValueError: frames differ in size.
    """
    from imageio_ffmpeg import get_ffmpeg_exe  # late: an extra

    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    command = [
        get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-",
        "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p",  # what every browser plays
        "-vcodec", "libx264", "-movflags", "+faststart", str(path.absolute()),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as said:
        encoder = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said)
        assert encoder.stdin is not None
        try:
            encoder.stdin.write(first.tobytes())
            for frame in frames:
                if frame.shape != first.shape:
                    raise ValueError(f"render() gave {frame.shape} after {first.shape}")
                encoder.stdin.write(frame.tobytes())
        except BrokenPipeError:  # it says why on stderr
            pass
        except BaseException:
            encoder.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                encoder.stdin.close()
            status = encoder.wait()
        if status:
            said.seek(0)
            raise OSError(f"ffmpeg: {said.read().decode(errors='replace').strip() or f'status {status}'}")
