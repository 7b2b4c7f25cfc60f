"""README.md and docs/ against the code: links, command lines, quotes, names and tags."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from ppo_cli.cli import evaluate, export, report
from ppo_cli.config.compose import compose_jobs, load
from ppo_cli.config.overrides import read_line
from ppo_cli.config.schema import KNOBS, conf_dir
from ppo_cli.errors import ConfigError
from ppo_cli.runs.log import EVAL_TAG, TAGS
from ppo_cli.sweeps.schema import OPTUNA, choose_sweeper
from ppo_cli.sweeps.search.plan import make_plan

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPEC = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
hooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hooks)
SEEDS = re.compile(r"^seed=range\([\d,]+\)$")
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
    """The jobs, or the axes of a search, of a line that starts with `ppo-train`; None of what only prints.

    Jobs that differ in their seed alone are composed once.
    """
    words, config_dir, multirun, overrides = iter(shlex.split(line, comments=True)[1:]), None, False, []
    for word in words:
        if word in ("--help", "--version", "--hydra-help", "--shell-completion", "-sc") or "resume=" in word:
            return None
        if word in ("--cfg", "--config-dir"):
            argument = next(words)
            config_dir = argument if word == "--config-dir" else config_dir
        elif word in ("-m", "--multirun"):
            multirun = True
        elif word != "--resolve":
            overrides.append(word)
    overrides = [SEEDS.sub("seed=0,1", override) for override in overrides]
    line = read_line(overrides)
    if multirun and OPTUNA in choose_sweeper(line.words):
        return make_plan(choose_sweeper(line.words), config_dir, "config").axes
    if multirun:
        first = [
            override.removesuffix(",1") if override == "seed=0,1" else override for override in overrides
        ]
        jobs = compose_jobs(read_line(first).overrides, config_dir, "config")
        return jobs if first == overrides else 2 * jobs
    return [(overrides, load(*overrides, config_dir=config_dir))]


def commands(page, program="ppo-train"):
    """Lines of a page's shell blocks that start with a program's name; continued ones are joined."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith(f"{program} ")]


def everywhere(program):
    """The same of all pages, each once, with the page that has it first."""
    first = {}
    for page in PAGES:
        for line in commands(page, program):
            first.setdefault(shlex.join(shlex.split(line, comments=True)), page)
    return [pytest.param(line, id=f"{page.name}: {line}") for line, page in first.items()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    for path, anchor in links(page):
        file = page.parent / path if path else page
        assert file.exists(), path
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{path}#{anchor}"


@pytest.mark.parametrize("line", everywhere("ppo-train"))
def test_every_command_line_composes(line):
    if "--config-dir" in line:  # of the reader's own files, with which tests/test_encoders.py runs it
        return
    jobs = compose(line)
    assert jobs is None or len(jobs) >= 1
    if jobs is not None and "-m" in shlex.split(line, comments=True):
        assert len(jobs) > 1


@pytest.mark.parametrize(
    ("program", "main"),
    [("ppo-eval", evaluate.main), ("ppo-report", report.main), ("ppo-export", export.main)],
)
def test_every_option_in_a_command_line_exists(program, main, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [program, "--help"])
    with pytest.raises(SystemExit):
        main()
    known = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
    lines = [line.values[0] for line in everywhere(program)]
    assert lines
    for line in lines:
        typed = {word.partition("=")[0] for word in shlex.split(line, comments=True) if word.startswith("--")}
        assert typed <= known, line


def pip_lines():
    """What follows `pip install` everywhere: in blocks, comments, tables and sentences."""
    return [
        pytest.param(rest, id=f"{page.name}: {rest}")
        for page in PAGES
        for rest in re.findall(r"pip install (.*?)[`\n]", page.read_text())
    ]


@pytest.mark.parametrize("rest", pip_lines())
def test_every_pip_line_carries_the_pins_and_names_extras_that_exist(rest):
    assert rest.startswith("-c constraints.txt ")
    text = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(r"^(\w+) = \[", text.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    for named in re.findall(r"\.\[([\w,]+)\]", rest):
        assert set(named.split(",")) <= set(extras)


def test_every_make_line_has_a_target():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [
        target for page in PAGES for target in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)`", page.read_text())
    ]
    named += [line.split()[1] for page in PAGES for line in commands(page, "make")]
    assert {"train", "test"} <= set(named) <= set(targets)


def test_make_train_ends_with_commands_that_exist():
    recipe = re.search(r"^train:.*?\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)[0]
    said = re.findall(r"echo ['\"]  (\S+ \S+)", recipe)
    assert said == [
        ". .venv/bin/activate",
        "ppo-report outputs",
        "ppo-eval '$${last%/checkpoints/last.pt}'",
        "tensorboard --logdir",
    ]
    assert ".[report,video]" in (ROOT / "Makefile").read_text()


def test_the_users_own_example_composes_and_runs_the_successor():
    assert "ppo-train env=LunarLander-v2 clip_ratio=0.1" in " ".join(commands(ROOT / "README.md"))
    ((_, config),) = compose("ppo-train env=LunarLander-v2 clip_ratio=0.1")
    ((_, successor),) = compose("ppo-train env=LunarLander-v3 clip_ratio=0.1")
    assert config.env.id == "LunarLander-v2"
    assert replace(config, env=successor.env) == successor


@pytest.mark.parametrize("image", sorted((ROOT / "docs" / "images").iterdir()), ids=lambda path: path.name)
def test_a_picture_is_shown_somewhere_small_and_described(image):
    shown = [
        text for page in PAGES for text in re.findall(rf"!\[(.*?)\]\([\w/.]*{image.name}\)", page.read_text())
    ]
    assert shown and all(len(text.split()) > 4 for text in shown)
    assert image.stat().st_size < 80_000


def test_the_readme_shows_a_learning_curve_and_a_landing_and_begins_with_what_runs():
    pictures = re.findall(r"!\[[^\]]+\]\((docs/images/[\w-]+\.png)\)", (ROOT / "README.md").read_text())
    assert pictures == ["docs/images/learning-curve.png", "docs/images/landing.png"]
    assert all((ROOT / picture).stat().st_size < 60_000 for picture in pictures)
    assert commands(ROOT / "README.md")[0] == "ppo-train env=LunarLander-v3"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_speaks_of_what_only_its_authors_know(page):
    assert not re.search(
        r"\bseed.document|\bthe document\b|\bthe bar\b|\(bars? ", page.read_text(), re.IGNORECASE
    )


def test_what_is_typed_for_others_habits_are_knobs():
    known = set(KNOBS) | {"env", "network", "resume", "sweep.resume", "experiment", "search"}
    text = FENCE.sub("", (ROOT / "docs" / "coming_from.md").read_text())
    cells = [row.split("|")[2] for row in text.splitlines() if row.startswith("|") and row.count("|") == 3]
    typed = [word for cell in cells for code in re.findall(r"`([^`]+)`", cell) for word in code.split()]
    keys = [word.strip("'").partition("=")[0] for word in typed if re.match(r"'?[\w.]+=", word)]
    assert len(keys) > 40
    for key in keys:
        assert key in known or key.startswith("hydra."), key


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
    known = set(KNOBS) | {key.rpartition(".")[0] for key in KNOBS}
    for path, attributes in re.findall(
        r"`((?:[a-z]+/)?[a-z_]+)\.(\w+(?:\.\w+)*)(?:\(\))?`", prose(ROOT / "docs" / name)
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
    named = {tag for tag in named if not tag.startswith("diagnostics/")}  # of which test_diagnostics.py knows
    assert named - {"time/diagnostics"} == {*TAGS, EVAL_TAG}


def test_every_knob_is_on_the_knob_page():
    page = hooks.knobs_page((ROOT / "docs" / "knobs.md").read_text())
    rows = re.findall(r"^\| \[`([\w.]+)`\]\S*\{ #\S+ \} \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(KNOBS)
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
    assert hooks.takes(KNOBS["seed"]) == "an integer from 0 to 4294967295"
    assert hooks.takes(KNOBS["target_kl"]) == "a number above 0, or null"
    assert hooks.takes(KNOBS["env.on_error"]) == "`stop`, `restart`"


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
        "collector.Collector.collect",
        "agent.PPOAgent.update_ent_coef",
        "agent.PPOAgent.compute_gae",
        "advantages.gae",
        "losses.probability_ratio",
        "objectives.clip",
        "losses.value_loss",
        "distributions/discrete.Categorical.entropy",
        "losses.total_loss",
    }


class Page:
    """What mkdocs hands to the hooks of a page."""

    def __init__(self, name):
        self.file, self.meta = type("File", (), {"src_uri": name}), {}


def test_the_search_ranks_prose_above_the_api():
    weights = {}
    for name in ("resume.md", "knobs.md", "api/agent.md"):
        page = Page(name)
        hooks.on_page_markdown("", page)
        weights[name] = page.meta.get("search", {}).get("boost", 1)
    assert weights["knobs.md"] > weights["resume.md"] > 100 * weights["api/agent.md"]


def test_the_search_works_from_a_folder_and_loads_nothing_from_elsewhere():
    config = (ROOT / "mkdocs.yml").read_text()
    (shim,) = re.findall(r"polyfills: \[(\S*iframe-worker\S*)\]", config)
    assert re.search(r"^  - offline\b", config, re.MULTILINE)
    assert "://" not in (ROOT / "docs" / shim).read_text()


def test_an_interval_and_a_ratio_stay_on_one_line():
    shown = hooks.on_page_content("<td>−71.2 [−72.1, −70.4]</td><td>3.29 × SB3</td>")
    assert shown == "<td>−71.2\u00a0[−72.1,\u00a0−70.4]</td><td>3.29\u00a0× SB3</td>"


def test_an_unknown_source_is_refused():
    with pytest.raises(LookupError, match=r"losses\.entropie"):
        hooks.source_of("losses.entropie")


@pytest.mark.parametrize(
    ("link", "page", "target"),
    [
        ("[a](../ppo_cli/envs/vector.py)", "ppo.md", "[a](api/envs/vector.md)"),
        ("[a](docs/metrics.md#losses)", "index.md", "[a](metrics.md#losses)"),
        ("[a](ppo_cli/distributions)", "index.md", "[a](api/distributions/base.md)"),
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


@pytest.mark.slow
def test_the_recipes_command_lines_compose_and_their_environment_trains(ppo_train, tmp_path, monkeypatch):
    page = ROOT / "docs" / "recipes.md"
    files = [block for block in blocks(page, "python") if block.startswith("# reach/")]
    assert len(files) == 3
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
    hook = "hooks=[{name: reach.hooks.StopWhenSolved, threshold: -1000, iterations: 2}]"
    arguments = ("--config-dir", "mine", "env=reach:Reach-v0", "+env.kwargs.speed=0.2", encoder, hook)
    outcome = ppo_train(*arguments, *tiny, "vectorization=sync")
    assert outcome.status == 0, outcome.err
    (folder,) = tmp_path.glob("outputs/reach-Reach-v0/*/")
    assert json.loads((folder / "eval.json").read_text())["steps"] == 128
    assert "solved/iterations" in (folder / "metrics.csv").read_text()
    assert "gamma: 0.9\n" in (folder / "config.yaml").read_text()  # of the preset


def test_the_quick_start_runs_as_it_stands(ppo_train, tmp_path, monkeypatch):
    tiny = ("total_timesteps=128", "n_envs=2", "n_steps=32", "n_epochs=1", "eval.episodes=2", "compile=false")
    runs, sweep = [], None
    page = ROOT / "docs" / "quickstart.md"
    for line in "".join(blocks(page, "sh")).splitlines():
        if not line.startswith("ppo-"):
            continue
        program, *words = shlex.split(line, comments=True)
        words = [
            word.replace("outputs/CartPole-v1/2026-01-31_12-00-00", str(runs and runs[0])) for word in words
        ]
        words = [word.replace("outputs/sweeps/2026-01-31_12-00-00", str(sweep)) for word in words]
        if program == "ppo-train":
            more = ("total_timesteps=256",) if words[0].startswith("resume=") else tiny
            words = [word.replace("range(5)", "range(2)") for word in words]
            outcome = ppo_train(*words, *(() if "--help" in words else more), "vectorization=sync")
            assert outcome.status == 0, outcome.err
            runs = sorted(tmp_path.glob("outputs/CartPole-v1/*"))
            sweep = next(iter(tmp_path.glob("outputs/sweeps/*")), None)
        else:
            monkeypatch.setattr("sys.argv", [program, *words])
            with pytest.raises(SystemExit) as ended:
                {"ppo-eval": evaluate.main, "ppo-report": report.main}[program]()
            assert not ended.value.code
    assert (sweep / "report" / "report.html").is_file()


@pytest.mark.slow
def test_the_recipe_to_fine_tune_runs_as_it_stands(ppo_train, tmp_path):
    tiny = ("total_timesteps=64", "n_envs=2", "n_steps=32", "n_epochs=1", "eval.episodes=1", "compile=false")
    text = (ROOT / "docs" / "recipes.md").read_text().partition("## Fine-tune\n")[2].partition("\n## ")[0]
    lines = [line for block in FENCE.findall(text) for line in block[1].splitlines()]
    assert len(lines) > 5 and all(line.startswith("ppo-train ") for line in lines)
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    stable_baselines3.PPO("MlpPolicy", "CartPole-v1").save(tmp_path / "ppo_cartpole.zip")
    for line in lines:
        words = [word.replace("range(5)", "range(2)") for word in shlex.split(line)[1:]]
        outcome = ppo_train(*words, *tiny, "vectorization=sync")
        assert outcome.status == 0, outcome.err
        begins = "init_from" in line and "-m" not in words
        assert ("begins with " in outcome.out) or not begins
    partial, frozen = "policy_head.weight is there alone", "frozen: trunk"
    logs = "".join(path.read_text() for path in (tmp_path / "outputs").rglob("train.log"))
    assert partial in logs and frozen in logs


RESEARCH = (
    "Let the critic see more",
    "A learning rate that follows the KL",
    "Learn values of any scale",
    "Choose a policy for Box actions",
    "Explore a sparse task",
    "See why a setting fails",
)


@pytest.mark.slow
@pytest.mark.parametrize("title", RESEARCH)
def test_a_recipe_of_what_researchers_reach_for_runs_as_it_stands(title, ppo_train, tmp_path, monkeypatch):
    tiny = ("total_timesteps=64", "n_envs=2", "n_steps=32", "n_epochs=1", "eval.episodes=1", "compile=false")
    text = (ROOT / "docs" / "recipes.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    for language, block in FENCE.findall(text):
        if language == "python":
            (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    lines = "".join(block for language, block in FENCE.findall(text) if language == "sh")
    typed = [line for line in lines.replace("\\\n", " ").splitlines() if line.startswith("ppo-train ")]
    assert typed
    for line in typed:
        words = [word.replace("range(10)", "range(1)") for word in shlex.split(line, comments=True)[1:]]
        outcome = ppo_train(*words, *tiny, "vectorization=sync")
        assert outcome.status == 0, outcome.err


def test_the_readme_leads_to_each_recipe_of_what_researchers_reach_for():
    text = (
        (ROOT / "README.md").read_text().partition("## What researchers reach for\n")[2].partition("\n## ")[0]
    )
    linked = re.findall(r"\(docs/recipes\.md#([\w-]+)\)", text)
    slugs = [title.lower().replace(" ", "-") for title in RESEARCH]
    assert set(linked) == {*slugs, "fine-tune", "stop-when-it-is-good-enough"}
    for key in re.findall(r"`([\w.]+)=", text):
        assert key in {*KNOBS, "network"}, key
