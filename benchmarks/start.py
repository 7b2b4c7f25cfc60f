"""How long the commands take to start: seconds of whole processes, and of a job before its first step.

    python benchmarks/start.py --repeats 7
    python benchmarks/start.py --repeats 7 --against ../an-older-checkout --json start.json

Every command is a process of its own, in turn with the others and with those of the other checkout; the first
round is not counted, in which Python compiles what it imports. Importing PyTorch alone stands beside them. A
job is one of a sweep; its seconds are those from the end of the environments of the job before, in the same
process, to the first step that it trains on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
HERE = BENCHMARKS.parent
N_ENVS, N_STEPS = 8, 32
QUICK = ["total_timesteps=256", "eval.episodes=0", "compile=false", "vectorization=sync"]
RUN = ["env=CartPole-v1", *QUICK]
TIMED = ["env=timed_env:Timed-v0", f"n_envs={N_ENVS}", f"n_steps={N_STEPS}", "batch_size=256", *QUICK]
JOB = "a sweep's job, to its first step"


def program(entry: str) -> list[str]:
    """A console script, of whichever checkout is on the path."""
    return [sys.executable, "-c", f"from ppo_cli.cli.entry import {entry}; {entry}()"]


def commands(run: Path) -> dict[str, list[str]]:
    """What is timed from outside; some of it reads a finished run."""
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "ppo-train --help": [*program("train"), "--help"],
        "a misspelt knob": [*program("train"), "env=CartPole-v1", "clip_rato=0.1"],
        "a run of 256 steps": [*program("train"), *RUN],
        "ppo-eval, 1 episode": [*program("evaluate"), str(run), "--episodes", "1"],
        "ppo-export --format torchscript": [
            *program("export"), str(run), "--format", "torchscript", "--force",
        ],
        "ppo-report": [*program("report"), str(run.parent)],
    }  # fmt: skip


def surroundings(checkout: Path, **more: str) -> dict[str, str]:
    """The environment of a process that imports a checkout and keeps bytecode, as where it is installed."""
    left = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    paths = os.pathsep.join(map(str, (checkout, BENCHMARKS)))
    return {**left, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def seconds(command: Sequence[str], checkout: Path, folder: Path) -> float:
    """How long a process takes; a misspelt knob ends it with status 2."""
    begun = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=surroundings(checkout), capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - begun
    if done.returncode not in (0, 2):
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return taken


def job_seconds(checkout: Path, folder: Path, jobs: int) -> float:
    """The median seconds of a job before it trains, of all but the first in one process."""
    marks = folder / "marks.json"
    subprocess.run(
        [*program("train"), "-m", *TIMED, f"seed=range({jobs})"],
        cwd=folder, env=surroundings(checkout, TIMED_ENV=str(marks)), check=True, capture_output=True,
    )  # fmt: skip
    trained = sorted(each for each in json.loads(marks.read_text()) if each[2] == N_STEPS)
    groups = [trained[first : first + N_ENVS] for first in range(0, len(trained), N_ENVS)]
    ends, begins = ([fold(env[at] for env in group) for group in groups] for at, fold in ((1, max), (0, min)))
    return statistics.median(begin - end for begin, end in zip(begins[1:], ends, strict=False))


def measure(checkouts: Sequence[Path], repeats: int, jobs: int) -> dict[str, list[list[float]]]:
    """Seconds of everything in turn, by what is timed: a list for each checkout."""
    with tempfile.TemporaryDirectory() as name:
        kept = Path(name)
        seconds([*program("train"), *RUN], HERE, kept)
        (run,) = kept.glob("outputs/*/*")
        timed = commands(run)
        found: dict[str, list[list[float]]] = {what: [[] for _ in checkouts] for what in (*timed, JOB)}
        for repeat in range(repeats + 1):
            for what, sides in found.items():
                for checkout, side in zip(checkouts, sides, strict=True):
                    with tempfile.TemporaryDirectory() as own:
                        if what == JOB:
                            taken = job_seconds(checkout, Path(own), jobs)
                        else:
                            taken = seconds(timed[what], checkout, Path(own))
                    if repeat:
                        side.append(taken)
    return found


def cell(values: Sequence[float]) -> str:
    """The median, and from where to where the values go."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(found: dict[str, list[list[float]]], compared: bool) -> str:
    """Rows of Markdown: seconds, and those of the other checkout with the ratio to them, pair by pair."""
    heads = ["seconds, median (from–to)", "here", *(["the other checkout", "ratio"] if compared else [])]
    lines = [heads, ["---"] * len(heads)]
    for what, (ours, *others) in found.items():
        ratios = [[mine / theirs for mine, theirs in zip(ours, other, strict=True)] for other in others]
        lines.append([what, cell(ours), *map(cell, others), *map(cell, ratios)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=6, help="jobs of each sweep")
    parser.add_argument("--against", type=Path, help="another checkout to time in turn")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    others = [] if args.against is None else [args.against.resolve()]
    found = measure([HERE, *others], args.repeats, args.jobs)
    print(table(found, bool(others)))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
