"""The tables of docs/results.md, made from runs that are kept beside it: no figure is typed by hand.

    ppo-train -m env=Hopper-v5 eval.episodes=100 'seed=range(11,21)' hydra.sweep.dir=hopper
    python benchmarks/results.py keep Hopper-v5 hopper
    ppo-train -m search=ppo_continuous env=Hopper-v5 'seed=range(1,4)' hydra.sweep.dir=search
    python benchmarks/results.py study Hopper-v5 search
    ppo-train -m env=Hopper-v5 env.id=Ant-v5,Walker2d-v5 eval.seed=2000 'seed=1,2' hydra.sweep.dir=elsewhere
    python benchmarks/results.py recipe hopper elsewhere
    python benchmarks/results.py tables

`keep` packs config, evaluation and thinned log of each run below the folders into docs/results/ROW.tar.xz:
one group of finished runs, that differ in their seed alone. `study` packs what a search leaves about itself
into docs/results/studies/NAME.tar.xz. `recipe` packs runs of the same settings on several environments, as
`keep` does, into docs/results/recipes/NAME.tar.xz. `tables` writes the tables of
docs/results/tables.yaml between their marks in docs/results.md, and refuses a row whose runs have other
settings than its command gives by now. What is kept unpacks to folders that `ppo-report` reads, here
those of the presets, as against those of other settings in beside/ and recipes/:

    mkdir kept; for row in docs/results/*.tar.xz; do tar -xJf $row -C kept; done; ppo-report kept
"""

import argparse
import csv
import io
import json
import re
import shlex
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from ppo_cli.config.compose import load
from ppo_cli.config.convert import dotted, from_stored, learned_part
from ppo_cli.config.schema import Config, conf_dir
from ppo_cli.report.groups import group_runs
from ppo_cli.report.metrics import COLUMNS, read_metrics
from ppo_cli.report.runs import Run, find_runs, read_run
from ppo_cli.report.statistics import estimate
from ppo_cli.runs.build import check_environment
from ppo_cli.runs.folder import RunFolder

DOCS = Path(__file__).parents[1] / "docs"
POINTS = 100  # rows of a kept log, as many as a report's learning curve has points
DIGITS = 6  # of what is logged, and of the single episodes' returns
DECIMALS_OF_A_ROW = ((10, 1), (2, 2), (0, 3))  # by the size that a return has at least
DECIMALS_OF_A_SEED = ((100, 0), (2, 2), (0, 3))
LEAST_SHARE = 0.05  # of the variance of a search's values, that a knob is named for
SAME_BITS = {"vectorization": "sync"}  # what auto and async give the bits of
OF_A_SEARCH = ("search.json", "trials.csv", "importances.csv", "best.yaml")
STUDIES = ("search", "trials: complete, pruned", "best", "what it drew", "what mattered")
HEAD = ("`ppo-train`", "IQM [95 %]", "lowest, highest seed", "seeds", "steps", "published", "bar")


def main() -> None:
    """Does what is typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of results.md and results/")
    does = parser.add_subparsers(dest="does", required=True)
    kept = does.add_parser("keep")
    kept.add_argument("row")
    kept.add_argument("folders", type=Path, nargs="+")
    study = does.add_parser("study")
    study.add_argument("name")
    study.add_argument("folder", type=Path)
    recipe = does.add_parser("recipe")
    recipe.add_argument("name")
    recipe.add_argument("folders", type=Path, nargs="+")
    does.add_parser("tables")
    args = parser.parse_args()
    if args.does == "keep":
        keep(args.docs / "results" / f"{args.row}.tar.xz", read_row(args.folders))
    elif args.does == "study":
        keep_study(args.docs / "results" / "studies" / f"{args.name}.tar.xz", args.folder)
    elif args.does == "recipe":
        runs = [run for group in read_alike(args.folders).values() for run in group]
        keep(args.docs / "results" / "recipes" / f"{args.name}.tar.xz", runs, "{run.env_id}/seed={run.seed}")
    else:
        page = args.docs / "results.md"
        page.write_text(
            with_tables(page.read_text(encoding="utf-8"), args.docs / "results"), encoding="utf-8"
        )


def read_row(folders: Sequence[Path]) -> list[Run]:
    """The runs below folders by their seeds: one group, all finished and evaluated alike."""
    found = read_alike(folders)
    if len(found) != 1:
        raise SystemExit(f"{', '.join(map(str, folders))}: expected one group; groups: {list(found)}")
    return next(iter(found.values()))


def read_alike(folders: Sequence[Path]) -> dict[str, list[Run]]:
    """The runs below folders by their seeds: one group an environment, all finished and evaluated alike."""
    runs = [read_run(folder) for folder in find_runs(folders, refuse)]
    environments, repeated = group_runs(runs)
    found = {
        f"{env_id} {group.name}": list(group.runs)
        for env_id, groups in environments.items()
        for group in groups
    }
    unfit = [
        str(run.folder)
        for run in runs
        if not isinstance(run, Run) or run.status != "finished" or run.evaluated is None
    ]
    ways = {run.evaluation for group in found.values() for run in group}
    if repeated or unfit or len(ways) > 1 or len(found) != len(environments):
        raise SystemExit(
            f"{', '.join(map(str, folders))}: expected finished runs of one group an environment, evaluated "
            f"alike, each with a seed of its own; groups: {list(found)}; repeated: {repeated}; "
            f"unfinished: {unfit}; evaluated: {sorted(ways)}"
        )
    return found


def refuse(error: OSError) -> NoReturn:
    """Ends the program at a folder that cannot be read."""
    raise SystemExit(f"{error.filename}: {error.strerror}")


def keep(archive: Path, runs: Iterable[Run], inside: str = "seed={run.seed}") -> None:
    """Packs runs, each in a folder that `inside` names."""
    top = archive.name.removesuffix(".tar.xz")
    files = ((f"{top}/{inside.format(run=run)}", *file) for run in runs for file in kept_files(run))
    pack(archive, ((f"{folder}/{name}", text) for folder, name, text in files))


def keep_study(archive: Path, folder: Path) -> None:
    """Packs what a search that has ended says about itself."""
    missing = [name for name in OF_A_SEARCH if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"{folder}: expected a search that has ended; it has no {', '.join(missing)}")
    name = archive.name.removesuffix(".tar.xz")
    pack(archive, ((f"{name}/{file}", (folder / file).read_text(encoding="utf-8")) for file in OF_A_SEARCH))


def pack(archive: Path, files: Iterable[tuple[str, str]]) -> None:
    """Packs texts by their names, to the same bytes every time."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for name, text in files:
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def kept_files(run: Run) -> Iterator[tuple[str, str]]:
    """What is kept of a run, by name."""
    own = RunFolder(run.folder)
    yield own.config_yaml.name, own.config_yaml.read_text(encoding="utf-8")
    evaluation = json.loads(own.eval_json.read_text(encoding="utf-8"))
    evaluation["returns"] = [float(f"{value:.{DIGITS}g}") for value in evaluation.get("returns", [])]
    yield own.eval_json.name, json.dumps(evaluation)
    yield own.metrics_csv.name, thinned(own.metrics_csv)


def thinned(log: Path) -> str:
    """A log of at most `POINTS` rows: each the mean of neighbours, at the step of the last of them."""
    whole = read_metrics(log)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rows in np.array_split(np.arange(len(whole.steps)), min(POINTS, len(whole.steps))):
        returns = whole.returns[rows][np.isfinite(whole.returns[rows])]
        mean = f"{np.mean(returns):.{DIGITS}g}" if len(returns) else ""
        writer.writerow([int(whole.steps[rows[-1]]), mean, f"{np.median(whole.speeds[rows]):.{DIGITS}g}"])
    return out.getvalue()


def with_tables(page: str, results: Path) -> str:
    """The page with the tables of `tables.yaml` between their marks."""
    for name, rows in yaml.safe_load((results / "tables.yaml").read_text(encoding="utf-8")).items():
        begin, end = f"<!-- results: {name} -->\n", "<!-- end of results -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{end}", re.DOTALL)
        if not pattern.search(page):
            raise SystemExit(f"results.md has no place for the table {name}: {begin.strip()} and {end}")
        make = next((make for key, make in OF_ROWS.items() if key in rows[0]), table)
        lines = "\n".join(make(rows, results))
        page = pattern.sub(lambda _, text=f"{begin}\n{lines}\n\n{end}": text, page)
    return page


def table(rows: Sequence[dict[str, str]], results: Path) -> Iterator[str]:
    """A table in Markdown, and the commands of the rows that are there."""
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    commands = []
    for row in rows:
        archive = results / f"{row['row']}.tar.xz"
        cells = [f"`{row['typed']}`", "not run", *[""] * 3]
        if archive.exists():
            with unpacked(archive) as folder:
                runs = read_row([folder])
                check_settings(row["typed"], RunFolder(runs[0].folder).config)
            cells = [cells[0], *described(runs), met(runs, row.get("bar"))]
            words = f"{row['typed']} eval.episodes={len_of(runs)} {seeds_of(runs)}"
            commands.append(command(words, len(runs)))
        else:
            cells.append(met([], row.get("bar")))
        yield f"| {' | '.join([*cells[:5], row.get('published', ''), cells[5]])} |"
    if commands:
        yield from ("", "```sh", *commands, "```")


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """A folder of what an archive holds, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def recipes_table(rows: Sequence[dict[str, str]], results: Path) -> Iterator[str]:
    """A table in Markdown of settings by environments, each seed's return in its cell, and the commands."""
    found: list[tuple[str, dict[str, str]]] = []
    commands = defaultdict(list)
    for row in rows:
        returns: dict[str, str] = {}
        found.append((row["says"], returns))
        with unpacked(results / "recipes" / f"{row['recipe']}.tar.xz") as folder:
            for runs in read_alike([folder]).values():
                env_id, config = runs[0].env_id, RunFolder(runs[0].folder).config
                check_settings(f"{row['typed']} env.id={env_id}", config)
                evaluation = f"eval.episodes={config.eval.episodes} eval.seed={config.eval.seed}"
                commands[row["typed"], f"{evaluation} {seeds_of(runs)}", len(runs)].append(env_id)
                returns[env_id] = ", ".join(
                    number(value, decimals(abs(value), DECIMALS_OF_A_SEED))
                    for value in (run.final_return for run in runs)
                )
    env_ids = sorted({env_id for _, returns in found for env_id in returns})
    yield f"| settings | {' | '.join(env_ids)} |"
    yield f"|{'---|' * (len(env_ids) + 1)}"
    for says, returns in found:
        yield f"| {says} | {' | '.join(returns.get(env_id, '') for env_id in env_ids)} |"
    yield from ("", "```sh")
    for (typed, rest, seeds), several in commands.items():
        yield command(f"{typed} env.id={','.join(several)} {rest}", len(several) * seeds)
    yield "```"


def studies_table(rows: Sequence[dict[str, str]], results: Path) -> Iterator[str]:
    """A table of searches in Markdown, and their commands."""
    yield f"| {' | '.join(STUDIES)} |"
    yield f"|{'---|' * len(STUDIES)}"
    commands = []
    for row in rows:
        with tarfile.open(results / "studies" / f"{row['study']}.tar.xz") as tar:
            plan, trials, shares, _ = (
                member.read().decode() for file in tar.getmembers() if (member := tar.extractfile(file))
            )
        found = json.loads(plan)
        drawn = [axis["key"] for axis in found["axes"]]
        check_settings(row["typed"], from_stored(found["bases"][0]["config"]), drawn)
        commands.append(search_command(row["typed"], found))
        yield f"| {row['study']} | {' | '.join(searched(trials, shares))} |"
    yield from ("", "```sh", *commands, "```")


def searched(trials: str, shares: str) -> Iterator[str]:
    """What came of a search: its trials, the best value and its draws, and what explains the values."""
    rows = list(csv.DictReader(io.StringIO(trials)))
    complete = [row for row in rows if row["state"] == "complete"]
    best = max(complete, key=lambda row: float(row["value"]))
    pruned = sum(row["state"] == "pruned" for row in rows)
    yield f"{len(rows)}: {len(complete)}, {pruned}"
    yield number(float(best["value"]), 1)
    yield " ".join(f"`{key}={value}`" for key, value in list(best.items())[4:])
    mattered = [(row["knob"], float(row["importance"])) for row in csv.DictReader(io.StringIO(shares))]
    yield ", ".join(f"`{knob}` {share:.0%}" for knob, share in mattered if share >= LEAST_SHARE)


def search_command(typed: str, plan: dict[str, Any]) -> str:
    """What makes the same search."""
    axes = []
    for axis in plan["axes"]:
        if "values" in axis:
            drawn = ",".join(axis["values"])
        elif axis["step"] is not None:
            drawn = f"range({axis['low']:g},{axis['high'] + axis['step']:g},{axis['step']:g})"
        else:
            drawn = f"interval({axis['low']:g},{axis['high']:g})"
        axes.append(f"{axis['key']}={f'tag(log,{drawn})' if axis.get('log') else drawn}")
    evaluation = [word for word in plan["typed"] if word.startswith("eval.")]
    defaults = yaml.safe_load((conf_dir() / "hydra" / "sweeper" / "optuna.yaml").read_text(encoding="utf-8"))
    settings = [
        f"hydra.sweeper.{key}={value}"
        for key, value in plan["settings"].items()
        if key == "n_trials" or (value != defaults.get(key) and not isinstance(value, dict))
    ]
    seeds = f"seed={','.join(map(str, plan['seeds']))}"
    words = ["hydra/sweeper=optuna", *shlex.split(typed), *evaluation, seeds, *settings, *axes]
    return f"ppo-train -m {shlex.join(words)}"


def check_settings(typed: str, config: Config, but: Sequence[str] = ()) -> None:
    """Ends the program where what is typed gives other settings by now: a preset has changed since."""
    now, then = (
        dict(dotted(learned_part(check_environment(replace(each, **SAME_BITS)).config)))
        for each in (load(*shlex.split(typed)), config)
    )
    other = [
        f"{key}={then.get(key)}, now {now.get(key)}"
        for key in now | then
        if now.get(key) != then.get(key) and not f"{key}.".startswith(tuple(f"{each}." for each in but))
    ]
    if other:
        raise SystemExit(
            f"{typed}: its runs have other settings than it gives now: {'; '.join(other)}; run it again"
        )


def described(runs: Sequence[Run]) -> list[str]:
    """IQM with its interval, the range of the seeds, how many there are, and the steps of each."""
    returns = [run.final_return for run in runs]
    digits = decimals(max(map(abs, returns)), DECIMALS_OF_A_ROW)
    found = estimate(np.array(returns))
    value = number(float(found.value), digits)
    if found.low is not None and found.high is not None:
        value += f" [{number(float(found.low), digits)}, {number(float(found.high), digits)}]"
    steps = sorted({run.last_step for run in runs})
    ends = f"{number(min(returns), digits)}, {number(max(returns), digits)}"
    return [
        value,
        ends,
        str(len(runs)),
        " to ".join(f"{step:,}" for step in dict.fromkeys((steps[0], steps[-1]))),
    ]


def met(runs: Sequence[Run], bar: float | None) -> str:
    """The bar, and of runs whether the interval of their IQM reaches it."""
    if bar is None:
        return ""
    words = f"≥ {bar:,}".replace("-", "−")
    if not runs:
        return words
    found = estimate(np.array([run.final_return for run in runs]))
    reach = float(found.value if found.high is None else found.high)
    return f"{words}: {'met' if reach >= bar else 'missed'}"


def number(value: float, digits: int) -> str:
    """A number with commas and a sign that a table can have."""
    return f"{value:,.{digits}f}".replace("-", "−")


def decimals(size: float, rule: Sequence[tuple[float, int]]) -> int:
    """How many decimals a rule gives to a return of that size."""
    return next(digits for least, digits in rule if size >= least)


def len_of(runs: Sequence[Run]) -> str:
    """How many episodes an evaluation has."""
    return runs[0].evaluation.partition(" ")[0]


def command(words: str, runs: int) -> str:
    """What makes so many runs: one is no sweep."""
    return f"ppo-train {'-m ' if runs > 1 else ''}{words}"


def seeds_of(runs: Sequence[Run]) -> str:
    """What is typed for the seeds."""
    seeds = [run.seed for run in runs]
    whole = seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 1
    return f"'seed=range({seeds[0]},{seeds[-1] + 1})'" if whole else f"seed={','.join(map(str, seeds))}"


OF_ROWS = {"study": studies_table, "recipe": recipes_table}

if __name__ == "__main__":
    main()
