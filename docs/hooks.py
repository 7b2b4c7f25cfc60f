"""What mkdocs can't do alone: pages read off the code, links that hold on GitHub too, formulas as MathML.

`mkdocs.yml` names this file; mkdocs calls the functions whose names begin with `on_`.
"""

import ast
import html
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_cli.config.comments import knob_comments, knob_sections
from ppo_cli.config.convert import from_stored, to_dict
from ppo_cli.config.knob import Knob, describe_type
from ppo_cli.config.schema import KNOBS, conf_dir

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ppo_cli"
# Folders of conf/, and where docs/knobs.md shows them.
GROUPS = {
    "env": "presets",
    "base": "presets",
    "network": "networks",
    "experiment": "experiments",
    "search": "searches",
}

# The search's weight of a page, 1 where nothing is said: prose comes before the API, whose headings (a
# thousand times as heavy as text) are names, and the table of knobs before what mentions one.
API_BOOST, KNOBS_BOOST = 1e-3, 2

_REPO_LINK = re.compile(r"\]\((?:\.\./)?(README\.md|docs/|ppo_cli/|conf/)([\w./-]*)")
_SOURCE = re.compile(r"^<!-- source: ([\w./]+) -->$", re.MULTILINE)
_INTERVAL = re.compile(r"([\d.]+) \[(−?[\d.,]+), (−?[\d.,]+)\]")  # 259.6 [256.8, 262.4]
_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|srcset|data)\s*=\s*[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*?\bhref\s*=\s*[\"']?(?:https?:)?//"
    r"|url\(\s*[\"']?(?:https?:)?//"
    r"|@import\s+[\"'](?:https?:)?//"
)


def modules() -> list[Path]:
    """Every module of the package that has something to say, relative to it: plain ones before folders."""
    files = [file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    return sorted(files, key=lambda file: (len(file.parts), file))


def api_nav() -> list[dict[str, Any]]:
    """The entries of the navigation for the pages that `api_page` makes: a section a folder."""
    folders: dict[str, list[dict[str, Any]]] = {}
    for file in modules():
        page = {file.stem: f"api/{file.with_suffix('.md').as_posix()}"}
        folders.setdefault(file.parent.as_posix(), []).append(page)
    own = folders.pop(".", [])
    return [*own, *({folder: pages} for folder, pages in folders.items())]


def api_page(module: Path) -> str:
    """The page of a module, which mkdocstrings fills in."""
    return f"::: ppo_cli.{'.'.join(module.with_suffix('').parts)}\n"


def source_of(dotted: str) -> tuple[Path, str]:
    """File (relative to the package) and source of a class, method or function, docstring included.

    Args:
        dotted: such as `agent.PPOAgent.act`, without the package; a folder is written with a slash.

    Raises:
        LookupError: there is no such thing.
    """
    module, *names = dotted.split(".")
    file = Path(f"{module}.py")
    text = (PACKAGE / file).read_text() if (PACKAGE / file).is_file() else ""
    node: ast.AST = ast.parse(text)
    for name in names:
        found = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and child.name == name
        ]
        if not found:
            raise LookupError(f"there is no {dotted} in ppo_cli")
        node = found[0]
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        raise LookupError(f"{dotted} is no function or class")
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return file, textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def sources(markdown: str) -> list[str]:
    """What a page asks for with `<!-- source: ... -->`."""
    return _SOURCE.findall(markdown)


def _expand_source(match: re.Match[str]) -> str:
    _, source = source_of(match[1])
    block = f'??? quote "`{match[1]}`, whole"\n\n```python\n{source}\n```'
    head, rest = block.split("\n", 1)
    return f"{head}\n{textwrap.indent(rest, '    ')}\n"


def takes(known: Knob) -> str:
    """What a knob takes: its type with its range, or its choices."""
    if known.choices:
        return ", ".join(f"`{choice}`" for choice in known.choices)
    words = describe_type(known.kind)
    if known.range is not None:
        noun, separator, rest = words.partition(" or ")
        allowed = known.range
        high = f"{allowed.high:g}" if allowed.high < 1e6 else str(allowed.high)  # 2**32 - 1 in full
        interval = str(allowed).replace(f"to {allowed.high:g}", f"to {high}")
        words = f"{noun} {interval}{',' if separator else ''}{separator}{rest}"
    return words


def _lookup(values: object, key: str) -> object:
    for part in key.split("."):
        values = values[part] if isinstance(values, dict) else None
    return values


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    for sign, written in (("|", "\\|"), ("<", "&lt;"), ("{", "&#123;")):
        text = text.replace(sign, written)
    return text


def knob_tables() -> str:
    """Every knob of conf/config.yaml: name, default, what it takes, meaning; a table a section."""
    defaults, comments = to_dict(from_stored({"env": {"id": "any"}})), knob_comments()
    lines = []
    for title, keys in knob_sections():
        lines += [
            f"### {title[0].upper()}{title[1:]}",
            "",
            "| knob | default | takes | meaning |",
            "|---|---|---|---|",
        ]
        for key in keys:
            default = "what is typed as `env=`" if key == "env.id" else f"`{_shown(_lookup(defaults, key))}`"
            plain = " | ".join(map(_cell, (takes(KNOBS[key]), comments.get(key, ""))))
            lines.append(f"| [`{key}`](#{key}){{ #{key} }} | {default} | {plain} |")
        lines.append("")
    return "\n".join(lines)


def group_files(group: str) -> str:
    """The files of a group of conf/, each folded under what is typed to choose it."""
    folder, parts = conf_dir() / group, []
    for file in sorted(folder.rglob("*.yaml")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        text = textwrap.indent(f"```yaml\n{file.read_text().strip()}\n```", "    ")
        title = f"conf/base/{name}.yaml" if group == "base" else f"{group}={name}"  # base is not typed
        parts.append(f'??? quote "`{title}`"\n\n{text}\n')
    return "\n".join(parts)


def knobs_page(markdown: str) -> str:
    """docs/knobs.md with its marks filled in."""
    markdown = markdown.replace("<!-- knobs -->", knob_tables())
    return re.sub(r"<!-- group: (\w+) -->", lambda match: group_files(match[1]), markdown)


def relink(markdown: str, page: str) -> str:
    """Links into the repository, as GitHub follows them, to the pages that show the same.

    Args:
        markdown: of the page.
        page: its path in docs/, such as `ppo.md`.
    """
    up = "../" * page.count("/")

    def target(match: re.Match[str]) -> str:
        top, path = match.groups()
        if top == "docs/":
            return f"]({path}"
        if top == "README.md":
            return f"]({up}index.md"
        if top == "ppo_cli/" and path.endswith(".py"):
            return f"]({up}api/{path.removesuffix('.py')}.md"
        if top == "ppo_cli/":  # a folder, whose first page stands at the top of its section
            first = next(file for file in modules() if file.parent.as_posix() == path.rstrip("/"))
            return f"]({up}api/{first.with_suffix('.md').as_posix()}"
        if top == "conf/":
            group, slash, _ = path.partition("/")
            anchor = f"#{GROUPS.get(group, 'presets')}"
            return f"]({up}knobs.md{anchor if slash else ''}"
        return match[0]

    return _REPO_LINK.sub(target, markdown)


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Adds the API pages to the navigation."""
    assert config.nav is not None
    config.nav.append({"API": api_nav()})
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds the pages that no file in docs/ holds: the README as home, and a page a module."""
    from mkdocs.structure.files import File

    readme = relink((ROOT / "README.md").read_text(), "index.md")
    files.append(File.generated(config, "index.md", content=readme))
    for module in modules():
        name = f"api/{module.with_suffix('.md').as_posix()}"
        files.append(File.generated(config, name, content=api_page(module)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Fills in what a page takes from the code, and turns its links into the repository."""
    name = page.file.src_uri
    if name.startswith("api/"):
        page.meta["search"] = {"boost": API_BOOST}
    if name == "knobs.md":
        page.meta["search"] = {"boost": KNOBS_BOOST}
        markdown = knobs_page(markdown)
    return relink(_SOURCE.sub(_expand_source, markdown), name)


def on_page_content(content: str, **_: object) -> str:
    """Turns formulas into MathML, which browsers show without a script; keeps `1 [0, 2]` and `3 ×` whole."""
    from latex2mathml.converter import convert

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        latex = re.sub(r"\\math(bb|cal) (\w)", r"\\math\1{\2}", html.unescape(match[2]).strip())
        formula = str(convert(latex, display=display))
        return formula.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # a relation

    content = _INTERVAL.sub("\\1\u00a0[\\2,\u00a0\\3]", _MATH.sub(mathml, content))
    return re.sub(r"(?<=\d) ×", "\u00a0×", content)


def external_loads(text: str) -> list[str]:
    """What a page or a style sheet would load from elsewhere."""
    return [match[0] for match in _LOADED.finditer(text)]


def on_post_build(config: "MkDocsConfig") -> None:
    """Refuses a site that asks anything of another host, or shows a formula unformatted."""
    from mkdocs.exceptions import PluginError

    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix not in (".html", ".css"):
            continue
        text = file.read_text()
        if loads := external_loads(text):
            raise PluginError(f"{file} loads from elsewhere: {loads[0]}")
        if 'class="arithmatex"' in text:
            raise PluginError(f"{file}: a formula was not turned into MathML")
