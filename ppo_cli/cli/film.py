"""Films of episodes: frame by frame to ffmpeg, so that a long one needs no more memory than a short one."""

import contextlib
import subprocess
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
from ppo_cli.envs.group import explain
from ppo_cli.envs.make import EnvError
from ppo_cli.errors import RunError
from ppo_cli.runs.build import env_maker

Frame = npt.NDArray[np.uint8]  # [height, width, 3]

FRAMES_PER_SECOND = 30  # where an environment's metadata names none


def check_pictures(config: EnvConfig) -> None:
    """Raises EnvError where an environment can't be filmed."""
    plain = env_maker(config)()
    calls.close(plain)
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
        config: of the environment.
        seed: of the episode.
        actions: as the environment took them.
        path: of the film; it is there whole or not at all.

    Returns:
        The return of the episode that the film shows.

    Raises:
        RunError: the environment or the encoder failed.
    """
    rewards: list[float] = []
    aside = path.with_name(f".{path.name}.tmp.mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        env = _with_pictures(config)
        try:
            fps = env.metadata.get("render_fps") or FRAMES_PER_SECOND
            _encode(aside, _frames(env, seed, actions, rewards), fps)
        finally:
            calls.close(env)
        aside.replace(path)
    except Exception as error:
        raise RunError(f"--video: filming {config.id} {explain(error)}") from error
    finally:
        aside.unlink(missing_ok=True)
    return sum(rewards)


def _with_pictures(config: EnvConfig) -> "gym.Env[Any, Any]":
    return env_maker(replace(config, kwargs={**config.kwargs, "render_mode": "rgb_array"}))()


def _frames(
    env: "gym.Env[Any, Any]", seed: int, actions: Sequence[Any], rewards: list[float]
) -> Iterator[Frame]:
    """The picture at the episode's start and after each action; adds the rewards to a list."""
    env.reset(seed=seed)
    yield _frame(env)
    for action in actions:
        rewards.append(float(env.step(action)[1]))
        yield _frame(env)


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
