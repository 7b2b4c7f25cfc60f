"""How cost grows with the number of environments, the network, the rollout, the actions and the cores.

    python benchmarks/scaling.py --json scaling.json --plot docs/images
    python benchmarks/scaling.py --axes n_envs cores --cores 1 2
    python benchmarks/scaling.py --axes width --points 2 --set compile=false
    python benchmarks/scaling.py --draw scaling.json --plot docs/images

Every point is a run of a few iterations in this process, of which the first is left out; of the others the
median is taken. An axis is measured from end to end as often as ``--repeats`` says, so that repeats lie
apart in time. Each network's update is compiled once and kept in the cache, so that a first call takes
minutes more. Prints a Markdown table for each axis, medians over the repeats with lowest and highest, and
draws a picture of each.
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
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ppo_cli

Knobs = dict[str, Any]
Curves = dict[str, dict[int, float]]  # name of a curve -> x -> y
Series = dict[str, dict[int, list[float]]]  # name of a curve -> x -> y of each repeat

SPLIT = Path(__file__).resolve().parent / "split.py"
BASE: Knobs = {
    "env": "CartPole-v1",
    "preset": "none",
    "n_envs": 8,
    "n_steps": 128,
    "batch_size": 64,
    "n_epochs": 4,
    "compile": "true",
    "vectorization": "sync",
    "eval.episodes": 0,
}
COLLECTING: Knobs = {
    "n_epochs": 1,
    "batch_size": 4096,
    "compile": "false",
}  # what is measured is not the update
ROLLOUT, SHORTEST = 8192, 16  # rows and steps at least of a rollout where the number of environments varies
PREDICTED = (1, 2, 8, 32)  # cores that the model is asked for
MODEL = " (model)"


@dataclass(frozen=True)
class Panel:
    """One axis: a table, and a picture with logarithmic axes."""

    name: str
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
    """One run."""
    with tempfile.TemporaryDirectory() as folder:
        run = ppo_cli.train(*overrides_of(knobs, iterations), folder=Path(folder) / "run", verbose=False)
    collect, update, steps = (run.metrics[name] for name in ("time/collect", "time/update", "step"))
    batch, epochs = int(knobs["batch_size"]), int(knobs["n_epochs"])
    timed = [  # of each iteration but the first
        (collect[i], update[i], steps[i] - steps[i - 1]) for i in range(1, len(steps))
    ]
    return Cost(
        collect=statistics.median(seconds / n for seconds, _, n in timed),
        update=statistics.median(seconds / n for _, seconds, n in timed),
        minibatch=statistics.median(seconds / (epochs * math.ceil(n / batch)) for _, seconds, n in timed),
    )


def n_envs_axis(base: Knobs, iterations: int, points: int | None) -> Panel:
    """Collecting with more environments side by side, one by one and as arrays."""
    powers = [2**i for i in range(14)]
    curves: Curves = {}
    for backend, numbers in (("sync", powers[:9:2]), ("entry_point", powers)):
        for n in numbers[:points]:
            size = {"n_envs": n, "n_steps": max(ROLLOUT // n, SHORTEST)}
            taken = cost({**base, **COLLECTING, **size, "vectorization": backend}, iterations)
            curves.setdefault(f"collecting, {backend}", {})[n] = 1e6 * taken.collect
            if backend == "entry_point":
                curves.setdefault("advantages and one epoch, minibatches of 4,096", {})[n] = (
                    1e6 * taken.update
                )
    return panel("n_envs", "Environments (CartPole-v1)", "environments", "µs an environment step", curves)


def panel(name: str, title: str, x: str, y: str, curves: Curves) -> Panel:
    """A panel of one repeat."""
    series = {curve: {at: [value] for at, value in values.items()} for curve, values in curves.items()}
    return Panel(name, title, x, y, series)


def both(base: Knobs, iterations: int, points: dict[int, Knobs]) -> Curves:
    """Collecting and updating at each point."""
    series: Curves = {"environment step, collecting": {}, "minibatch update": {}}
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
    return panel("width", title, "units a layer", "µs", both(base, iterations, wider))


def n_steps_axis(base: Knobs, iterations: int, points: int | None) -> Panel:
    """Advantages and update with longer rollouts."""
    curve: dict[int, float] = {}
    for n in (32, 64, 128, 256, 512, 1024, 2048, 4096)[:points]:
        curve[n] = 1e6 * cost({**base, "n_steps": n}, iterations).update
    series = {f"advantages and update, {base['n_epochs']} epochs of {base['batch_size']} rows": curve}
    title = f"Rollout length (CartPole-v1, {base['n_envs']} environments)"
    return panel("n_steps", title, "n_steps", "µs an environment step", series)


def actions_axis(base: Knobs, iterations: int, points: int | None) -> Panel:
    """More actions to choose from."""
    numbers = (2, 8, 32, 128, 512)[:points]
    more: dict[int, Knobs] = {n: {"env": "toy_env:Toy-v0", "+env.kwargs.n_actions": n} for n in numbers}
    title = f"Actions (toy environment, batch {base['batch_size']})"
    return panel("actions", title, "number of actions", "µs", both(base, iterations, more))


@contextmanager
def on_cores(n: int) -> Iterator[None]:
    """This process and those it starts meanwhile have the first ``n`` of the cores that it may use."""
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
    knobs = {**base, **COLLECTING, "env": env, "n_envs": n_envs, "n_steps": ROLLOUT // 2 // n_envs}
    with on_cores(1):
        serial = serial_seconds(knobs, iterations)
    series: Curves = {}
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
    title, name = f"Cores ({env}, {n_envs} environments)", f"cores-{env.partition('-')[0].lower()}-{n_envs}"
    return panel(name, title, "cores", "steps/s, collecting", series)


def cores_axis(base: Knobs, iterations: int, cores: list[int], points: int | None) -> Iterator[Panel]:
    """A panel for each environment and number of environments; always with one core, for the model."""
    panels = [(env, n_envs) for env in ("LunarLander-v3", "CartPole-v1") for n_envs in (16, 64)]
    for env, n_envs in panels[:points]:
        yield cores_panel(base, iterations, env, n_envs, sorted({1, *cores}))


AXES = {"n_envs": n_envs_axis, "width": width_axis, "n_steps": n_steps_axis, "actions": actions_axis}


def merged(repeats: list[Panel]) -> Panel:
    """One panel with the values of all repeats."""
    first = repeats[0]
    series = {
        curve: {x: [value for each in repeats for value in each.series[curve][x]] for x in values}
        for curve, values in first.series.items()
    }
    return Panel(first.name, first.title, first.x, first.y, series)


def measure(axes: list[str], base: Knobs, args: argparse.Namespace) -> Iterator[Panel]:
    """The panels of the chosen axes, one by one."""
    for axis in axes:
        repeats = []
        for _ in range(args.repeats):
            if axis == "cores":
                repeats.append(list(cores_axis(base, args.iterations, args.cores, args.points)))
            else:
                repeats.append([AXES[axis](base, args.iterations, args.points)])
        for same in zip(*repeats, strict=True):
            yield merged(list(same))


def print_table(panel: Panel) -> None:
    """The panel in Markdown, a row for each x."""
    print(f"\n{panel.title}: {panel.y}\n")
    print(f"| {panel.x} | {' | '.join(panel.series)} |")
    print(f"|{'---|' * (len(panel.series) + 1)}")
    for x in sorted({x for curve in panel.series.values() for x in curve}):
        cells = [cell(curve[x]) if x in curve else "" for curve in panel.series.values()]
        print(f"| {x:,} | {' | '.join(cells)} |", flush=True)


def cell(values: list[float]) -> str:
    """The median, and where there are repeats the lowest and the highest."""
    spread = f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""
    return number(statistics.median(values)) + spread


def number(value: float) -> str:
    """Three digits at least, and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine(repeats: int) -> str:
    """What was measured with: versions, and how often."""
    names = (("ppo-cli", "ppo-cli"), ("PyTorch", "torch"), ("Gymnasium", "gymnasium"))
    versions = [f"{shown} {version(package).partition('+')[0]}" for shown, package in names]
    spread = f"median and range of {repeats} repeats" if repeats > 1 else "one repeat"
    return " · ".join([*versions, spread])


def draw(panel: Panel, below: str, path: Path) -> None:
    """One picture: medians with the range of the repeats; what a model says is dashed, in the same colour.

    Args:
        panel: What was measured.
        below: The line below the title.
        path: The file, .svg, .png or .pdf.
    """
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    plt.rcParams.update({"svg.hashsalt": "ppo-cli", "font.size": 9, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3})
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    colors: dict[str, str] = {}
    for name, curve in panel.series.items():
        model, measured = name.endswith(MODEL), name.removesuffix(MODEL)
        color = colors.setdefault(measured, f"C{len(colors)}")
        style = {"linestyle": "--", "linewidth": 1.2} if model else {"marker": "o", "markersize": 4}
        xs = sorted(curve)
        axis.plot(xs, [statistics.median(curve[x]) for x in xs], label=name, color=color, **style)
        if not model:
            low, high = ([bound(curve[x]) for x in xs] for bound in (min, max))
            axis.fill_between(xs, low, high, color=color, alpha=0.2, linewidth=0)
    xs = sorted({x for curve in panel.series.values() for x in curve})
    axis.set_xscale("log", base=2)
    axis.set_xticks(xs, [f"{x:,}" for x in xs])
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set(xlabel=panel.x, ylabel=panel.y)
    figure.suptitle(panel.title, fontsize=11)
    axis.set_title(below, fontsize=7, color="0.4")
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def load(path: Path) -> tuple[list[Panel], str]:
    """Panels that were written with ``--json``, and the line below their titles."""
    written = json.loads(path.read_text())
    panels = []
    for each in written["panels"]:
        series = {
            name: {int(x): values for x, values in curve.items()} for name, curve in each["series"].items()
        }
        panels.append(Panel(**{**each, "series": series}))
    return panels, written["machine"]


def main() -> None:
    """Reads the command line, measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", default=[*AXES, "cores"], choices=[*AXES, "cores"])
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--iterations", type=int, default=3, help="measured ones of each run")
    parser.add_argument("--repeats", type=int, default=3, help="of each axis")
    parser.add_argument("--points", type=int, metavar="N", help="of each axis, the first ones (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument(
        "--draw", type=Path, metavar="JSON", help="file to take them from: nothing is measured"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="folder to draw a picture of each axis into"
    )
    args = parser.parse_args()
    if args.plot and not find_spec("matplotlib"):
        parser.error("--plot needs matplotlib: pip install 'ppo-cli[bench]'")
    available = len(os.sched_getaffinity(0))
    if not all(1 <= n <= available for n in args.cores):
        parser.error(f"--cores: this process may use 1 to {available}")
    extra = dict(override.split("=", 1) for override in args.set)
    panels, below = load(args.draw) if args.draw else ([], machine(args.repeats))
    for each in panels or measure(args.axes, {**BASE, **extra}, args):
        print_table(each)
        panels = panels if args.draw else [*panels, each]
    if args.json:
        written = {"machine": below, "overrides": args.set, "panels": list(map(asdict, panels))}
        args.json.write_text(json.dumps(written, indent=1) + "\n")
    if args.plot:
        args.plot.mkdir(parents=True, exist_ok=True)
        for each in panels:
            draw(each, below, args.plot / f"scaling-{each.name}.svg")


if __name__ == "__main__":
    main()
