"""`ppo-report`: compares runs, prints a table, and writes a report with figures."""

import argparse
import importlib.util
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_cli.cli.command import Parser, run_command, say_error, typed_program
from ppo_cli.errors import ConfigError
from ppo_cli.files import printable
from ppo_cli.importing import importing
from ppo_cli.report import typed
from ppo_cli.versions import versions

if TYPE_CHECKING:
    from ppo_cli.report.page import Section

NEEDED = ("scipy", "matplotlib")  # the extra `report`
NARROWEST = 40  # columns; a narrower terminal breaks lines itself
# The options and what argparse is told of each, below the headings of the help page.
_OPTIONS: dict[str | None, dict[str, dict[str, Any]]] = {
    None: {
        "dirs": {
            "metavar": "DIR", "nargs": "+", "type": Path, "help": "a run, or a folder with runs below it",
        },
        "--out": {
            "metavar": "DIR", "type": Path, "help": "where to write (default: report/ in the first DIR)",
        },
    },
    "what is compared": {
        "--baseline": {
            "metavar": "GROUP", "help": "group to hold the others against (default: the first)",
        },
        "--threshold": {
            "metavar": "[ENV=]RETURN", "type": typed.threshold, "action": "append", "default": [],
            "help": "return to reach, for sample efficiency; may be given for each environment (default: "
            "what Gymnasium calls solved, or else most of what the baseline gains)",
        },
        "--normalize": {
            "metavar": "ENV=LOW,HIGH", "type": typed.scale, "action": "append", "default": [],
            "help": "returns that are the scores 0 and 1 in aggregates over environments (default: the mean "
            "at the start of training, and what counts as solved or else the best run's)",
        },
        "--smooth": {
            "metavar": "N", "type": typed.smooth,
            "help": "logged returns that are averaged in learning curves and for the threshold (default: 5)",
        },
    },
    "how it looks": {
        "--labels": {
            "metavar": "GROUP=NAME", "action": "append", "default": [],
            "help": "another name for a group; may be given for each",
        },
        "--order": {
            "metavar": "ORDER", "default": "value",
            "help": "of the groups: value (of their knobs; the default), iqm (the highest first), or their "
            "names with ; between them",
        },
        "--size": {
            "metavar": "WxH", "type": typed.size,
            "help": "inches of a figure, such as 3.3x2.4 for a column of a paper; one of several parts keeps "
            "the width (default: 8x4.2)",
        },
        "--font-size": {
            "metavar": "POINTS", "type": typed.font_size, "default": 9.0, "help": "of figures (default: 9)",
        },
    },
}  # fmt: skip


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-report", lambda: _report(_parser().parse_args()), needs_output=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ppo-report",
        description="Compares runs: tables with intervals, and figures for a page and for a paper.",
        epilog="A group is what runs have in common that differ in their seed alone; the table names them.",
    )
    for heading, options in _OPTIONS.items():
        group = parser if heading is None else parser.add_argument_group(heading)
        for name, settings in options.items():
            group.add_argument(name, **settings)
    return parser


def _report(args: argparse.Namespace) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not found: pip install 'ppo-cli[report]'")
    with importing():  # late: SciPy and Matplotlib take longer to import than an error should
        from ppo_cli.report.aggregates import aggregate
        from ppo_cli.report.choices import BY_IQM, Choices, compare_groups
        from ppo_cli.report.figures.style import Style
        from ppo_cli.report.groups import read_groups
        from ppo_cli.report.names import file_stems
        from ppo_cli.report.statistics import WINDOW
        from ppo_cli.report.write import write_report

    choices = Choices(
        args.baseline,
        dict(args.threshold),
        dict(args.normalize),
        args.smooth or WINDOW,
        args.labels,
        args.order,
    )
    environments = read_groups(args.dirs, _leave_out)
    choices.check(environments)
    style = Style(args.size, args.font_size)
    if not style.has_room:
        raise ConfigError(
            f"--size {style.width:g}x{style.height:g} has no room for letters of {args.font_size:g} points: "
            "take a smaller --font-size or a larger --size"
        )
    comparisons = compare_groups(environments, choices)
    overall = aggregate(comparisons, choices.scales, by_iqm=choices.order == BY_IQM)
    out = args.out or args.dirs[0] / "report"
    if args.out is None and out.is_symlink():
        raise ConfigError(f"{out} is a link, through which nothing is written; --out DIR writes elsewhere")
    try:
        content = write_report(
            out, comparisons, overall, style, file_stems(environments), _provenance(args.dirs)
        )
    except OSError as error:
        raise ConfigError(
            f"can't write to {out}: {error.strerror or error}; --out DIR writes elsewhere"
        ) from error
    _print(content)
    print(out / "report.html")


def _leave_out(line: str) -> None:
    say_error(f"{typed_program('ppo-report')}: left out {printable(line)}")


def _provenance(dirs: Sequence[Path]) -> dict[str, str]:
    """When, of what and with what a report was made."""
    return {
        "Date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Folders": printable(", ".join(str(folder.resolve()) for folder in dirs)),
        "Versions": ", ".join(versions(("numpy", "scipy", "matplotlib"))),
        "Command": printable(shlex.join(["ppo-report", *sys.argv[1:]])),
    }


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
