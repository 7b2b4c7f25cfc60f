"""Kills a run at random moments, resumes it each time, and holds its end against a run never touched.

    python benchmarks/kill.py                       # 50 kills of a LunarLander run
    python benchmarks/kill.py --kills 5 env=CartPole-v1 total_timesteps=2e5

SIGKILL comes at any moment from start-up to the last write; nothing in the run can see it coming. At the end
all that training changes must be the same to the bit, and metrics.csv and the event file must have every
iteration exactly once.
"""

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from ppo_cli.checkpoint import load_checkpoint

PROGRAM = "from ppo_cli.cli.train import main; main()"
LUNAR_LANDER = ["env=LunarLander-v3", "n_steps=128", "total_timesteps=8e5", "checkpoint.every=1"]
CLOCKS = ("charts/SPS", "time/collect", "time/update")


def start(arguments: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    """One `ppo-train` process."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill_and_resume(arguments: list[str], folder: Path, kills: int, longest: float, seed: int) -> int:
    """Runs to the end through ``kills`` kills (or until it is faster than they come); how many there were."""
    generator = random.Random(seed)
    done, command = 0, [*arguments, "hydra.run.dir=killed"]
    while True:
        process = start(command, folder)
        try:
            process.wait(timeout=generator.uniform(0, longest) if done < kills else None)
            if process.returncode != 0:
                raise RuntimeError(f"{command} ended with status {process.returncode}")
            return done
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done += 1
        if (folder / "killed" / "config.yaml").exists():
            command = ["resume=killed"]


def differing(first: object, second: object, path: str = "") -> list[str]:
    """Where two checkpoints differ, but for the lengths of files that hold times."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = first.keys() | second.keys()
        return [d for k in keys if k != "log" for d in differing(first.get(k), second.get(k), f"{path}/{k}")]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [d for i in range(len(first)) for d in differing(first[i], second[i], f"{path}/{i}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    return [] if first == second else [path]


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what a clock says."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


def event_steps(folder: Path) -> list[int]:
    """The steps of the losses in the event file."""
    (file,) = folder.glob("events.out.tfevents.*")
    events = EventFileLoader(str(file)).Load()
    return [e.step for e in events if any(v.tag == "losses/entropy" for v in e.summary.value)]


def main() -> None:
    """Runs both and compares; the status is 0 only where nothing differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", default=LUNAR_LANDER, metavar="KEY=VALUE")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds after which a kill comes at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        if start([*args.overrides, "hydra.run.dir=whole"], folder).wait() != 0:
            sys.exit("the run that is not killed failed")
        whole = time.perf_counter() - began
        kills = kill_and_resume(args.overrides, folder, args.kills, args.longest, args.seed)
        first, second = folder / "whole", folder / "killed"
        found = differing(*(load_checkpoint(run / "checkpoints" / "last.pt") for run in (first, second)))
        same_rows = rows(first) == rows(second)
        once = event_steps(second) == [int(row["step"]) for row in rows(first)]
        print(f"{kills} kills of a run that takes {whole:.0f} s alone and has {len(rows(first))} iterations")
        print(f"differing in the last checkpoint: {', '.join(found) or 'nothing'}")
        print(f"metrics.csv the same: {same_rows}; each iteration once in the event file: {once}")
        sys.exit(0 if not found and same_rows and once else 1)


if __name__ == "__main__":
    main()
