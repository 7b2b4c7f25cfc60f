"""`ppo-report`: compares runs, prints a table, and writes a report with figures."""

import argparse
import importlib.util
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.cli.command import Parser, run_command, say_error, typed_program
from ppo_cli.cli.version import versions
from ppo_cli.config.schema import ConfigError
from ppo_cli.files import printable
from ppo_cli.runs.run_dir import folder_name

if TYPE_CHECKING:
    from ppo_cli.report.comparison import Comparison
    from ppo_cli.report.groups import Group
    from ppo_cli.report.page import Section
    from ppo_cli.report.runs import FailedRun, Run

NEEDED = ("scipy", "matplotlib")  # the extra `report`
INCHES = (1.5, 40.0)  # of a figure's sides
POINTS = (4, 40)  # of letters
MOST_SMOOTH = 10_000
LARGEST = 1e100  # of a number that is typed
NARROWEST = 40  # columns; a narrower terminal breaks lines itself


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-report", lambda: _report(_parser().parse_args()), needs_output=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ppo-report",
        description="Compares runs: tables with intervals, and figures for a page and for a paper.",
        epilog="A group is what runs have in common that differ in their seed alone; the table names them.",
    )
    parser.add_argument(
        "dirs", metavar="DIR", nargs="+", type=Path, help="a run, or a folder with runs below it"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where to write (default: report/ in the first DIR)"
    )
    _add_comparison(parser.add_argument_group("what is compared"))
    _add_figures(parser.add_argument_group("how it looks"))
    return parser


def _add_comparison(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--baseline", metavar="GROUP", help="group to hold the others against (default: the first)"
    )
    group.add_argument(
        "--threshold", metavar="[ENV=]RETURN", type=_threshold, action="append", default=[],
        help="return to reach, for sample efficiency; may be given for each environment (default: what "
        "Gymnasium calls solved, or else most of what the baseline gains)",
    )  # fmt: skip
    group.add_argument(
        "--normalize", metavar="ENV=LOW,HIGH", type=_scale, action="append", default=[],
        help="returns that are the scores 0 and 1 in aggregates over environments (default: the mean at the "
        "start of training, and what counts as solved or else the best run's)",
    )  # fmt: skip
    group.add_argument(
        "--smooth", metavar="N", type=_smooth,
        help="logged returns that are averaged in learning curves and for the threshold (default: 5)",
    )  # fmt: skip


def _add_figures(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--labels", metavar="GROUP=NAME", action="append", default=[],
        help="another name for a group; may be given for each",
    )  # fmt: skip
    group.add_argument(
        "--order", metavar="ORDER", default="value",
        help="of the groups: value (of their knobs; the default), iqm (the highest first), or their names "
        "with ; between them",
    )  # fmt: skip
    group.add_argument(
        "--size", metavar="WxH", type=_size,
        help="inches of a figure, such as 3.3x2.4 for a column of a paper; one of several parts keeps the "
        "width (default: 8x4.2)",
    )  # fmt: skip
    group.add_argument(
        "--font-size", metavar="POINTS", type=_font_size, default=9.0, help="of figures (default: 9)"
    )


def _threshold(typed: str) -> tuple[str | None, float]:
    """An environment, or None for all, and the return to reach there."""
    env_id, _, value = typed.rpartition("=")
    number = _number(value)
    if number is None:
        raise argparse.ArgumentTypeError(f"expected a number or ENV=NUMBER, given {typed!r}")
    return env_id or None, number


def _scale(typed: str) -> tuple[str, tuple[float, float]]:
    """An environment, and the returns whose scores are 0 and 1."""
    env_id, _, values = typed.rpartition("=")
    low, high = ([*map(_number, values.split(",")), None, None])[:2]
    if not env_id or values.count(",") != 1 or low is None or high is None or not low < high:
        raise argparse.ArgumentTypeError(f"expected ENV=LOW,HIGH with LOW below HIGH, given {typed!r}")
    return env_id, (low, high)


def _smooth(typed: str) -> int:
    if not typed.isascii() or not typed.isdigit() or not 1 <= int(typed[:9]) <= MOST_SMOOTH or len(typed) > 9:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1 to {MOST_SMOOTH:,}, given {typed!r}"
        )
    return int(typed)


def _size(typed: str) -> tuple[float, float]:
    """Width and height in inches."""
    width, height = ([*map(_number, typed.lower().replace("×", "x").split("x")), None, None])[:2]
    least, most = INCHES
    sizes = [side for side in (width, height) if side is not None and least <= side <= most]
    if len(sizes) != 2 or typed.lower().replace("×", "x").count("x") != 1:
        raise argparse.ArgumentTypeError(
            f"expected inches as WIDTHxHEIGHT from {least:g} to {most:g}, such as 3.3x2.4, given {typed!r}"
        )
    return sizes[0], sizes[1]


def _font_size(typed: str) -> float:
    number, (least, most) = _number(typed), POINTS
    if number is None or not least <= number <= most:
        raise argparse.ArgumentTypeError(f"expected points from {least} to {most}, given {typed!r}")
    return number


def _number(typed: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(typed)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST else None


def _report(args: argparse.Namespace) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not found: pip install 'ppo-cli[report]'")
    # Late: SciPy and Matplotlib take longer to import than an error should.
    from ppo_cli.report.aggregates import aggregate
    from ppo_cli.report.choices import ChoiceError
    from ppo_cli.report.figures.style import Style

    environments = _groups(args.dirs)
    for option, env_id in _named_environments(args):
        if env_id not in environments:
            raise ConfigError(
                f"{option} {env_id}=: no run on {env_id}; there are runs on {', '.join(environments)}"
            )
    style = Style(args.size, args.font_size)
    if not style.has_room:
        raise ConfigError(
            f"--size {style.width:g}x{style.height:g} has no room for letters of {args.font_size:g} points: "
            "take a smaller --font-size or a larger --size"
        )
    try:
        comparisons = _comparisons(environments, args)
    except ChoiceError as error:
        raise ConfigError(str(error)) from error
    overall = aggregate(comparisons, dict(args.normalize))
    out = args.out or args.dirs[0] / "report"
    if args.out is None and out.is_symlink():
        raise ConfigError(f"{out} is a link, through which nothing is written; --out DIR writes elsewhere")
    from ppo_cli.report.write import write_report

    try:
        content = write_report(out, comparisons, overall, style, _stems(environments), _made(args.dirs))
    except OSError as error:
        raise ConfigError(
            f"can't write to {out}: {error.strerror or error}; --out DIR writes elsewhere"
        ) from error
    _print(content)
    print(out / "report.html")


def _print(content: "Sequence[Section]") -> None:
    """Prints tables and notes as wide as the terminal is, and 80 columns in a pipe."""
    from ppo_cli.report.page import plain

    width = max(shutil.get_terminal_size().columns, NARROWEST)
    for section in content:
        print(f"{section.title}\n")
        if text := plain(section, width):
            print(f"{text}\n")
        for note in section.notes:
            print(textwrap.fill(note, width, break_long_words=False, break_on_hyphens=False))
        print()


def _named_environments(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Options and the environments that they name."""
    for env_id, _ in args.threshold:
        if env_id is not None:
            yield "--threshold", env_id
    for env_id, _ in args.normalize:
        yield "--normalize", env_id


def _comparisons(
    environments: "Mapping[str, Sequence[Group]]", args: argparse.Namespace
) -> "list[Comparison]":
    from ppo_cli.report.choices import labels_of, name_of, order_of, ordered, relabelled
    from ppo_cli.report.comparison import compare
    from ppo_cli.report.statistics import WINDOW

    groups = [group for members in environments.values() for group in members]
    labels = labels_of(args.labels, groups)
    baseline = None if args.baseline is None else name_of("--baseline", args.baseline, groups, labels)
    order = order_of(args.order, groups, labels)
    thresholds = dict(args.threshold)
    found = []
    for env_id, members in environments.items():
        threshold = thresholds.get(env_id, thresholds.get(None, _reward_threshold(env_id)))
        comparison = compare(env_id, relabelled(members, labels), threshold, baseline, args.smooth or WINDOW)
        found.append(ordered(comparison, order))
    return found


def _stems(env_ids: Iterable[str]) -> dict[str, str]:
    """Names of files for environments, of which no two are alike, and none is that of all together."""
    stems: dict[str, str] = {}
    taken = {"all"}
    for env_id in env_ids:
        stem = unique = folder_name(env_id)
        count = 1
        while unique.casefold() in taken:
            count += 1
            unique = f"{stem}_{count}"
        taken.add(unique.casefold())
        stems[env_id] = unique
    return stems


def _made(dirs: Sequence[Path]) -> dict[str, str]:
    """When, of what and with what a report was made."""
    return {
        "Date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Folders": printable(", ".join(str(folder.resolve()) for folder in dirs)),
        "Versions": ", ".join(versions(("numpy", "scipy", "matplotlib"))),
        "Command": printable(shlex.join(["ppo-report", *sys.argv[1:]])),
    }


def _groups(dirs: Sequence[Path]) -> "dict[str, list[Group]]":
    """The groups of each environment; each run that is left out is named on stderr."""
    from ppo_cli.report.groups import group_runs
    from ppo_cli.report.runs import find_runs

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
    from ppo_cli.report.broken import BrokenRunError
    from ppo_cli.report.runs import read_run

    try:
        return read_run(folder)
    except BrokenRunError as error:
        _leave_out(f"{folder}: {error}")
        return None


def _pass_over(error: OSError) -> None:
    _leave_out(f"{error.filename}: {error.strerror}")


def _leave_out(line: str) -> None:
    say_error(f"{typed_program('ppo-report')}: left out {printable(line)}")


def _reward_threshold(env_id: str) -> float | None:
    """What Gymnasium's registry calls solved; an environment of another package is not imported to ask."""
    from gymnasium import registry

    return registry[env_id].reward_threshold if env_id in registry else None
