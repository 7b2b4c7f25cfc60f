"""One training run of CleanRL's script with our settings: `python -m peers.run_cleanrl cleanrl CONFIG.json`.

The script is the author's file, unchanged, run as it is meant to be run: by its command line. It prints a
line that begins with ``SPS:`` after every rollout's updates; here that line starts the clock's next mark.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym

from peers.common import Clock, annealed, make_env, minibatches, read, rows
from peers.table import PEERS


def arguments(config: dict[str, Any]) -> list[str]:
    """The script's command line."""
    settings = {
        **PEERS["cleanrl"].settings(config),
        "num-minibatches": minibatches(config),
        "anneal-lr": annealed(config),
        "clip-vloss": config["vf_clip_ratio"] is not None,
    }
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def main() -> None:
    """Runs the script and prints."""
    config = read()
    discrete = isinstance(make_env(config).action_space, gym.spaces.Discrete)
    script = Path(sys.prefix) / ("ppo.py" if discrete else "ppo_continuous_action.py")
    clock = Clock()

    def heard(*words: object, **_: object) -> None:
        if words[0] == "SPS:":
            clock.note(len(clock.marks) * rows(config))

    # Gymnasium 1 made the third argument mandatory, for which the script is too old.
    transform = gym.wrappers.TransformObservation
    gym.wrappers.TransformObservation = lambda env, function: transform(env, function, env.observation_space)
    sys.argv = [script.name, *arguments(config)]
    clock.note(0)
    runpy.run_path(str(script), init_globals={"print": heard}, run_name="__main__")
    clock.report()


if __name__ == "__main__":
    main()
