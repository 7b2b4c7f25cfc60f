"""How cost grows with the number of environments, the network, the rollout, the actions and the cores.

    python benchmarks/scaling.py --json scaling.json --plot scaling.svg
    python benchmarks/scaling.py --axes n_envs cores --cores 1 2
    python benchmarks/scaling.py --axes width --points 2 --set compile=false

Every point is a `ppo-train` process of a few iterations, read from its metrics.csv: the first iteration is
left out, and of the others the median is taken. Each shape's update is compiled once and kept in the cache,
so that a first call takes minutes more. Prints a Markdown table for each axis.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from throughput import BENCHMARKS, SPLIT, ppo_train

Knobs = dict[str, Any]
Series = dict[str, dict[int, float]]  # name of a curve -> x -> y

BASE: Knobs = {
    "env": "CartPole-v1",
    "preset": "none",
    "n_envs": 8,
    "n_steps": 128,
    "batch_size": 64,
    "n_epochs": 10,
    "compile": "true",
    "vectorization": "sync",
}
COLLECTING: Knobs = {"n_epochs": 1, "compile": "false"}  # where the update is not what is measured
ROLLOUT = 8192  # rows of a rollout where the number of environments varies
PREDICTED = (1, 2, 8, 32)  # cores that the model is asked for
MODEL = " (model)"


@dataclass(frozen=True)
class Panel:
    """One axis: a table, and a small plot with logarithmic axes."""

    title: str
    x: str
    y: str
    series: Series


@dataclass(frozen=True)
class Cost:
    """What a run took, medians over its iterations."""

    collect: float  # seconds an environment step
    update: float  # seconds an environment step, advantages included
    minibatch: float  # seconds a minibatch update, advantages included


def overrides_of(knobs: Knobs, iterations: int) -> list[str]:
    """The command line of a run of that many iterations after the first."""
    total = int(knobs["n_envs"]) * int(knobs["n_steps"]) * (iterations + 1)
    return [*(f"{key}={value}" for key, value in knobs.items()), f"total_timesteps={total}"]


def cost(knobs: Knobs, iterations: int) -> Cost:
    """One `ppo-train` process."""
    with tempfile.TemporaryDirectory() as name:
        paths = [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]  # the first is where toy_env lies
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        _, rows = ppo_train(overrides_of(knobs, iterations), Path(name), environment)
    steps = [after["step"] - before["step"] for before, after in pairwise(rows)]
    batch, epochs = int(knobs["batch_size"]), int(knobs["n_epochs"])
    timed = list(zip(rows[1:], steps, strict=True))
    return Cost(
        collect=statistics.median(row["time/collect"] / n for row, n in timed),
        update=statistics.median(row["time/update"] / n for row, n in timed),
        minibatch=statistics.median(row["time/update"] / (epochs * math.ceil(n / batch)) for row, n in timed),
    )


def n_envs_axis(base: Knobs, iterations: int, points: int | None) -> Panel:
    """Collecting with more environments side by side, and as many rows a rollout."""
    curve = {}
    for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)[:points]:
        knobs = {**base, **COLLECTING, "n_envs": n, "n_steps": ROLLOUT // n}
        curve[n] = 1e6 * cost(knobs, iterations).collect
    return Panel("Environments (CartPole-v1)", "n_envs", "µs an environment step", {"collecting": curve})


def both(base: Knobs, iterations: int, points: dict[int, Knobs]) -> Series:
    """Collecting and updating at each point."""
    series: Series = {"environment step, collecting": {}, "minibatch update": {}}
    for x, knobs in points.items():
        taken = cost({**base, **knobs}, iterations)
        for curve, seconds in zip(series.values(), (taken.collect, taken.minibatch), strict=True):
            curve[x] = 1e6 * seconds
    return series


def width_axis(base: Knobs, iterations: int, points: int | None) -> Panel:
    """Wider networks."""
    widths = (64, 128, 256, 512, 1024)[:points]
    wider: dict[int, Knobs] = {width: {"network.hidden_sizes": f"[{width},{width}]"} for width in widths}
    title = f"Network width (CartPole-v1, two layers, batch {base['batch_size']})"
    return Panel(title, "units a layer", "µs", both(base, iterations, wider))


def n_steps_axis(base: Knobs, iterations: int, points: int | None) -> Panel:
    """Advantages and update with longer rollouts."""
    curve = {}
    for n in (32, 64, 128, 256, 512, 1024, 2048, 4096)[:points]:
        curve[n] = 1e6 * cost({**base, "n_steps": n}, iterations).update
    series = {f"advantages + update, {base['n_epochs']} epochs": curve}
    title = f"Rollout length (CartPole-v1, {base['n_envs']} environments)"
    return Panel(title, "n_steps", "µs an environment step", series)


def actions_axis(base: Knobs, iterations: int, points: int | None) -> Panel:
    """More actions to choose from."""
    numbers = (2, 8, 32, 128, 512)[:points]
    more: dict[int, Knobs] = {n: {"env": "toy_env:Toy-v0", "+env.kwargs.n_actions": n} for n in numbers}
    title = f"Actions (toy environment, batch {base['batch_size']})"
    return Panel(title, "number of actions", "µs", both(base, iterations, more))


@contextmanager
def on_cores(n: int) -> Iterator[None]:
    """Child processes started meanwhile have the first ``n`` of the cores that this process may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def serial_seconds(knobs: Knobs, iterations: int) -> float:
    """Seconds an environment step of collecting outside the environments, from `split.py`."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "split.json"
        command = [sys.executable, SPLIT, *overrides_of(knobs, iterations), "--json", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        figures = json.loads(path.read_text())
    outside = figures["seconds"]["acting"] + figures["seconds"]["buffers"]
    return outside / (figures["vector_steps"] * figures["n_envs"])


def cores_panel(base: Knobs, iterations: int, env: str, n_envs: int, cores: list[int]) -> Panel:
    """Collecting with each backend, measured, and as a model predicts it from one core.

    The model: steps/s on c cores = 1 / (serial + parallel / c). Serial is collecting outside the
    environments; parallel is what remains of the time measured on one core. There are no more workers than
    environments.
    """
    knobs = {**base, **COLLECTING, "env": env, "n_envs": n_envs, "n_steps": ROLLOUT // n_envs}
    with on_cores(1):
        serial = serial_seconds(knobs, iterations)
    series: Series = {}
    for backend in ("sync", "async", *(["envpool"] if find_spec("envpool") else [])):
        seconds = {}
        for n in cores:
            with on_cores(n):
                seconds[n] = cost({**knobs, "vectorization": backend}, iterations).collect
        series[backend] = {n: 1 / taken for n, taken in seconds.items()}
        if backend != "sync":  # which has no parallel part
            parallel = max(0.0, seconds[1] - serial)
            series[backend + MODEL] = {
                c: 1 / (seconds[1] - parallel + parallel / min(c, n_envs)) for c in PREDICTED
            }
    return Panel(f"Cores ({env}, {n_envs} environments)", "cores", "steps/s, collecting", series)


def cores_axis(base: Knobs, iterations: int, cores: list[int], points: int | None) -> Iterator[Panel]:
    """A panel for each environment and number of environments; always with one core, for the model."""
    panels = [(env, n_envs) for env in ("LunarLander-v3", "CartPole-v1") for n_envs in (16, 64)]
    for env, n_envs in panels[:points]:
        yield cores_panel(base, iterations, env, n_envs, sorted({1, *cores}))


AXES = {"n_envs": n_envs_axis, "width": width_axis, "n_steps": n_steps_axis, "actions": actions_axis}


def measure(
    axes: list[str], base: Knobs, iterations: int, cores: list[int], points: int | None = None
) -> Iterator[Panel]:
    """The panels of the chosen axes, one by one; with so many points of each, or all."""
    for axis in axes:
        if axis == "cores":
            yield from cores_axis(base, iterations, cores, points)
        else:
            yield AXES[axis](base, iterations, points)


def print_table(panel: Panel) -> None:
    """The panel in Markdown, a row for each x."""
    print(f"\n{panel.title}: {panel.y}\n")
    print(f"| {panel.x} | {' | '.join(panel.series)} |")
    print(f"|{'---|' * (len(panel.series) + 1)}")
    for x in sorted({x for curve in panel.series.values() for x in curve}):
        cells = [number(curve[x]) if x in curve else "" for curve in panel.series.values()]
        print(f"| {x} | {' | '.join(cells)} |", flush=True)


def number(value: float) -> str:
    """Three digits at least, and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plot(panels: list[Panel], path: Path) -> None:
    """The panels side by side; what a model says is dashed, in the colour of what was measured."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    columns = min(3, len(panels))
    size = (4.6 * columns, 3.6 * math.ceil(len(panels) / columns))
    figure, axes = plt.subplots(
        math.ceil(len(panels) / columns), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for panel, axis in zip(panels, axes.flat, strict=False):
        colors: dict[str, str] = {}
        for name, curve in panel.series.items():
            model, measured = name.endswith(MODEL), name.removesuffix(MODEL)
            color = colors.setdefault(measured, f"C{len(colors)}")
            style = {"linestyle": "--", "linewidth": 1.2} if model else {"marker": "o", "markersize": 4}
            axis.plot(list(curve), list(curve.values()), label=name, color=color, **style)
        xs = sorted({x for curve in panel.series.values() for x in curve})
        axis.set_xscale("log", base=2)
        axis.set_xticks(xs, [str(x) for x in xs])
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Reads the command line, measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", default=[*AXES, "cores"], choices=[*AXES, "cores"])
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--iterations", type=int, default=8, help="measured ones of each run")
    parser.add_argument("--points", type=int, metavar="N", help="of each axis, the first ones (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--plot", type=Path, help="file to draw the curves to: .svg, .png or .pdf")
    args = parser.parse_args()
    if args.plot and not find_spec("matplotlib"):
        parser.error("--plot needs matplotlib: pip install 'ppo-cli[bench]'")
    available = len(os.sched_getaffinity(0))
    if not all(1 <= n <= available for n in args.cores):
        parser.error(f"--cores: this process may use 1 to {available}")
    extra = dict(override.split("=", 1) for override in args.set)
    panels: list[Panel] = []
    for panel in measure(args.axes, {**BASE, **extra}, args.iterations, args.cores, args.points):
        print_table(panel)
        panels.append(panel)
    if args.json:
        written = {"iterations": args.iterations, "overrides": args.set, "panels": list(map(asdict, panels))}
        args.json.write_text(json.dumps(written, indent=2) + "\n")
    if args.plot:
        plot(panels, args.plot)


if __name__ == "__main__":
    main()
