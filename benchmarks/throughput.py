"""Training speed against peers: the same settings, interleaved in one run, as ratios.

    python benchmarks/throughput.py LunarLander-v3 --repeats 3
    python benchmarks/throughput.py CartPole-v1 Pendulum-v1 --peers sb3 --json speed.json
    python benchmarks/throughput.py Pendulum-v1 --set network.hidden_sizes=[256,256]
    python benchmarks/throughput.py LunarLander-v3 --peers sb3 sb3-rendering --repeats 1 --cold
    python benchmarks/throughput.py --install cleanrl skrl
    python benchmarks/throughput.py LunarLander-v3 --peers all --markdown --set total_timesteps=131072

Every run is a process of its own with one thread, timed from outside: start-up included, the final evaluation
left out. Ours finds its update compiled by an unmeasured run, and so does a peer that compiles into a cache;
with ``--cold`` they compile it anew every time. Environments are made with ``render_mode=None`` on all sides
but `sb3-rendering`. ``steady`` is steps a second after the first tenth of the rollouts, one at least, from
the run's own clock. Peers' versions conflict, so that each has an environment of its own (``--install``, in
the folder ``--venvs``); how our settings reach each of them, and what differs there, says `peers/table.py`.
Last comes `split.py`: where our time goes.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from peers.environments import PeerError, install, interpreter, run_peer
from peers.table import PEERS

from ppo_cli.config.compose import load
from ppo_cli.config.schema import Config
from ppo_cli.runs.build import decide_compile

SPLIT = Path(__file__).resolve().parent / "split.py"
T = TypeVar("T")
Results = dict[str, list[dict[str, float]]]


def ppo_train(
    overrides: list[str], folder: Path, env: dict[str, str]
) -> tuple[float, list[dict[str, float]]]:
    """One `ppo-train` process in a folder, with additional environment variables.

    Returns:
        Its seconds, and the rows of its metrics.csv.
    """
    program = "from ppo_cli.cli.entry import train; train()"
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, *overrides, "eval.episodes=0"],
        cwd=folder, env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - started
    (path,) = folder.glob("outputs/*/*/metrics.csv")
    with path.open() as file:
        return wall, [
            {name: float(cell or "nan") for name, cell in row.items()} for row in csv.DictReader(file)
        ]


def caches(folder: Path, cold: bool) -> dict[str, str]:
    """The environment variables of a run: if it is cold, empty folders for what it compiles."""
    if not cold:
        return {}
    cache = folder / "cache"
    cache.mkdir()
    # Inductor keeps precompiled headers in the folder for temporary files
    return dict.fromkeys(("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR"), str(cache))


def run_ours(overrides: list[str], folder: Path, cold: bool) -> dict[str, float]:
    """One `ppo-train` process; ``cold`` gives it empty caches."""
    wall, rows = ppo_train(overrides, folder, caches(folder, cold))
    skipped = min(math.ceil(len(rows) / 10), len(rows) - 1)
    collect, update = (sum(row[f"time/{part}"] for row in rows[skipped:]) for part in ("collect", "update"))
    steps = rows[-1]["step"]
    steady_steps = steps - (rows[skipped - 1]["step"] if skipped else 0)
    return {
        "wall": wall,
        "rate": steps / wall,
        "steady": steady_steps / (collect + update),
        "collect_share": collect / (collect + update),
    }


def warm_up(overrides: list[str], config: Config) -> None:
    """One iteration that leaves the compiled update in the cache, if the real run would compile it."""
    short = [f"total_timesteps={config.rollout_rows}", f"compile={decide_compile(config)}"]
    with tempfile.TemporaryDirectory() as name:
        ppo_train([*overrides, *short], Path(name), {})


def run_side(
    side: str, peers: dict[str, Path], overrides: list[str], seed: int, cold: bool
) -> dict[str, float]:
    """One measured process of ours, or of a peer with the same settings."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if side == "ours":
            return run_ours([*overrides, f"seed={seed}"], folder, cold)
        settings = folder / "config.json"
        settings.write_text(json.dumps({**asdict(load(*overrides)), "seed": seed}))
        return run_peer(side, peers[side], settings, folder, caches(folder, cold))


def measure(overrides: list[str], peers: dict[str, Path], repeats: int, cold: bool) -> Results:
    """All sides in turn, ``repeats`` times each; a peer that fails is left out, and one line says why."""
    config = load(*overrides)
    env = config.env.id
    if not cold:
        warm_up(overrides, config)
    one_rollout = f"total_timesteps={config.rollout_rows}"
    results: Results = {side: [] for side in ("ours", *peers)}
    for seed in range(repeats):
        for side in list(results):
            failure = f"  {env} {side} is left out"
            if seed == 0 and not cold and side in peers and PEERS[side].compiles:
                tried(failure, run_side, side, peers, [*overrides, one_rollout], seed, cold)
            row = tried(failure, run_side, side, peers, overrides, seed, cold)
            if row is None:
                del results[side]
                continue
            results[side].append(row)
            shown = {key: round(value, 2) for key, value in row.items()}
            print(f"  {env} {side} seed {seed}: {shown}", flush=True)
    return results


def installed(peers: list[str], folder: Path) -> dict[str, Path]:
    """The interpreters of the peers that are installed; of each other one a line says that it is left out."""
    found = {peer: tried(f"{peer} is left out", interpreter, peer, folder) for peer in peers}
    return {peer: path for peer, path in found.items() if path}


def split(overrides: list[str]) -> dict[str, object]:
    """Where our time goes, printed by a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "split.json"
        done = subprocess.run(
            [sys.executable, SPLIT, *overrides, "--json", path], check=True, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, end="", flush=True)
        return json.loads(path.read_text())


def report(env: str, results: Results, config: Config, cold: bool) -> None:
    """Medians, the ratio to each peer repeat by repeat, and which settings a peer does not have."""
    print(f"{env}: median steps/s (whole run / steady), ours with a {'cold' if cold else 'warm'} cache")
    for side, rows in results.items():
        line = f"  {side:14} {statistics.median(row['rate'] for row in rows):8,.0f}"
        line += f" / {statistics.median(row['steady'] for row in rows):8,.0f}"
        if side != "ours":
            for key in ("rate", "steady"):
                low, middle, high = ratios(results, side, key)
                line += f"   ours is {middle:.2f} x ({low:.2f} to {high:.2f}) in {key}"
            line += "".join(f"   with {setting}" for setting in unlike(side, config))
        print(line, flush=True)


def unlike(peer: str, config: Config) -> list[str]:
    """The settings that a peer has instead of ours."""
    return [f"{knob}={value}" for knob, value in PEERS[peer].unlike(asdict(config)).items()]


def ratios(results: Results, side: str, key: str) -> tuple[float, float, float]:
    """The least, middle and greatest of our speed over a peer's, repeat by repeat."""
    found = sorted(mine[key] / row[key] for mine, row in zip(results["ours"], results[side], strict=True))
    return found[0], statistics.median(found), found[-1]


def table(env: str, results: Results, config: Config) -> str:
    """The figures in Markdown, the fastest peer first."""
    repeats = len(results["ours"])
    lines = [
        f"{env}, {config.total_timesteps:,.0f} steps, runs: {repeats} | whole run | steady "
        "| ours is, whole run | ours is, steady | what differs",
        " | ".join(["---"] * 6),
    ]
    rate = {side: statistics.median(row["rate"] for row in rows) for side, rows in results.items()}
    for side in sorted(results, key=lambda side: (side != "ours", -rate[side])):
        cells = ["ppo-cli" if side == "ours" else PEERS[side].title]
        for key in ("rate", "steady"):
            values = [row[key] for row in results[side]]
            spread = f" ({min(values):,.0f}–{max(values):,.0f})" if repeats > 1 else ""
            cells.append(f"{statistics.median(values):,.0f}{spread}")
        if side == "ours":
            cells += ["", "", ""]
        else:
            for low, middle, high in (ratios(results, side, key) for key in ("rate", "steady")):
                cells.append(f"{middle:.2f} × ({low:.2f}–{high:.2f})" if repeats > 1 else f"{middle:.2f} ×")
            instead = [f"`{setting}`" for setting in unlike(side, config)]
            cells.append("; ".join([PEERS[side].differs, *instead]))
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def tried(failure: str, call: Callable[..., T], *arguments: Any) -> T | None:
    """What a call gives; nothing after a line that says why it gives none."""
    try:
        return call(*arguments)
    except PeerError as error:
        print(f"{failure}: {error}", flush=True)
        return None


def main() -> None:
    """Reads the command line, measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["all", *PEERS]
    parser.add_argument("envs", nargs="*", help="Gymnasium ids, with their presets' settings")
    parser.add_argument(
        "--peers", nargs="*", default=["sb3"], choices=names, metavar="PEER", help=" ".join(names)
    )
    parser.add_argument("--install", nargs="+", default=[], choices=names, metavar="PEER")
    parser.add_argument("--venvs", type=Path, help="folder of the peers' environments",
                        default=platformdirs.user_cache_path("ppo-cli") / "peers")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for all sides")
    parser.add_argument("--cold", action="store_true", help="ours compiles anew in every run")
    parser.add_argument("--no-split", action="store_true", help="leave out where our time goes")
    parser.add_argument("--markdown", action="store_true", help="print the figures as a table, too")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    for peer in named(args.install):
        if path := tried(f"{peer} is not installed", install, peer, args.venvs):
            print(f"{peer} is in {path}", flush=True)
    figures, splits = {}, {}
    peers = installed(named(args.peers), args.venvs) if args.envs else {}
    for env in args.envs:
        overrides = [f"env={env}", *args.set]
        figures[env] = measure(overrides, peers, args.repeats, args.cold)
        config = load(*overrides)
        report(env, figures[env], config, args.cold)
        if args.markdown:
            print(table(env, figures[env], config), flush=True)
        if not args.no_split:
            splits[env] = split(overrides)
    if args.json:
        written = {"overrides": args.set, "cold": args.cold, "figures": figures, "split": splits}
        args.json.write_text(json.dumps(written, indent=2) + "\n")


def named(peers: list[str]) -> list[str]:
    """The peers that the command line names."""
    return list(PEERS) if "all" in peers else peers


if __name__ == "__main__":
    main()
