"""One run on more and more processes: what an iteration takes on each number of them, and why.

    python benchmarks/processes.py 1 2 --repeats 5 --beside "shards=1 threads=2" "shards=2 threads=2" \
        --set env=ALE/Pong-v5 shards=2 total_timesteps=10240
    python benchmarks/processes.py 2 --numbers 10000 140000 1700000
    python benchmarks/processes.py 1 2 --predict 8 64 512 --set env=LunarLander-v3 shards=2 n_envs=32

Every run is a `ppo-train` of its own; its first iteration is left out, and of the others the median is taken.
The numbers of processes take turns, and what is typed beside them too, so that their repeats lie apart in
time. Prints a Markdown table, medians over the repeats with lowest and highest.

With ``--numbers`` it is the time in which processes get the sum of a vector of so many numbers of each,
as they do in every minibatch, beside that of a model that knows the first and the last only. With
``--predict`` it is what that model (`cost_model.py`) says of the runs that are measured, and of more
processes; ``--wire`` has it say so of another network between them.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from cost_model import BYTES, Loop, Update, Wire, efficiency, exchange, iteration, speed_up
from micro import collected
from torch import Generator, Tensor

from ppo_cli.collective import ALONE, Collective
from ppo_cli.config.compose import load
from ppo_cli.config.schema import Config
from ppo_cli.rollout import sequences
from ppo_cli.runs.build import compile_cache
from ppo_cli.runs.group import Group
from ppo_cli.runs.pulse import Pulse
from ppo_cli.runs.ranks import rank, world_size
from ppo_cli.sharded import Data, ShardedStep, sharded_minibatches, weighted_sum
from ppo_cli.update import first_state, parameter_shapes

MEASURED = {"charts/SPS": "steps/s", "time/collect": "collect, ms", "time/update": "update, ms"}
CALLS = 200  # of a collective
ENDS = (10_000, 1_700_000)  # numbers by which the model knows what processes are connected by
STEPS = 30  # of an update
MANY = 64  # shards of others


def measure(words: Sequence[str]) -> dict[str, float]:
    """The medians over the iterations of one run, by the names of a table's columns."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        program = "from ppo_cli.cli.train import main; main()"
        typed = [*words, "eval.episodes=0", f"hydra.run.dir={run}"]
        subprocess.run([sys.executable, "-c", program, *typed], check=True, stdout=subprocess.DEVNULL)
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))[1:]
    medians = {tag: statistics.median(float(row[tag]) for row in rows) for tag in MEASURED}
    return {name: medians[tag] * (1 if tag == "charts/SPS" else 1e3) for tag, name in MEASURED.items()}


def cell(values: Sequence[float]) -> str:
    """A median with the lowest and the highest."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def compare(sides: Sequence[str], repeats: int, words: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Prints the table of a run with each of what is typed beside its words; gives what was measured."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side in sides:
            found[side].append(measure([*words, *side.split()]))
    print(f"| | {' | '.join(MEASURED.values())} | times the first |")
    print("|---" * (len(MEASURED) + 2) + "|")
    first = statistics.median(each["steps/s"] for each in found[sides[0]])
    for side, runs in found.items():
        cells = [cell([run[name] for run in runs]) for name in MEASURED.values()]
        ratio = statistics.median(run["steps/s"] for run in runs) / first
        print(f"| `{side}` | {' | '.join(cells)} | {ratio:.2f} |", flush=True)
    return found


def exchange_here(numbers: Sequence[int]) -> None:
    """Prints, as the first of the processes that torchrun has started, how long exchanges take."""
    torch.set_num_threads(1)
    pulse = Pulse(rank(), world_size())
    collective, medians = Group(pulse), {}
    add = partial(weighted_sum, shares=[1.0] * collective.processes)
    for number in numbers:
        own, seconds = [torch.zeros(number)], []
        for _ in range(CALLS):
            started = time.perf_counter()
            collective.combine(own, add)
            seconds.append(time.perf_counter() - started)
        medians[number] = statistics.median(seconds)
    if collective.rank == 0:
        print(json.dumps(medians))
    collective.close()
    pulse.close()


def exchanged(processes: int, numbers: Sequence[int]) -> dict[int, float]:
    """The seconds in which that many processes get the sum of a vector of each, by its length."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    typed = [__file__, str(processes), "--here", "--numbers", *map(str, numbers)]
    done = subprocess.run([*launcher, *typed], check=True, stdout=subprocess.PIPE, text=True)
    return {int(number): seconds for number, seconds in json.loads(done.stdout).items()}


def wire_of(measured: Mapping[int, float], processes: int) -> Wire:
    """What processes are connected by, from the shortest and the longest of the vectors."""
    few, many = min(measured), max(measured)
    taken = {number: exchange(Wire(0.0, 1.0), number, processes, processes) for number in (few, many)}
    bandwidth = (taken[many] - taken[few]) / (measured[many] - measured[few])
    latency = max(0.0, measured[few] - taken[few] / bandwidth) / (processes - 1)
    return Wire(latency, bandwidth)


def show_exchanges(processes: int, numbers: Sequence[int]) -> None:
    """Prints the table of what an exchange takes, and what the model says."""
    measured = exchanged(processes, numbers)
    wire = wire_of(measured, processes)
    print(f"{processes} processes: {_shown(wire)}\n")
    print("| numbers | measured, ms | model, ms |\n|---|---|---|")
    for number, seconds in measured.items():
        predicted = exchange(wire, number, processes, processes)
        print(f"| {number:,} | {1e3 * seconds:.2f} | {1e3 * predicted:.2f} |", flush=True)


def _shown(wire: Wire) -> str:
    return f"latency {1e6 * wire.latency:.0f} µs, bandwidth {wire.bandwidth / 1e6:,.0f} MB/s"


class Others(Collective):
    """Processes that have the other shards, and take no time."""

    def combine(self, parts: Sequence[Tensor], function: Callable[[Sequence[Tensor]], Tensor]) -> Tensor:
        """The vector of this one alone."""
        return parts[0]


def update_of(config: Config) -> Update:
    """What the update of a run takes: of a part of a minibatch of its shards, and of one twice as large."""
    rows = config.batch_size // config.shards
    whole = replace(config, shards=1, n_steps=-(-2 * rows // config.n_envs), batch_size=2 * rows)
    agent, batch = collected(whole)
    knobs = torch.tensor(list(agent.knobs.values()))
    state = first_state(agent._params, agent.optimizer, agent.hyper)
    cut = sequences(torch.ones(len(batch.returns), 1, dtype=torch.bool), 1)

    def seconds(own: int, size: int, others: int = 0) -> float:
        cache = compile_cache() if agent.compiled else None
        collective = Others() if others else ALONE
        made = agent.model, agent.distribution, agent.hyper, tuple(agent.schedules), collective, cache
        step, data = ShardedStep(*made), Data([batch] * own, [batch.advantages] * (own + others))
        generators = [Generator() for _ in range(own + others)]

        def once() -> None:
            step(state, data, next(sharded_minibatches([cut] * (own + others), size, generators)), knobs)

        return _median(once)

    one, larger, two = seconds(1, rows), seconds(1, 2 * rows), seconds(2, rows)
    shard = max(0.0, seconds(1, rows, MANY) - one) / MANY
    part, row = two - one - shard, max(0.0, larger - one) / rows
    numbers = sum(shape.numel() for shape in parameter_shapes(agent.model)) + len(agent.hyper.metrics) - 1
    return Update(numbers, max(0.0, part - row * rows), row, max(0.0, one - part - shard), shard)


def _median(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def predict(
    numbers: Sequence[int],
    further: Sequence[int],
    beside: Sequence[str],
    repeats: int,
    words: Sequence[str],
    other: Wire | None,
) -> None:
    """Prints what the model says of the runs that are measured, and of more processes."""
    torch.set_num_threads(1)
    config = load(*words)
    found = compare([*(f"processes={processes}" for processes in numbers), *beside], repeats, words)
    update, wire = update_of(config), wire_of(exchanged(2, ENDS), 2)
    collect = statistics.median(run["collect, ms"] for run in found[f"processes={numbers[0]}"])
    loop = Loop(
        config.rollout_rows,
        collect / 1e3 * numbers[0],
        config.n_epochs * config.minibatches,
        config.batch_size,
    )
    exchanged_bytes = f"{update.numbers:,} numbers ({BYTES * update.numbers / 1e6:.2f} MB)"
    computed = f"a part {1e3 * update.call:.2f} ms, a row {1e6 * update.row:.1f} µs"
    others = f"the step {1e3 * update.step:.2f} ms, a shard {1e6 * update.shard:.0f} µs"
    print(f"\n{exchanged_bytes}; {computed}, {others}; {_shown(wire)}\n")
    print("| processes | update measured, ms | model, ms |\n|---|---|---|")
    for processes in numbers:
        measured = cell([run["update, ms"] for run in found[f"processes={processes}"]])
        predicted = iteration(loop, update, wire, config.shards, processes) - loop.collect / processes
        print(f"| {processes} | {measured} | {1e3 * predicted:,.0f} |")
    for between in (wire, other):
        if between is not None:
            show_predictions(loop, update, between, [*numbers, *further])


def show_predictions(loop: Loop, update: Update, wire: Wire, numbers: Sequence[int]) -> None:
    """Prints what the model says of numbers of processes, and on how many it stops paying."""
    speed, share = partial(speed_up, loop, update, wire), partial(efficiency, loop, update, wire)
    print(f"\nA shard a process, {_shown(wire)}:\n")
    print("| processes | times as fast | efficiency where all grows with them |\n|---|---|---|")
    for processes in numbers:
        fixed = f"{speed(processes):.2f}" if processes <= loop.batch_size else "–"
        print(f"| {processes} | {fixed} | {share(processes):.2f} |")
    powers = [2**n for n in range(14)]
    fastest = max((power for power in powers if power <= loop.batch_size), key=speed)
    paying = max(power for power in powers if share(power) >= 0.5)
    print(
        f"\nFastest on {fastest} ({speed(fastest):.2f} times); efficiency of half or more on up to {paying}."
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processes", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--beside", nargs="+", default=[], help="what else is typed, with one process")
    parser.add_argument("--numbers", type=int, nargs="+", help="lengths of vectors that are exchanged")
    parser.add_argument("--predict", type=int, nargs="+", help="further numbers of processes")
    parser.add_argument("--wire", type=float, nargs=2, metavar=("MICROSECONDS", "MB/S"))
    parser.add_argument("--set", nargs="+", default=["env=LunarLander-v3", "shards=2"])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # as one of the processes
    args = parser.parse_args()
    other = None if args.wire is None else Wire(args.wire[0] / 1e6, args.wire[1] * 1e6)
    if args.here:
        exchange_here(args.numbers)
    elif args.numbers:
        for processes in args.processes:
            show_exchanges(processes, args.numbers)
    elif args.predict:
        predict(args.processes, args.predict, args.beside, args.repeats, args.set, other)
    else:
        sides = [f"processes={processes}" for processes in args.processes]
        compare([*sides, *args.beside], args.repeats, args.set)


if __name__ == "__main__":
    main()
