"""What a network costs that was never compiled before: seconds to its first update, and of a whole run.

    python benchmarks/cold.py env=LunarLander-v3 vectorization=sync --repeats 5
    python benchmarks/cold.py env=LunarLander-v3 vectorization=sync --repeats 3 --whole 1e6
    python benchmarks/cold.py env=CartPole-v1 --trees /tmp/before .

Every run is a process of its own. A cold one has empty caches; the warm one after it finds what that
compiled. ``first update`` is from the start of the process to the end of its first compiled minibatch, of a
run of one iteration; ``whole`` is a run of ``--whole`` steps, start and end included. Medians, and the
smallest and largest in brackets; the ratio is of each cold run to the warm one after it. ``--trees`` takes
turns between checkouts.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ppo_cli import Hook
from ppo_cli.config.compose import load

PROGRAM = "from ppo_cli.cli.entry import train; train()"
STARTED, SECONDS = "COLD_STARTED", "first_update.txt"


class FirstUpdate(Hook):
    """Notes in a run's folder when its first minibatch was done."""

    def before_update(self, run: Any, batch: Any) -> None:
        """Listens to the step until it was called once."""
        if not run.iteration:
            agent, step = run.agent, run.agent._step

            def listen(*args: Any) -> Any:
                state = step(*args)
                agent._step = step
                seconds = time.time() - float(os.environ[STARTED])
                (run.folder / SECONDS).write_text(str(seconds))
                return state

            agent._step = listen


def train(tree: Path, overrides: Sequence[str], cache: Path) -> float:
    """One `ppo-train` process with the code of a checkout.

    Returns:
        The seconds to its first update where the hook is told to note them, else those of all of it.
    """
    path = os.pathsep.join([str(tree.resolve()), str(Path(__file__).resolve().parent)])
    # Inductor keeps precompiled headers in the folder for temporary files
    caches = dict.fromkeys(("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR"), str(cache))
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *overrides, "compile=true", "eval.episodes=0"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, **caches, "PYTHONPATH": path, STARTED: str(started)},
        )  # fmt: skip
        wall = time.time() - started
        noted = list(Path(folder).glob(f"outputs/*/*/{SECONDS}"))
        return float(noted[0].read_text()) if noted else wall


def cold_and_warm(run: Callable[[Path], float]) -> tuple[float, float]:
    """The seconds of a run with empty caches, and of one that finds what that left."""
    with tempfile.TemporaryDirectory() as cache:
        return run(Path(cache)), run(Path(cache))


def row(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    """A line of the table: medians and spreads."""
    columns = [*zip(*pairs, strict=True), [cold / warm for cold, warm in pairs]]
    cells = [f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})" for each in columns]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Reads the command line, measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", type=float, metavar="STEPS", help="whole runs, too, of so many steps")
    parser.add_argument("--trees", nargs="+", type=Path, default=[Path(__file__).parents[1]])
    args = parser.parse_args()
    config = load(*args.overrides)
    first = [f"total_timesteps={config.rollout_rows}", "hooks=[{name: cold.FirstUpdate}]"]
    kinds = {"first update": first}
    if args.whole:
        kinds["whole"] = [f"total_timesteps={args.whole:g}"]
    measured: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.repeats):
        for tree in args.trees:
            for kind, more in kinds.items():
                name = f"{kind}, {tree}" if len(args.trees) > 1 else kind
                pair = cold_and_warm(partial(train, tree, [*args.overrides, *more]))
                measured.setdefault(name, []).append(pair)
                print(f"{name}: cold {pair[0]:.2f} s, warm {pair[1]:.2f} s", flush=True)
    print("\n| seconds | cold | warm | cold / warm |\n|---|---|---|---|")
    print("\n".join(row(*each) for each in measured.items()))


if __name__ == "__main__":
    main()
