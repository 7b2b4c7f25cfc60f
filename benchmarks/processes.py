"""One run on more and more processes: what an iteration takes on each number of them, and a collective.

    python benchmarks/processes.py 1 2 --repeats 5 --set env=ALE/Pong-v5 shards=2 total_timesteps=10240
    python benchmarks/processes.py 1 2 --repeats 5 --set env=LunarLander-v3 shards=2 n_envs=32
    python benchmarks/processes.py 2 --numbers 10000 140000 1700000

Every run is a `ppo-train` of its own; its first iteration is left out, and of the others the median is taken.
The numbers of processes take turns, so that their repeats lie apart in time. Prints a Markdown table, medians
over the repeats with lowest and highest. With ``--numbers`` it is the time in which processes exchange one
vector of so many numbers each, as they do in every minibatch.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ppo_cli.runs.processes import meet

MEASURED = {"charts/SPS": "steps/s", "time/collect": "collect, ms", "time/update": "update, ms"}
CALLS = 200  # of a collective


def measure(processes: int, words: Sequence[str]) -> dict[str, float]:
    """The medians over the iterations of one run, by the names of a table's columns."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        program = "from ppo_cli.cli.train import main; main()"
        typed = [*words, f"processes={processes}", "eval.episodes=0", f"hydra.run.dir={run}"]
        subprocess.run([sys.executable, "-c", program, *typed], check=True, stdout=subprocess.DEVNULL)
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))[1:]
    medians = {tag: statistics.median(float(row[tag]) for row in rows) for tag in MEASURED}
    return {name: medians[tag] * (1 if tag == "charts/SPS" else 1e3) for tag, name in MEASURED.items()}


def cell(values: Sequence[float]) -> str:
    """A median with the lowest and the highest."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def compare(numbers: Sequence[int], repeats: int, words: Sequence[str]) -> None:
    """Prints the table of a run on several numbers of processes."""
    found: dict[int, list[dict[str, float]]] = {processes: [] for processes in numbers}
    for _ in range(repeats):
        for processes in numbers:
            found[processes].append(measure(processes, words))
    print(f"| processes | {' | '.join(MEASURED.values())} | times the first |")
    print("|---" * (len(MEASURED) + 2) + "|")
    first = statistics.median(each["steps/s"] for each in found[numbers[0]])
    for processes, runs in found.items():
        cells = [cell([run[name] for run in runs]) for name in MEASURED.values()]
        ratio = statistics.median(run["steps/s"] for run in runs) / first
        print(f"| {processes} | {' | '.join(cells)} | {ratio:.2f} |")


def exchange(numbers: Sequence[int]) -> None:
    """Prints, as the first of the processes that torchrun has started, how long they exchange vectors."""
    torch.set_num_threads(1)
    collective = meet()
    if collective.rank == 0:
        print("| numbers of each | ms |\n|---|---|", flush=True)
    for number in numbers:
        own, seconds = [torch.zeros(number)], []
        for _ in range(CALLS):
            started = time.perf_counter()
            collective.gather(own)
            seconds.append(time.perf_counter() - started)
        if collective.rank == 0:
            print(f"| {number:,} | {1e3 * statistics.median(seconds):.2f} |", flush=True)
    collective.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processes", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--numbers", type=int, nargs="+")
    parser.add_argument("--set", nargs="+", default=["env=LunarLander-v3", "shards=2"])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # as one of the processes
    args = parser.parse_args()
    if args.here:
        exchange(args.numbers)
    elif args.numbers:
        for processes in args.processes:
            launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
            typed = [__file__, str(processes), "--here", "--numbers", *map(str, args.numbers)]
            subprocess.run([*launcher, *typed], check=True)
    else:
        compare(args.processes, args.repeats, args.set)


if __name__ == "__main__":
    main()
