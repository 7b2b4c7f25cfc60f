"""A report's files, written into a folder."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ppo_cli.files import write_whole
from ppo_cli.report.aggregates import Overall
from ppo_cli.report.comparison import Comparison
from ppo_cli.report.figures.style import FILES, Style, render
from ppo_cli.report.latex import latex
from ppo_cli.report.page import HEADING, LEGEND, Section, markdown, sections, web_page
from ppo_cli.report.plots import draw, draw_all, group_names
from ppo_cli.report.rows import curve_rows, overall_rows, run_rows, table_rows

PAGE, AGGREGATES = "report.md", "aggregates.csv"
ALL = "all"  # what the names of the figures of all environments begin with


def write_report(
    out: Path,
    comparisons: Sequence[Comparison],
    overall: Overall | None,
    style: Style,
    stems: Mapping[str, str],
    provenance: Mapping[str, str],
) -> list[Section]:
    """Writes figures, tables and pages, and returns what the pages say.

    Figures and aggregates of an earlier report there that this one does not have are removed: they would
    stand beside tables of other runs.

    Args:
        out: The folder, which is made where it is missing.
        comparisons: A comparison for each environment.
        overall: The aggregates over them, if there are several.
        style: The style of the figures.
        stems: The beginnings of the names of each environment's figures.
        provenance: The facts for the head of the page, each with its name.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = _figures_of(out / PAGE)
    names = group_names(comparisons)
    drawn = {
        comparison.env_id: _write_figures(
            out, stems[comparison.env_id], draw(comparison, style, names), style
        )
        for comparison in comparisons
    }
    drawn_all = _write_figures(out, ALL, draw_all(comparisons, overall, style), style)
    content = sections(comparisons, overall, drawn, drawn_all)
    _write_csv(out / "table.csv", table_rows(comparisons))
    _write_csv(out / "curves.csv", curve_rows(comparisons))
    _write_csv(out / "runs.csv", run_rows(comparisons))
    if overall is not None and overall.groups:
        _write_csv(out / AGGREGATES, overall_rows(overall))
    elif earlier:
        (out / AGGREGATES).unlink(missing_ok=True)
    write_whole(out / "table.tex", latex(comparisons, overall, LEGEND))
    write_whole(out / PAGE, markdown(content))
    write_whole(out / "report.html", web_page(content, provenance))
    for name in earlier.difference(*(section.figures for section in content)):
        for suffix in FILES:
            (out / f"{name}.{suffix}").unlink(missing_ok=True)
    return content


def _figures_of(page: Path) -> set[str]:
    """The names of the figures of an earlier report, by its page; none where there is none."""
    text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    if not text.startswith(HEADING):
        return set()
    return set(re.findall(r"^!\[([^/]+)\]\(\1\.png\)$", text, re.MULTILINE))


def _write_figures(out: Path, stem: str, figures: Mapping[str, Figure], style: Style) -> dict[str, bytes]:
    """Writes each figure as every kind of file, and returns the SVG ones by name."""
    images = {}
    for kind, figure in figures.items():
        name = f"{stem}_{kind}"
        for suffix in FILES:
            image = render(figure, suffix, style)
            write_whole(out / f"{name}.{suffix}", image)
            if suffix == "svg":
                images[name] = image
    return images


def _write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    listed = list(rows)
    text = io.StringIO()
    columns = dict.fromkeys(key for row in listed for key in row)
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(listed)
    write_whole(path, text.getvalue())
