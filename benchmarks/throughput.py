"""Training speed against peers: the same settings, interleaved in one run, as ratios.

    python benchmarks/throughput.py LunarLander-v3 --repeats 3
    python benchmarks/throughput.py CartPole-v1 Pendulum-v1 --peers sb3 --json speed.json
    python benchmarks/throughput.py Pendulum-v1 --set network.hidden_sizes=[256,256]
    python benchmarks/throughput.py LunarLander-v3 --peers sb3 sb3-rendering --repeats 1 --cold

Every run is a process of its own, timed from outside: start-up included, the final evaluation left out. Ours
finds its update compiled by an unmeasured run; with ``--cold`` it compiles it anew every time. Environments
are made with ``render_mode=None`` on all sides but `sb3-rendering`. ``steady`` is steps a second after the
first tenth of the run, from the run's own clock. Last comes `split.py`: where our time goes.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from ppo_cli.config.compose import load
from ppo_cli.config.schema import Config
from ppo_cli.runs.build import decide_compile

BENCHMARKS = Path(__file__).resolve().parent
PEERS, SPLIT = BENCHMARKS / "peers.py", BENCHMARKS / "split.py"
PACKAGES = {  # that each peer needs, from the extra `bench`
    "sb3": ("stable_baselines3",),
    "sb3-rendering": ("stable_baselines3",),
    "sbx": ("stable_baselines3", "sbx"),
}


def ppo_train(
    overrides: list[str], folder: Path, env: dict[str, str]
) -> tuple[float, list[dict[str, float]]]:
    """One `ppo-train` process in a folder, with additional environment variables.

    Returns:
        Its seconds, and the rows of its metrics.csv.
    """
    program = "from ppo_cli.cli.train import main; main()"
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


def run_ours(overrides: list[str], folder: Path, cold: bool) -> dict[str, float]:
    """One `ppo-train` process; ``cold`` gives it empty caches."""
    env = {}
    if cold:
        cache = folder / "cache"
        cache.mkdir()
        # Inductor keeps precompiled headers in the folder for temporary files
        env = dict.fromkeys(("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR"), str(cache))
    wall, rows = ppo_train(overrides, folder, env)
    skipped = len(rows) // 10
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


def run_peer(peer: str, config: dict[str, object], folder: Path) -> dict[str, float]:
    """One process of a peer with the same settings."""
    settings = folder / "config.json"
    settings.write_text(json.dumps(config))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, PEERS, peer, settings], cwd=folder, check=True, capture_output=True, text=True
    )
    wall = time.perf_counter() - started
    result = json.loads(done.stdout.splitlines()[-1])
    return {"wall": wall, "rate": result["steps"] / wall, "steady": result["steady"]}


def measure(
    overrides: list[str], peers: list[str], repeats: int, cold: bool
) -> dict[str, list[dict[str, float]]]:
    """All sides in turn, ``repeats`` times each."""
    config = load(*overrides)
    if not cold:
        warm_up(overrides, config)
    results: dict[str, list[dict[str, float]]] = {side: [] for side in ("ours", *peers)}
    for seed in range(repeats):
        for side, rows in results.items():
            with tempfile.TemporaryDirectory() as name:
                if side == "ours":
                    rows.append(run_ours([*overrides, f"seed={seed}"], Path(name), cold))
                else:
                    rows.append(run_peer(side, {**asdict(config), "seed": seed}, Path(name)))
            shown = {key: round(value, 2) for key, value in rows[-1].items()}
            print(f"  {config.env.id} {side} seed {seed}: {shown}", flush=True)
    return results


def installed(peers: list[str]) -> list[str]:
    """The peers that are installed; of each other one a line says that it is left out."""
    found = []
    for peer in peers:
        missing = [package for package in PACKAGES[peer] if find_spec(package) is None]
        if missing:
            print(f"{peer} is left out: no {' and '.join(missing)}; pip install 'ppo-cli[bench]'", flush=True)
        else:
            found.append(peer)
    return found


def split(overrides: list[str]) -> dict[str, object]:
    """Where our time goes, printed by a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "split.json"
        done = subprocess.run(
            [sys.executable, SPLIT, *overrides, "--json", path], check=True, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, end="", flush=True)
        return json.loads(path.read_text())


def report(env: str, results: dict[str, list[dict[str, float]]], cold: bool) -> None:
    """Medians, and the ratio to each peer repeat by repeat."""
    print(f"{env}: median steps/s (whole run / steady), ours with a {'cold' if cold else 'warm'} cache")
    for side, rows in results.items():
        line = f"  {side:13} {statistics.median(row['rate'] for row in rows):8,.0f}"
        line += f" / {statistics.median(row['steady'] for row in rows):8,.0f}"
        if side != "ours":
            for key in ("rate", "steady"):
                ratios = sorted(mine[key] / row[key] for mine, row in zip(results["ours"], rows, strict=True))
                middle = statistics.median(ratios)
                line += f"   ours is {middle:.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f}) in {key}"
        print(line, flush=True)


def main() -> None:
    """Reads the command line, measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("envs", nargs="+", help="Gymnasium ids, with their presets' settings")
    parser.add_argument("--peers", nargs="*", default=["sb3"], choices=list(PACKAGES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for all sides")
    parser.add_argument("--cold", action="store_true", help="ours compiles anew in every run")
    parser.add_argument("--no-split", action="store_true", help="leave out where our time goes")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    peers = installed(args.peers)
    figures, splits = {}, {}
    for env in args.envs:
        overrides = [f"env={env}", *args.set]
        figures[env] = measure(overrides, peers, args.repeats, args.cold)
        report(env, figures[env], args.cold)
        if not args.no_split:
            splits[env] = split(overrides)
    if args.json:
        written = {"overrides": args.set, "cold": args.cold, "figures": figures, "split": splits}
        args.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
