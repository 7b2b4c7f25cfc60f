"""README.md and docs/ against the code: links, command lines, quotes, names and tags."""

import ast
import importlib
import inspect
import re
import shlex
from functools import reduce
from pathlib import Path

import pytest

from ppo_cli.cli.compose import compose_jobs, expand_preset
from ppo_cli.config import ConfigError, knobs
from ppo_cli.metrics import EVAL_TAG, TAGS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MATH = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page, language):
    """Contents of a page's fenced blocks in a language."""
    return [block for kind, block in FENCE.findall(page.read_text()) if kind == language]


def prose(page):
    """A page without its fenced blocks and formulas."""
    return MATH.sub("", FENCE.sub("", page.read_text()))


def links(page):
    """Relative links of a page: path and anchor."""
    targets = [target for target in LINK.findall(prose(page)) if "://" not in target]
    return [(path, anchor) for path, _, anchor in (target.partition("#") for target in targets)]


def anchors(page):
    """What GitHub calls a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def normalized(lines):
    """Lines without blank ones, each with its white space collapsed."""
    return [" ".join(line.split()) for line in lines.splitlines() if line.strip()]


def compose(line):
    """The jobs of a shell line that starts with `ppo-train`; None where it only prints something else."""
    words, config_dir, multirun, overrides = iter(shlex.split(line, comments=True)[1:]), None, False, []
    for word in words:
        if word in ("--help", "--hydra-help", "--shell-completion", "-sc") or "resume=" in word:
            return None
        if word in ("--cfg", "--config-dir"):
            argument = next(words)
            config_dir = argument if word == "--config-dir" else config_dir
        elif word in ("-m", "--multirun"):
            multirun = True
        elif word != "--resolve":
            overrides.append(word)
    return compose_jobs(expand_preset(overrides), multirun, config_dir, "config")


def commands(page):
    """Lines of a page's shell blocks that start with `ppo-train`."""
    return [
        line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("ppo-train ")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    for path, anchor in links(page):
        file = page.parent / path if path else page
        assert file.exists(), path
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{path}#{anchor}"


@pytest.mark.parametrize("line", commands(ROOT / "README.md"))
def test_the_readmes_command_lines_compose(line):
    jobs = compose(line)
    assert jobs is None or len(jobs) >= 1
    if jobs is not None and "-m" in shlex.split(line, comments=True):
        assert len(jobs) > 1


def test_the_readme_has_command_lines():
    assert len(commands(ROOT / "README.md")) > 5


def test_what_the_readme_shows_as_refused_is_refused_so():
    shown = re.findall(
        r"^\$ (ppo-train .*)\nppo-train: (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert shown
    for line, message in shown:
        with pytest.raises(ConfigError) as error:
            compose(line)
        assert str(error.value) == message


def test_the_readmes_presets_are_the_files():
    (listed,) = re.findall(r"^Presets: (.*?)\. ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for env_id in listed.replace("\n", " ").split(", "):
        assert (ROOT / "conf" / "env" / f"{env_id}.yaml").is_file(), env_id


@pytest.mark.parametrize("source", blocks(ROOT / "README.md", "python"))
def test_the_readmes_python_names_what_exists(source):
    nodes = list(ast.walk(ast.parse(source)))
    imported = {
        alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for call in nodes:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id != "print":
            keywords = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(imported[call.func.id]).bind(*call.args, **keywords)


def quotes():
    """Python blocks of docs/ppo.md, each with the file that the last link before it names."""
    page = ROOT / "docs" / "ppo.md"
    text, file = page.read_text(), None
    for match in re.finditer(f"(?:{FENCE.pattern})|{LINK.pattern}", text, re.MULTILINE | re.DOTALL):
        language, quote, target = match.groups()
        if target is not None and target.endswith(".py"):
            file = page.parent / target
        elif language == "python":
            yield pytest.param(file, quote, id=normalized(quote)[0])


@pytest.mark.parametrize(("file", "quote"), list(quotes()))
def test_quotes_stand_in_the_file_that_is_linked(file, quote):
    quoted, lines = normalized(quote), normalized(file.read_text())
    found = [i for i in range(len(lines)) if lines[i : i + len(quoted)] == quoted]
    assert found, f"docs/ppo.md quotes what {file.name} does not say"


@pytest.mark.parametrize("name", ["ppo.md", "metrics.md", "extending.md"])
def test_dotted_names_exist(name):
    known = {key for key, _ in knobs()} | {key.rpartition(".")[0] for key, _ in knobs()}
    for path, attributes in re.findall(
        r"`((?:cli/|envs/)?[a-z_]+)\.(\w+(?:\.\w+)*)(?:\(\))?`", prose(ROOT / "docs" / name)
    ):
        dotted = f"{path}.{attributes}"
        file = ROOT / "ppo_cli" / f"{path}.py"
        if dotted in known or not file.is_file() or attributes in ("py", "md", "yaml", "csv", "json"):
            continue
        module = importlib.import_module(f"ppo_cli.{path.replace('/', '.')}")
        assert reduce(getattr, attributes.split("."), module) is not None, dotted


@pytest.mark.parametrize("tag", [*TAGS, EVAL_TAG])
def test_every_tag_is_documented(tag):
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert any(f"`{tag}`" in heading for heading in headings)


def test_no_tag_is_documented_that_is_not_logged():
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    named = {tag for heading in headings for tag in re.findall(r"`(\w+/\w+)`", heading)}
    assert named == {*TAGS, EVAL_TAG}
