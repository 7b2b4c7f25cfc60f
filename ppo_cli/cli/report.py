"""`ppo-report`: compares runs, prints a table, and writes a report with figures."""

import argparse
import csv
import importlib.util
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.cli.command import Parser, run_command
from ppo_cli.cli.run_dir import folder_name
from ppo_cli.config import ConfigError
from ppo_cli.files import printable, write_whole

if TYPE_CHECKING:
    from ppo_cli.report.comparison import Comparison
    from ppo_cli.report.runs import FailedRun, Group, Run

NEEDED = ("scipy", "matplotlib")  # the extra `report`


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-report", lambda: _report(_parser().parse_args()), needs_output=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ppo-report",
        description="Compares runs: a table with intervals, learning curves, sensitivity, sample efficiency.",
    )
    parser.add_argument(
        "dirs", metavar="DIR", nargs="+", type=Path, help="a run, or a folder with runs below it"
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="group to hold the others against (default: the first)"
    )
    parser.add_argument(
        "--threshold", metavar="[ENV=]RETURN", type=_threshold, action="append", default=[],
        help="return to reach, for sample efficiency; may be given for each environment (default: what "
        "Gymnasium calls solved, or else most of what the baseline gains)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where to write (default: report/ in the first DIR)"
    )
    return parser


def _threshold(typed: str) -> tuple[str | None, float]:
    """An environment, or None for all, and the return to reach there."""
    env_id, _, value = typed.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a number or ENV=NUMBER, given {typed!r}")
    return env_id or None, number


def _report(args: argparse.Namespace) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not found: pip install 'ppo-cli[report]'")
    from ppo_cli.report.comparison import compare  # late: SciPy takes longer to import than an error should
    from ppo_cli.report.page import aligned, table

    environments = _groups(args.dirs)
    _check_baseline(args.baseline, [group for groups in environments.values() for group in groups])
    thresholds = dict(args.threshold)
    for env_id in thresholds:
        if env_id is not None and env_id not in environments:
            raise ConfigError(
                f"--threshold {env_id}=: no run on {env_id}; there are runs on {', '.join(environments)}"
            )
    comparisons = [
        compare(
            env_id,
            groups,
            thresholds.get(env_id, thresholds.get(None, _reward_threshold(env_id))),
            args.baseline,
        )
        for env_id, groups in environments.items()
    ]
    out = args.out or args.dirs[0] / "report"
    if args.out is None and out.is_symlink():
        raise ConfigError(f"{out} is a link, through which nothing is written; --out DIR writes elsewhere")
    try:
        _write(comparisons, out)
    except OSError as error:
        raise ConfigError(
            f"can't write to {out}: {error.strerror or error}; --out DIR writes elsewhere"
        ) from error
    for comparison in comparisons:
        print(f"{comparison.env_id}\n\n{aligned(table(comparison))}\n")
        for note in comparison.notes():
            print(note)
        print()
    print(out / "report.html")


def _groups(dirs: Sequence[Path]) -> "dict[str, list[Group]]":
    """The groups of each environment; each run that is left out is named on stderr."""
    from ppo_cli.report.runs import find_runs, group_runs

    for folder in dirs:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder")
    runs = [run for run in map(_read, find_runs(dirs, _pass_over)) if run is not None]
    if not runs:
        raise ConfigError(f"no run to report in {', '.join(map(str, dirs))}")
    environments, repeated = group_runs(runs)
    for line in repeated:
        _leave_out(line)
    return environments


def _read(folder: Path) -> "Run | FailedRun | None":
    from ppo_cli.report.runs import BrokenRunError, read_run

    try:
        return read_run(folder)
    except BrokenRunError as error:
        _leave_out(f"{folder}: {error}")
        return None


def _pass_over(error: OSError) -> None:
    _leave_out(f"{error.filename}: {error.strerror}")


def _leave_out(line: str) -> None:
    print(f"ppo-report: left out {printable(line)}", file=sys.stderr)


def _check_baseline(name: str | None, groups: "Sequence[Group]") -> None:
    if name is not None and not any(group.is_called(name) for group in groups):
        names = "; ".join(group.name for group in groups)
        raise ConfigError(f"--baseline {name}: no such group; there are {names}")


def _reward_threshold(env_id: str) -> float | None:
    """What Gymnasium's registry calls solved; an environment of another package is not imported to ask."""
    from gymnasium import registry

    return registry[env_id].reward_threshold if env_id in registry else None


def _write(comparisons: "Sequence[Comparison]", out: Path) -> None:
    """Writes the figures, the tables and the pages."""
    from ppo_cli.report.page import curve_rows, markdown, run_rows, table_rows, web_page
    from ppo_cli.report.plots import draw, render

    out.mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {}
    images: dict[str, dict[str, bytes]] = {}
    for comparison in comparisons:
        names[comparison.env_id], images[comparison.env_id] = [], {}
        for kind, figure in draw(comparison).items():
            name = f"{folder_name(comparison.env_id)}_{kind}"
            image = render(figure, "svg")
            write_whole(out / f"{name}.svg", image)
            write_whole(out / f"{name}.png", render(figure, "png"))
            names[comparison.env_id].append(f"{name}.png")
            images[comparison.env_id][name] = image
    _write_csv(out / "table.csv", table_rows(comparisons))
    _write_csv(out / "curves.csv", curve_rows(comparisons))
    _write_csv(out / "runs.csv", run_rows(comparisons))
    write_whole(out / "report.md", markdown(comparisons, names))
    write_whole(out / "report.html", web_page(comparisons, images))


def _write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    listed = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, listed[0] if listed else [])
    writer.writeheader()
    writer.writerows(listed)
    write_whole(path, text.getvalue())
