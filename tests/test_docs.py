"""README.md and docs/ against the code: links, command lines, quotes, names and tags."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
from functools import reduce
from pathlib import Path

import pytest

from ppo_cli.cli.compose import compose_jobs, expand_preset
from ppo_cli.config import ConfigError, conf_dir, knobs
from ppo_cli.metrics import EVAL_TAG, TAGS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPEC = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
hooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hooks)
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
    text = (ROOT / "README.md").read_text()
    (listed,) = re.findall(r"^Presets, with published settings: (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    named = re.findall(r"`([\w/-]+-v\d)`", listed)
    assert named
    for env_id in named:
        assert (ROOT / "conf" / "env" / f"{env_id}.yaml").is_file(), env_id


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


def test_every_knob_is_on_the_knob_page():
    page = hooks.knobs_page((ROOT / "docs" / "knobs.md").read_text())
    rows = re.findall(r"^\| \[`([\w.]+)`\]\S*\{ #\S+ \} \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(key for key, _ in knobs())
    for key, default, takes, meaning in rows:
        assert default and takes and meaning, key
    assert "<!--" not in page


@pytest.mark.parametrize("folder", sorted(path.name for path in conf_dir().iterdir() if path.is_dir()))
def test_every_file_of_a_group_is_on_the_knob_page(folder):
    if folder == "hydra":  # launchers and sweepers, which docs/sweeps.md and docs/search.md describe
        return
    page = hooks.knobs_page((ROOT / "docs" / "knobs.md").read_text())
    for file in (conf_dir() / folder).rglob("*.yaml"):
        name = file.relative_to(conf_dir() / folder).with_suffix("").as_posix()
        title = f"conf/base/{name}.yaml" if folder == "base" else f"{folder}={name}"
        assert f'"`{title}`"' in page


def test_what_a_knob_takes_is_said_with_its_range():
    kinds = dict(knobs())
    assert hooks.takes("seed", kinds["seed"]) == "an integer from 0 to 4294967295"
    assert hooks.takes("target_kl", kinds["target_kl"]) == "a number above 0, or null"
    assert hooks.takes("env.on_error", kinds["env.on_error"]) == "`stop`, `restart`"


@pytest.mark.parametrize("name", hooks.sources((ROOT / "docs" / "ppo.md").read_text()))
def test_what_unfolds_beside_an_equation_exists(name):
    _, source = hooks.source_of(name)
    assert f"{name.rpartition('.')[2]}" in source
    ast.parse(source)


def test_the_chapter_unfolds_every_step_of_the_algorithm():
    unfolded = set(hooks.sources((ROOT / "docs" / "ppo.md").read_text()))
    assert unfolded >= {
        "actor_critic.ActorCritic.__init__",
        "actor_critic.ActorCritic.forward",
        "trainer.Collector.collect",
        "agent.PPOAgent.update_ent_coef",
        "agent.PPOAgent.compute_gae",
        "advantages.gae",
        "losses.probability_ratio",
        "losses.clipped_policy_loss",
        "losses.value_loss",
        "distributions.Categorical.entropy",
        "losses.total_loss",
    }


def test_an_unknown_source_is_refused():
    with pytest.raises(LookupError, match=r"losses\.entropie"):
        hooks.source_of("losses.entropie")


@pytest.mark.parametrize(
    ("link", "page", "target"),
    [
        ("[a](../ppo_cli/envs/vector.py)", "ppo.md", "[a](api/envs/vector.md)"),
        ("[a](docs/metrics.md#losses)", "index.md", "[a](metrics.md#losses)"),
        ("[a](../conf/config.yaml)", "ppo.md", "[a](knobs.md)"),
        ("[a](../conf/env/Pong-v5.yaml)", "ppo.md", "[a](knobs.md#presets)"),
    ],
)
def test_links_into_the_repository_lead_to_pages(link, page, target):
    assert hooks.relink(link, page) == target


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('<script src="https://cdn.example/x.js"></script>', 1),
        ('<link rel="stylesheet" href="//fonts.example/css">', 1),
        ("@font-face { src: url(https://fonts.example/a.woff2) }", 1),
        ('<a href="https://arxiv.org">a</a><script src="assets/x.js"></script><img src="a.png">', 0),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(text, count):
    assert len(hooks.external_loads(text)) == count


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf"- [^:]+: {page.name}$", nav, re.MULTILINE), page.name


def test_the_recipes_command_lines_compose_and_their_environment_trains(ppo_train, tmp_path, monkeypatch):
    page = ROOT / "docs" / "recipes.md"
    files = [block for block in blocks(page, "python") if block.startswith("# reach/")]
    assert len(files) == 2
    for source in files:
        file = tmp_path / source.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    (preset,) = blocks(page, "yaml")
    (tmp_path / "mine" / "env").mkdir(parents=True)
    (tmp_path / "mine" / "env" / "reach:Reach-v0.yaml").write_text(preset)
    monkeypatch.syspath_prepend(tmp_path)
    lines = [line for line in commands(page) if "resume=" not in line and not line.endswith("\\")]
    assert all(compose(line) for line in lines)

    tiny = ("total_timesteps=128", "n_envs=2", "n_steps=32", "n_epochs=1", "eval.episodes=1", "compile=false")
    encoder = "+network.encoders.observation={name: reach.network.WayEncoder, scale: 2}"
    arguments = ("--config-dir", "mine", "env=reach:Reach-v0", "+env.kwargs.speed=0.2", encoder)
    outcome = ppo_train(*arguments, *tiny, "vectorization=sync")
    assert outcome.status == 0, outcome.err
    (folder,) = tmp_path.glob("outputs/reach-Reach-v0/*/")
    assert json.loads((folder / "eval.json").read_text())["steps"] == 128
    assert "gamma: 0.9\n" in (folder / "config.yaml").read_text()  # of the preset
