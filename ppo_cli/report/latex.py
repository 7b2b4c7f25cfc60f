"""The tables as LaTeX, to be read into a paper that loads the package booktabs."""

import re
from collections.abc import Sequence

from ppo_cli.report.aggregates import Overall
from ppo_cli.report.comparison import Comparison
from ppo_cli.report.tables import Table, failed_table, overall_table, table

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # after a line's end they would belong to it
    "–": "--", "—": "---", "…": r"\ldots{}", "·": r"$\cdot$", "×": r"$\times$", "−": "$-$", "±": r"$\pm$",
    "→": r"$\to$", "≤": r"$\leq$", "≥": r"$\geq$", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$",
    "δ": r"$\delta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$", "μ": r"$\mu$", "ν": r"$\nu$",
    "ρ": r"$\rho$", "σ": r"$\sigma$", "τ": r"$\tau$",
}  # fmt: skip
LONG_LAST = r"lrrp{0.5\linewidth}"  # the reason of a failed run breaks into lines
PAPER = ("group", "runs (seeds)", "IQM", "P(better)", "steps to", "AUC")  # columns that a paper has room for


def latex(comparisons: Sequence[Comparison], overall: Overall | None, legend: str) -> str:
    """All tables of a report, each a ``table`` with caption and label.

    Args:
        comparisons: A comparison for each environment.
        overall: The aggregates over them, if there are any.
        legend: Words for what the columns mean, in a comment above.
    """
    parts = [f"% {legend}", r"% In the preamble: \usepackage{booktabs}"]
    for comparison in comparisons:
        name = comparison.env_id
        if comparison.summaries:
            parts.append(_float(_columns(table(comparison)), f"{name}: final returns.", f"tab:{name}"))
        if comparison.failed:
            lost = failed_table(comparison)
            parts.append(_float(lost, f"{name}: failed runs.", f"tab:{name}-failed", LONG_LAST))
    if overall is not None and overall.groups:
        caption = f"Normalised scores over {len(overall.scales)} environments."
        notes = " ".join(f"{scale}." for scale in overall.scales)
        parts.append(_float(overall_table(overall), f"{caption} {notes}", "tab:aggregates"))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """A text as LaTeX sets it; a letter that pdfLaTeX lacks is its number in Unicode."""
    safe = "".join(SPECIAL.get(letter) or _plain(letter) for letter in text)
    return re.sub(r"(?<![\w.)-])-(?=\d)", "$-$", safe)  # a hyphen is no minus


def tabular(rows: Table, columns: str = "") -> str:
    """A table with booktabs' rules; the first column begins at the left, others end at the right.

    Args:
        rows: The header first.
        columns: Other alignments, as LaTeX has them.
    """
    header, *body = [[escape(cell) for cell in row] for row in rows]
    lines = [
        rf"\begin{{tabular}}{{{columns or 'l' + 'r' * (len(header) - 1)}}}",
        r"\toprule",
        _line(header),
        r"\midrule",
        *map(_line, body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _float(rows: Table, caption: str, label: str, columns: str = "") -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{{''.join(c for c in label if c.isascii() and (c.isalnum() or c in ':-.'))}}}",
        tabular(rows, columns),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _columns(rows: Table) -> Table:
    kept = [place for place, name in enumerate(rows[0]) if name.startswith(PAPER)]
    return [[row[place] for place in kept] for row in rows]


def _plain(letter: str) -> str:
    if letter.isascii() or letter in "äöüÄÖÜßáéíóúàèìòùâêîôûñçåøæÅØÆëïÿ":
        return letter
    return f"U+{ord(letter):04X}"
