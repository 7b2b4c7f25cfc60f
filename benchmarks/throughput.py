"""Training speed against peers: the same settings, interleaved in one run, as ratios.

    python benchmarks/throughput.py LunarLander-v3 --repeats 3
    python benchmarks/throughput.py CartPole-v1 Pendulum-v1 --peers sb3 --json speed.json
    python benchmarks/throughput.py Pendulum-v1 --set network.hidden_sizes=[256,256]

Every run is a process of its own, timed from outside: start-up and compiling included, the final
evaluation left out. Environments are made with ``render_mode=None`` on all sides. ``steady`` is steps a
second after the first tenth of the run, from the run's own clock.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from ppo_cli.cli.compose import compose_jobs, expand_preset

PEERS = Path(__file__).with_name("peers.py")


def run_ours(overrides: list[str], folder: Path) -> dict[str, float]:
    """One `ppo-train` process."""
    program = "from ppo_cli.cli.train import main; main()"
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, *overrides, "eval.episodes=0"],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - started
    (path,) = folder.glob("outputs/*/*/metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    skipped, steps = len(rows) // 10, int(rows[-1]["step"])
    warm = rows[skipped:]
    collect, update = (sum(float(row[f"time/{part}"]) for row in warm) for part in ("collect", "update"))
    return {
        "wall": wall,
        "rate": steps / wall,
        "steady": steps * len(warm) / len(rows) / (collect + update),
        "collect_share": collect / (collect + update),
    }


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
    env: str, overrides: list[str], peers: list[str], repeats: int
) -> dict[str, list[dict[str, float]]]:
    """All sides in turn, ``repeats`` times each."""
    typed = [f"env={env}", *overrides]
    ((_, config),) = compose_jobs(expand_preset(typed), False, None, "config")
    results: dict[str, list[dict[str, float]]] = {side: [] for side in ("ours", *peers)}
    for seed in range(repeats):
        for side, rows in results.items():
            with tempfile.TemporaryDirectory() as name:
                if side == "ours":
                    rows.append(run_ours([*typed, f"seed={seed}"], Path(name)))
                else:
                    rows.append(run_peer(side, {**asdict(config), "seed": seed}, Path(name)))
            shown = {key: round(value, 2) for key, value in rows[-1].items()}
            print(f"  {env} {side} seed {seed}: {shown}", flush=True)
    return results


def report(env: str, results: dict[str, list[dict[str, float]]]) -> None:
    """Medians, and the ratio to each peer repeat by repeat."""
    print(f"{env}: median steps/s (whole run / steady)")
    for side, rows in results.items():
        line = f"  {side:5} {statistics.median(row['rate'] for row in rows):8,.0f}"
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
    parser.add_argument("--peers", nargs="*", default=["sb3"], choices=["sb3", "sbx"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for both sides")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    figures = {}
    for env in args.envs:
        figures[env] = measure(env, args.set, args.peers, args.repeats)
        report(env, figures[env])
    if args.json:
        args.json.write_text(json.dumps({"overrides": args.set, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
