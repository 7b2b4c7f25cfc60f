"""A report as pages: Markdown, and one HTML file that needs nothing else."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ppo_cli.report.aggregates import Overall
from ppo_cli.report.comparison import Comparison, cross_notes
from ppo_cli.report.names import keyed, wrapped
from ppo_cli.report.tables import (
    PAPER,
    STAYS,
    Table,
    aligned,
    continued,
    escaped,
    failed_table,
    fitted,
    name_room,
    overall_table,
    table,
)
from ppo_cli.statistics import CONFIDENCE, RESAMPLES

HEADING = "# Report"
LEGEND = (
    "IQM and mean: of the seeds' final returns; AUC: IQM of the seeds' mean returns over steps. P(better): "
    f"probability that a run returns more than one of the baseline; 0.5 is no difference, {STAYS} one that "
    "stays significant after Holm's correction. IQM and P(better) as in Agarwal et al. 2021, "
    f"arXiv:2108.13264. In brackets {CONFIDENCE:.0%} intervals: of an IQM the expanded percentile "
    f"bootstrap's ({RESAMPLES:,} resamples of the seeds), of P(better) Newcombe's."
)
STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --quiet: #666; --page: #fff; --line: #d8d8d8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --quiet: #a0a0a0; --page: #16181b; --line: #3a3d42; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 76rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
.frame { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page);
  white-space: normal; min-width: 7rem; }
.failed td, .failed th { text-align: left; }
.failed td:last-child { white-space: normal; min-width: 16rem; }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
dl, nav, .legend, li { color: var(--quiet); font-size: .9rem; }
dt { float: left; clear: left; width: 6rem; }
dd { margin-left: 6rem; }
a { color: inherit; }
@media print { .frame { overflow: visible; border: 0; } img { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """What a page says of one environment, or of all together.

    Attributes:
        title: The environment.
        tables: Each with whether it is the one of failed runs.
        notes: The lines below the tables.
        figures: SVG files by name; the PNG files beside them have the same names.
    """

    title: str
    tables: Sequence[tuple[Table, bool]]
    notes: Sequence[str]
    figures: Mapping[str, bytes]


def sections(
    comparisons: Sequence[Comparison],
    overall: Overall | None,
    figures: Mapping[str, Mapping[str, bytes]],
    all_figures: Mapping[str, bytes],
) -> list[Section]:
    """A section for all environments together, where there are several, and one for each.

    Args:
        comparisons: A comparison for each environment.
        overall: The aggregates over them.
        figures: The figures of each environment, SVG files by their name.
        all_figures: The figures of all environments together.
    """
    found = []
    if overall is not None:
        tables = [(overall_table(overall), False)] if overall.groups else []
        notes = [*overall.notes(), *cross_notes(comparisons)]
        found.append(Section("All environments", tables, notes, all_figures))
    for comparison in comparisons:
        tables = [(table(comparison), False)] if comparison.summaries else []
        if comparison.failed:
            tables.append((failed_table(comparison), True))
        found.append(Section(comparison.env_id, tables, comparison.notes(), figures[comparison.env_id]))
    return found


def plain(section: Section, width: int) -> str:
    """A section's tables and notes as text that is at most ``width`` columns wide, if that can be.

    It is Markdown too, but for what a note may hold.
    """
    parts = []
    for rows, is_failed in section.tables:
        if is_failed:
            names, key = keyed([row[0] for row in rows[1:]], name_room(width) - 12)
            rows = [rows[0], *([name, *row[1:]] for name, row in zip(names, rows[1:], strict=True))]
            parts += ["Failed runs:", aligned(continued(rows, width), left=range(len(rows[0])))]
        else:
            tables = fitted(rows, width)
            parts += map(aligned, tables.blocks)
            key = tables.lines
        parts += ["\n".join(f"- {wrapped(escaped(line), width - 2)}" for line in key)] if key else []
    return "\n\n".join(parts)


def markdown(content: Sequence[Section]) -> str:
    """The report as Markdown, whose tables are at most `PAPER` columns wide."""
    parts = [HEADING, LEGEND]
    for section in content:
        parts += [f"## {escaped(section.title)}", plain(section, PAPER)]
        parts += ["\n".join(f"- {escaped(note)}" for note in section.notes)]
        parts += [f"![{name}]({name}.png)" for name in section.figures]
    return "\n\n".join(filter(None, parts)) + "\n"


def web_page(content: Sequence[Section], provenance: Mapping[str, str]) -> str:
    """The report as one HTML file, which loads nothing and runs nothing.

    Args:
        content: The sections of the page.
        provenance: When, of what and with what it was made, each with its name; the only part that a second
            report of the same runs has otherwise.
    """
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>\n" for name, text in provenance.items()
    )
    parts = [f"<h1>Report</h1>\n<dl>\n{facts}</dl>"]
    anchors = [f"s{place}" for place in range(len(content))]
    if len(content) > 1:
        links = "".join(
            f'<li><a href="#{anchor}">{html.escape(section.title)}</a></li>'
            for anchor, section in zip(anchors, content, strict=True)
        )
        parts.append(f"<nav><ul>{links}</ul></nav>")
    parts.append(f'<p class="legend">{html.escape(LEGEND)}</p>')
    parts += map(_web_section, content, anchors)
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(', '.join(section.title for section in content))} · report</title>"
        f"<style>{STYLE}</style>"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _web_section(section: Section, anchor: str) -> str:
    parts = [f'<h2 id="{anchor}">{html.escape(section.title)}</h2>']
    for rows, is_failed in section.tables:
        if is_failed:
            parts.append("<h3>Failed runs</h3>")
        parts.append(_web_table(rows, "frame failed" if is_failed else "frame"))
    parts.append(f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in section.notes)}</ul>")
    for name, image in section.figures.items():
        # As an image, not as elements: ids of several drawings on one page would clash.
        source = base64.b64encode(image).decode()
        parts.append(
            f'<figure><img alt="{html.escape(name)}" src="data:image/svg+xml;base64,{source}"></figure>'
        )
    return "\n".join(parts)


def _web_table(rows: Table, kind: str) -> str:
    lines = []
    for position, row in enumerate(rows):
        tag = "td" if position else "th"
        first, *others = map(html.escape, row)
        cells = [first.replace(",", ",<wbr>"), *others]  # a long name breaks between its knobs
        lines.append(f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>")
    return f'<div class="{kind}" tabindex="0"><table>{"".join(lines)}</table></div>'
