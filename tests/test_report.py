"""ppo-report: synthetic run folders, and statistics held against values found by hand."""

import csv
import functools
import importlib.util
import json
import math
import os
import re
import sys

import pytest

from ppo_cli.cli.report import main
from ppo_cli.config.compose import load
from ppo_cli.config.convert import from_dict, save_yaml, to_dict
from ppo_cli.report.broken import BrokenRunError
from ppo_cli.report.comparison import compare
from ppo_cli.report.groups import group_runs
from ppo_cli.report.plots import draw
from ppo_cli.report.rows import run_rows
from ppo_cli.report.runs import find_runs, read_run
from ppo_cli.report.statistics import (
    mean_over_steps,
    steps_to_threshold,
)
from ppo_cli.runs.log import TAGS

STEP = 1_000  # environment steps of an iteration
BARS = ", bars: 95 % intervals"
HEADER = "step,charts/episodic_return,charts/SPS"


@functools.cache
def defaults(env_id):
    config = load(f"env={env_id}", "preset=none")
    return config


def write_run(folder, returns, evaluated=None, env_id="CartPole-v1", **knobs):
    """A run, one logged return an iteration (None: no episode ended); knobs' dots as two underscores."""
    folder.mkdir(parents=True)
    plain = to_dict(defaults(env_id)) | {"total_timesteps": len(returns) * STEP}
    for name, value in knobs.items():
        *sections, leaf = name.split("__")
        functools.reduce(dict.__getitem__, sections, plain)[leaf] = value
    save_yaml(from_dict(plain), folder / "config.yaml")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["iteration", "step", *TAGS])
        for i, value in enumerate(returns, start=1):
            row = {"charts/episodic_return": "" if value is None else value, "charts/SPS": 500.0}
            writer.writerow([i, i * STEP, *(row.get(tag, 0.0) for tag in TAGS)])
    if evaluated is not None:
        summary = {"mean": evaluated, "steps": len(returns) * STEP}
        (folder / "eval.json").write_text(json.dumps(summary))
    return folder


def flat(text):
    """A text without its line breaks, which are where the terminal's width asks for them."""
    return " ".join(text.split())


def grouped(root):
    """Groups of each environment below a folder."""
    return group_runs(map(read_run, find_runs([root])))


@pytest.fixture
def ppo_report(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ppo-report", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def sweep(tmp_path):
    """Three clip ratios with four seeds each: the larger, the better."""
    root = tmp_path / "sweep"
    for clip in (0.1, 0.2, 0.4):
        for seed in range(4):
            returns = [1_000 * clip * (1 - 0.8**i) + seed for i in range(20)]
            write_run(
                root / f"clip_ratio={clip},seed={seed}", returns, returns[-1], clip_ratio=clip, seed=seed
            )
    return root


# --- finding, reading, grouping


def test_groups_are_named_by_the_knobs_in_which_they_differ(tmp_path):
    for seed in (0, 1):
        for clip in (0.2, 0.1):
            write_run(tmp_path / f"{clip}_{seed}", [1.0], clip_ratio=clip, ent_coef=0.01, seed=seed)
    environments, left_out = grouped(tmp_path)
    groups = environments["CartPole-v1"]
    assert [group.name for group in groups] == ["clip_ratio=0.1", "clip_ratio=0.2"]
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1], [0, 1]]
    assert left_out == []


def test_numbers_are_ordered_as_numbers(tmp_path):
    for steps in (512, 64, 2048):
        write_run(tmp_path / str(steps), [1.0], n_steps=steps)
    assert [group.name for group in grouped(tmp_path)[0]["CartPole-v1"]] == [
        "n_steps=64", "n_steps=512", "n_steps=2048",
    ]  # fmt: skip


def test_how_a_run_is_run_makes_no_group(tmp_path):
    knobs = [
        {"threads": 2}, {"compile": False}, {"vectorization": "async"}, {"checkpoint__keep": 7},
        {"eval__episodes": 3}, {"env__timeout": 9.0}, {"device": "cpu"},
    ]  # fmt: skip
    for seed, changed in enumerate(knobs):
        write_run(tmp_path / str(seed), [1.0], seed=seed, **changed)
    (group,) = grouped(tmp_path)[0]["CartPole-v1"]
    assert group.name == "CartPole-v1"
    assert len(group.runs) == len(knobs)


def test_a_config_from_before_a_knob_is_one_with_its_default(tmp_path):
    younger = re.compile(r"^(objective|optimizer|extra_losses|hooks).*\n|^  gamma:\n(    .*\n)+", re.M)
    for seed, objective in enumerate(("clip", "clip", "spo")):
        write_run(tmp_path / str(seed), [1.0], seed=seed, objective=objective)
    config = tmp_path / "0" / "config.yaml"
    text, changes = younger.subn("", config.read_text())
    assert changes == 7
    config.write_text(text)
    old, new = grouped(tmp_path)[0]["CartPole-v1"]
    assert (old.name, [run.seed for run in old.runs]) == ("objective=clip", [0, 1])
    assert (new.name, [run.seed for run in new.runs]) == ("objective=spo", [2])


def test_a_list_of_mappings_is_named_as_it_is_typed(tmp_path):
    for seed, losses in enumerate(([], [{"name": "my.loss", "coef": 0.1}])):
        write_run(tmp_path / str(seed), [1.0], seed=seed, extra_losses=losses)
    groups = grouped(tmp_path)[0]["CartPole-v1"]
    assert [group.name for group in groups] == ["extra_losses=[]", "extra_losses=[{name:my.loss,coef:0.1}]"]


def test_hooks_of_ones_own_make_a_group_and_trackers_none(tmp_path):
    knobs = ([], [{"name": "wandb", "project": "x"}], [{"name": "my.Shaping"}, {"name": "wandb"}])
    for seed, hooks in enumerate(knobs):
        write_run(tmp_path / str(seed), [1.0], seed=seed, hooks=hooks)
    groups = grouped(tmp_path)[0]["CartPole-v1"]
    assert [(group.name, len(group.runs)) for group in groups] == [
        ("hooks=[]", 2), ("hooks=[{name:my.Shaping}]", 1),
    ]  # fmt: skip


def test_envpools_environments_are_others(tmp_path):
    for kind in ("sync", "async", "auto", "envpool"):
        write_run(tmp_path / kind, [1.0], vectorization=kind, seed=len(kind))
    groups = grouped(tmp_path)[0]["CartPole-v1"]
    assert [group.name for group in groups] == ["vectorization=auto", "vectorization=envpool"]


def test_environments_are_kept_apart(tmp_path):
    write_run(tmp_path / "a", [1.0])
    write_run(tmp_path / "b", [-90.0], env_id="Acrobot-v1")
    environments, _ = grouped(tmp_path)
    assert {env_id: [group.name for group in groups] for env_id, groups in environments.items()} == {
        "Acrobot-v1": ["Acrobot-v1"],
        "CartPole-v1": ["CartPole-v1"],
    }


def test_a_seed_counts_once(tmp_path):
    finished = write_run(tmp_path / "finished", [1.0, 2.0], 5.0)
    write_run(tmp_path / "again", [1.0, 2.0, 3.0], total_timesteps=2_000)
    environments, (line,) = grouped(tmp_path)
    assert [run.folder for run in environments["CartPole-v1"][0].runs] == [finished]
    assert line == f"{tmp_path / 'again'}: repeats seed 0 of {finished}"


def test_finds_a_run_a_sweep_and_all_outputs_each_run_once(tmp_path):
    run = write_run(tmp_path / "outputs" / "CartPole-v1" / "one", [1.0])
    write_run(tmp_path / "outputs" / "sweeps" / "now" / "seed=1", [1.0], seed=1)
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").write_text("seed: 0\n")
    assert list(find_runs([run])) == [run]
    assert len(list(find_runs([tmp_path, run, tmp_path / "outputs"]))) == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: (run / "config.yaml").unlink(), "it has no config.yaml"),
        (lambda run: (run / "config.yaml").write_text("env: [\n"), "config.yaml is no YAML"),
        (lambda run: (run / "config.yaml").write_text("a: 1\n"), "config.yaml is not that of a run"),
        (lambda run: (run / "config.yaml").write_text("env: {id: A-v0}\n"), "config.yaml has no seed"),
        (lambda run: (run / "metrics.csv").write_text(""), "metrics.csv is empty"),
        (lambda run: (run / "metrics.csv").write_text("a,b\n1,2\n"), "metrics.csv has no column step"),
        (
            lambda run: (run / "metrics.csv").write_text(f"{HEADER}\n1,x,2\n"),
            "metrics.csv is damaged in line 2",
        ),
        (
            lambda run: (run / "metrics.csv").write_text(f"{HEADER}\n"),
            "no iteration has ended yet",
        ),
        (
            lambda run: (run / "metrics.csv").write_text(f"{HEADER}\n9,,2\n"),
            "no episode has ended yet",
        ),
        (
            lambda run: (run / "metrics.csv").write_text(f"{HEADER}\n9,1,2\n9,1,2\n"),
            "the steps of metrics.csv do not rise",
        ),
        (
            lambda run: (run / "metrics.csv").write_text(f"{HEADER}\n9,inf,2\n"),
            "metrics.csv has an infinite charts/episodic_return",
        ),
        (lambda run: (run / "metrics.csv").write_bytes(b"\xff\xfe\n"), "metrics.csv is no text"),
        (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\n"), "config.yaml is no YAML"),
        (
            lambda run: (run / "config.yaml").write_text("env: {id: A-v0}\nseed: x\n"),
            "seed in config.yaml is no number: x",
        ),
        (lambda run: (run / "eval.json").write_text('{"mean": '), "eval.json is damaged"),
        (lambda run: (run / "eval.json").write_text("[1]"), "eval.json is damaged"),
        (lambda run: (run / "eval.json").write_bytes(b"\xff"), "eval.json is damaged"),
        (lambda run: (run / "eval.json").mkdir(), "eval.json: Is a directory"),
    ],
)  # fmt: skip
def test_a_broken_run_says_why(tmp_path, damage, reason):
    run = write_run(tmp_path / "run", [1.0])
    damage(run)
    with pytest.raises(BrokenRunError, match=f"^{re.escape(reason)}$"):
        read_run(run)


def test_a_broken_run_is_named_and_left_out(tmp_path, ppo_report):
    write_run(tmp_path / "good", [1.0], 1.0)
    (write_run(tmp_path / "broken", [1.0], seed=1) / "config.yaml").unlink()
    status, out, err = ppo_report(tmp_path)
    assert (status, err) == (0, f"ppo-report: left out {tmp_path / 'broken'}: it has no config.yaml\n")
    assert "1 (0)" in out


def test_links_are_followed_once_and_not_upwards(tmp_path):
    run = write_run(tmp_path / "elsewhere" / "run", [1.0])
    chosen = tmp_path / "all" / "chosen"
    other = write_run(chosen / "other", [1.0])
    for name, target in (("run", run), ("again", run), ("up", ".."), ("here", "."), ("gone", "nowhere")):
        (chosen / name).symlink_to(target)
    write_run(tmp_path / "all" / "not_asked_for", [1.0])
    assert sorted(path.resolve() for path in find_runs([chosen])) == [other, run]


def test_unlike_evaluations_are_said(tmp_path, ppo_report):
    write_run(tmp_path / "a", [1.0], 1.0)
    assert "of unlike" not in ppo_report(tmp_path)[1]
    write_run(tmp_path / "b", [1.0], 1.0, seed=1, eval__episodes=3, eval__deterministic=False)
    assert "of unlike evaluations: 20 deterministic episodes; 3 sampled episodes." in flat(
        ppo_report(tmp_path)[1]
    )


def test_a_run_that_ended_before_its_first_row_is_named(tmp_path):
    run = write_run(tmp_path / "early", [1.0])
    (run / "metrics.csv").unlink()
    (run / "train.log").touch()
    with pytest.raises(BrokenRunError, match=r"it has no metrics\.csv"):
        read_run(next(find_runs([tmp_path])))


def test_the_row_that_is_being_written_is_left_for_later(tmp_path):
    run = write_run(tmp_path / "run", [1.0, 2.0])
    with (run / "metrics.csv").open("a") as file:
        file.write("3,3000,7")
    assert read_run(run).last_step == 2_000


def test_the_final_return_is_the_evaluations_or_that_of_the_last_tenth(tmp_path):
    returns = [float(i) for i in range(1, 21)]
    assert read_run(write_run(tmp_path / "a", returns, 321.0)).final_return == 321.0
    assert read_run(write_run(tmp_path / "b", returns)).final_return == 19.5
    assert read_run(write_run(tmp_path / "c", [*returns, None, None])).final_return == 19.5


def test_an_evaluation_before_the_budget_grew_is_not_final(tmp_path):
    run = write_run(tmp_path / "run", [1.0, 2.0, 3.0])
    (run / "eval.json").write_text('{"mean": 9.0, "steps": 2000}')
    assert read_run(run).final_return == 3.0


# --- statistics


def test_area_under_the_curve_by_hand(tmp_path):
    run = read_run(write_run(tmp_path / "run", [0.0, None, 10.0, 10.0]))  # 0 at 1,000, rising to 10 at 3,000
    assert mean_over_steps(run, (1_000, 3_000)) == pytest.approx(5.0)
    assert mean_over_steps(run, (1_000, 4_000)) == pytest.approx(20 / 3, rel=1e-3)


def test_a_threshold_is_reached_by_five_returns_together(tmp_path):
    run = read_run(write_run(tmp_path / "run", [0.0, 99.0, 0.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0]))
    assert steps_to_threshold(run, 10.0) == 5_000  # 0, 99, 0, 10, 10
    assert steps_to_threshold(run, 25.0) == 5_000 + STEP  # 99, 0, 10, 10, 10
    assert steps_to_threshold(run, 30.0) == math.inf
    assert steps_to_threshold(run, 30.0, window=1) == 2_000


@pytest.mark.parametrize(("reached", "median"), [(1, math.inf), (2, math.inf), (3, 3_000)])
def test_a_threshold_that_half_the_runs_miss_has_no_median(tmp_path, reached, median):
    for seed in range(4):
        write_run(tmp_path / str(seed), [10.0 if seed < reached else 0.0] * 6, seed=seed)
    (summary,) = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"], threshold=10.0).summaries
    assert summary.median_steps == median


def test_a_curve_ends_where_the_shortest_run_does(tmp_path):
    write_run(tmp_path / "a", [0.0, 2.0, 4.0], seed=0, total_timesteps=5_000)
    write_run(tmp_path / "b", [2.0, 4.0, 6.0, 8.0, 9.0], seed=1, total_timesteps=5_000)
    comparison = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"], smooth=1)
    curve = comparison.summaries[0].curve
    assert (curve.steps[0], curve.steps[-1], curve.seeds) == (1_000, 3_000, 2)
    assert (curve.returns.value[0], curve.returns.value[-1]) == (1.0, 5.0)
    assert curve.returns.low is None
    assert comparison.notes()[0] == (
        "CartPole-v1: 1 of 2 runs (seed 0) still short of 5,000 steps; the shortest stands at 3,000, none "
        "being run now."
    )


def test_runs_without_ended_episodes_have_their_evaluation_alone(tmp_path, ppo_report):
    write_run(tmp_path / "run", [None, None], 7.0)
    status, out, _ = ppo_report(tmp_path, "--threshold", "5")
    assert status == 0
    assert re.search(r"\| +7\.00 \|", out)  # without an interval
    assert "not reached (0/1 runs)" in out


# --- the command


def test_a_sweep(sweep, ppo_report):
    status, out, err = ppo_report(sweep, "--threshold", 300)
    assert (status, err) == (0, "")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    first, _, third = (
        [cell for row in rows if row[:1] == [f"clip_ratio={clip}"] for cell in row[1:]]
        for clip in (0.1, 0.2, 0.4)
    )
    assert (first[0], first[2], third[2]) == ("4 (0-3)", "baseline", "1.00 [too few seeds to tell]")
    assert "steps: 20,000, final return from: evaluation" in out
    assert first[3] == "not reached (0/4 runs)"
    assert third[3].endswith("(4/4 runs)")
    assert out.rstrip().endswith(str(sweep / "report" / "report.html"))
    names = {path.name for path in (sweep / "report").iterdir()}
    kinds = ("learning_curves", "final_returns", "sensitivity", "sample_efficiency")
    figures = {f"CartPole-v1_{kind}.{suffix}" for kind in kinds for suffix in ("png", "svg", "pdf")}
    tables = {"table.csv", "table.tex", "curves.csv", "runs.csv"}
    assert names == figures | tables | {"report.md", "report.html"}


def test_the_page_needs_nothing_else(sweep, ppo_report):
    ppo_report(sweep)
    page = (sweep / "report" / "report.html").read_text()
    assert "://" not in page
    assert len(re.findall(r'src="data:image/svg\+xml;base64,', page)) == page.count("<img") == 3
    assert "clip_ratio=0.1" in page
    for image in re.findall(r"!\[.*?\]\((.*?)\)", (sweep / "report" / "report.md").read_text()):
        assert (sweep / "report" / image).is_file()


@pytest.mark.slow
def test_the_same_runs_give_the_same_report(sweep, ppo_report, tmp_path):
    ppo_report(sweep)
    ppo_report(sweep, "--out", tmp_path / "again")  # the first report lies among the runs
    for path in (sweep / "report").iterdir():
        once, again = path.read_bytes(), (tmp_path / "again" / path.name).read_bytes()
        if path.name == "report.html":  # says when and how it was made
            once, again = (re.sub(rb"(?s)<dl>.*?</dl>", b"", page) for page in (once, again))
        assert once == again, path.name


def test_the_csv_files_hold_the_numbers(sweep, ppo_report):
    ppo_report(sweep, "--baseline", "clip_ratio=0.4")
    with (sweep / "report" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["p_better"] for row in rows] == ["0.0", "0.0", ""]
    assert {row["baseline"] for row in rows} == {"clip_ratio=0.4"}
    assert all(row["iqm"] and not row["iqm_low"] and not row["p_better_low"] for row in rows)  # four seeds
    with (sweep / "report" / "curves.csv").open() as file:
        assert {row["group"] for row in csv.DictReader(file)} == {row["group"] for row in rows}
    with (sweep / "report" / "runs.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) == 12


def test_unfinished_runs_are_used_and_said_to_be(sweep, ppo_report):
    write_run(sweep / "going", [5.0] * 10, clip_ratio=0.1, seed=4, total_timesteps=20_000)
    _, out, _ = ppo_report(sweep)
    assert "5 (0-4)" in out
    assert "10,000 to 20,000" in out
    assert "4 evaluation, 1 training" in out
    assert "1 of 5 runs (seed 4) still short of 20,000 steps" in out


@pytest.mark.slow
def test_many_groups_and_two_knobs_are_drawn(tmp_path, ppo_report):
    for clip in (0.1, 0.2):
        for rate in (1e-4, 1e-3, 3e-3, 1e-2):
            write_run(tmp_path / f"{clip}_{rate}", [clip, 2 * clip], clip_ratio=clip, learning_rate=rate)
    status, _, err = ppo_report(tmp_path)
    assert (status, err) == (0, "")
    assert (tmp_path / "report" / "CartPole-v1_sensitivity.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: DIR; `ppo-report --help` lists the options"),
        (["nowhere"], "nowhere is no folder"),
        (["."], "no run to report in ."),
        *(
            (
                [".", "--threshold", typed],
                f"argument --threshold: expected a number or ENV=NUMBER, given '{typed}'; "
                "`ppo-report --help` lists the options",
            )
            for typed in ("high", "A=nan")
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, monkeypatch, ppo_report, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert ppo_report(*arguments) == (2, "", f"ppo-report: {line}\n")


@pytest.mark.slow
def test_each_environment_has_its_threshold(tmp_path, ppo_report, monkeypatch):
    write_run(tmp_path / "a", [100.0, 400.0, 450.0])
    write_run(tmp_path / "b", [-90.0, -80.0], env_id="Acrobot-v1")
    write_run(tmp_path / "c", [-900.0, -500.0, -200.0], env_id="Pendulum-v1")

    def thresholds(*arguments):
        status, out, _ = ppo_report(tmp_path, *arguments)
        assert status == 0
        return re.findall(r"steps to (\S+)", out)

    monkeypatch.setattr("ppo_cli.report.write.draw", lambda *_: {})  # figures take most of the time

    # Pendulum's is 90 % of the way from -700 to -350, means of two: Gymnasium calls nothing solved there
    assert thresholds() == ["-100", "475", "-385"]
    assert thresholds("--threshold", "7") == ["7", "7", "7"]
    assert thresholds("--threshold", "7", "--threshold", "CartPole-v1=300") == ["7", "300", "7"]
    assert thresholds("--threshold", "Pendulum-v1=-1e2") == ["-100", "475", "-100"]
    status, _, err = ppo_report(tmp_path, "--threshold", "CartPole=3")
    assert (status, err) == (
        2,
        "ppo-report: --threshold CartPole=: no run on CartPole; "
        "there are runs on Acrobot-v1, CartPole-v1, Pendulum-v1\n",
    )


def test_where_nothing_is_learned_there_is_no_threshold(tmp_path, ppo_report):
    write_run(tmp_path / "c", [-200.0, -500.0], env_id="Pendulum-v1")
    assert "steps to" not in ppo_report(tmp_path)[1]


@pytest.mark.parametrize(
    ("most", "barred", "title"),
    [
        (7, ["clip_ratio", "n_epochs"], BARS),
        pytest.param(2, ["n_epochs"], BARS, marks=pytest.mark.slow),
        (1, [], ""),
    ],
)
def test_the_sensitivity_plot_speaks_of_bars_where_it_has_any(tmp_path, monkeypatch, most, barred, title):
    monkeypatch.setattr("ppo_cli.report.figures.finals.MOST_TOGETHER", most)
    for clip in (0.1, 0.2):
        for epochs in (1, 2, 3):  # three lines over clip_ratio, two over n_epochs
            for seed in range(8):
                run = tmp_path / f"{clip}_{epochs}_{seed}"
                write_run(run, [clip, epochs + seed], clip_ratio=clip, n_epochs=epochs, seed=seed)
    figure = draw(compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"]))["sensitivity"]
    has = {axes.get_xlabel() for axes in figure.axes for line in axes.containers if line.has_yerr}
    assert has == set(barred)
    assert figure.get_suptitle() == f"CartPole-v1 · line: IQM, dots: seeds{title}"


def test_without_intervals_no_figure_speaks_of_them(tmp_path):
    for clip in (0.1, 0.2):
        write_run(tmp_path / f"{clip}", [clip, 2.0], clip_ratio=clip)
    ((_, groups),) = grouped(tmp_path)[0].items()
    figures = draw(compare("CartPole-v1", groups))
    assert figures["sensitivity"].get_suptitle() == "CartPole-v1"
    assert figures["learning_curves"].axes[0].get_title() == "CartPole-v1 · 1 seed"


def test_an_unknown_baseline_is_refused_with_the_names(sweep, ppo_report):
    status, _, err = ppo_report(sweep, "--baseline", "clip_ratio=0.3")
    assert status == 2
    assert err == (
        "ppo-report: --baseline clip_ratio=0.3: no such group; "
        "there are clip_ratio=0.1; clip_ratio=0.2; clip_ratio=0.4\n"
    )


def test_a_folder_that_can_not_be_written_is_said(sweep, ppo_report, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = ppo_report(sweep, "--out", tmp_path / "file")
    line = f"ppo-report: can't write to {tmp_path / 'file'}: File exists; --out DIR writes elsewhere\n"
    assert (status, err) == (2, line)


def test_without_the_extra_it_says_how_to_install_it(tmp_path, monkeypatch, ppo_report):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ppo_report(tmp_path) == (
        2, "", "ppo-report: scipy and matplotlib not found: pip install 'ppo-cli[report]'\n",
    )  # fmt: skip


# --- what others' folders may hold


def changed(run, **knobs):
    """Sets top-level knobs in a run's config.yaml, each as YAML."""
    text = (run / "config.yaml").read_text()
    for name, value in knobs.items():
        text = re.sub(rf"(?m)^{name}: .*$", lambda _, new=f"{name}: {value}": new, text)
    (run / "config.yaml").write_text(text)


def rows_of(*rows):
    return lambda run: (run / "metrics.csv").write_text("\n".join([HEADER, *rows, ""]))


def config_of(text):
    return lambda run: (run / "config.yaml").write_text(text)


def replaced(name, make):
    """Makes something else of a file."""

    def replace(run):
        (run / name).unlink(missing_ok=True)
        make(run / name)

    return replace


ALIASES = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcd", "bcde", strict=True)
)
SMALL = "env: {id: CartPole-v1}\nseed: 0\ntotal_timesteps: 9\n"
LEFT_OUT = [
    (rows_of("1e999,1,2"), "metrics.csv has a step beyond 9e+18"),
    (rows_of("1,1e308,2", "2,1e308,2"), "metrics.csv has a charts/episodic_return beyond 1e+100"),
    (rows_of("1,1,1e308"), "metrics.csv has a charts/SPS beyond 1e+100"),
    (rows_of("\0\0\0"), "metrics.csv is damaged in line 2"),
    (rows_of(f"1,{'9' * 200_000},2"), "metrics.csv is damaged in line 2"),
    (rows_of(f'1,"{"9" * 200_000}'), "metrics.csv is damaged in line 2"),
    (
        lambda run: (run / "metrics.csv").write_text(f"step,{HEADER}\n1,1,1,1\n"),
        "metrics.csv has the column step twice",
    ),
    (
        lambda run: os.truncate(run / "metrics.csv", 2**33),
        "metrics.csv is longer than 268,435,456 bytes, the most that is read of such a file",
    ),
    *(
        (replaced(name, os.mkfifo), f"{name} is no plain file, where one is expected")
        for name in ("metrics.csv", "config.yaml", "eval.json")
    ),
    *(
        (
            replaced(name, lambda path: path.symlink_to("/dev/zero")),
            f"{name} is no plain file, where one is expected",
        )
        for name in ("config.yaml", "eval.json")
    ),
    (
        replaced("config.yaml", lambda path: path.symlink_to(path)),
        "config.yaml: Too many levels of symbolic links",
    ),
    (replaced("config.yaml", lambda path: path.mkdir()), "config.yaml: Is a directory"),
    (config_of(ALIASES), "config.yaml is no YAML"),
    (config_of("env: &x {id: *x}\n"), "config.yaml is no YAML"),
    (config_of("[" * 100_000), "config.yaml is no YAML"),
    (config_of("\0" * 100), "config.yaml is no YAML"),
    (config_of("seed: 2001-99-99\n"), "config.yaml is no YAML"),
    (config_of("env: !!python/object:os.system {}\n"), "config.yaml is no YAML"),
    (config_of(f"{SMALL}seed: {'9' * 5_000}\n"), "config.yaml is no YAML"),
    (
        config_of(SMALL + "".join(f"k{i}: 1\n" for i in range(2_000))),
        "config.yaml has 2,003 values, more than any run's",
    ),
    (
        lambda run: changed(run, seed=f"0x{'f' * 300}"),
        f"seed in config.yaml is no number: {16**300 - 1}"[:80],
    ),
    (lambda run: changed(run, total_timesteps="1e999"), "total_timesteps in config.yaml is no number: 1e999"),
    (
        lambda run: (run / "eval.json").write_text('{"mean": 1e308, "steps": 1}'),
        "the mean of eval.json is beyond 1e+100",
    ),
    (lambda run: (run / "eval.json").write_text('{"mean": 1, "steps": 1e999}'), "eval.json is damaged"),
    (
        lambda run: (run / "eval.json").write_text('{"mean": 1, "mean": 2, "steps": 1}'),
        "eval.json is damaged",
    ),
    (lambda run: (run / "eval.json").write_text("[" * 100_000), "eval.json is damaged"),
]


def test_damaged_and_hostile_runs_are_a_line_each_and_end_no_report(tmp_path, ppo_report):
    write_run(tmp_path / "good", [1.0], 1.0)
    for number, (damage, _) in enumerate(LEFT_OUT):
        damage(write_run(tmp_path / f"bad{number:02}", [1.0], 1.0, seed=1))
    status, out, err = ppo_report(tmp_path)
    assert status == 0
    assert "1 (0)" in out
    lines = err.splitlines()
    assert len(lines) == len(LEFT_OUT)
    for number, (line, (_, said)) in enumerate(zip(lines, LEFT_OUT, strict=True)):
        assert line.startswith(f"ppo-report: left out {tmp_path / f'bad{number:02}'}: {said}")


@pytest.mark.parametrize(
    "value",
    [
        "$HOME_$x", r"'$\frac{$'", '"a\\nb\\e[2J\\0"', r'"\u202e"', "<script>alert(1)</script>", "'![x](http://e)'",
        f"'{'x' * 100_000}'", "1e308", "1e-320", "-0.0", "{a: {b: [1]}}", "null", "2001-01-01",
        "'日本語'", "'|'",
    ],
)  # fmt: skip
def test_an_odd_value_of_a_knob_is_shown_and_drawn_as_it_is(tmp_path, ppo_report, value):
    write_run(tmp_path / "good", [1.0, 2.0, 3.0], 1.0)
    for seed in (0, 1):
        changed(write_run(tmp_path / f"odd{seed}", [1.0, 2.0, 4.0], 1.0, seed=seed), clip_ratio=value)
    status, out, err = ppo_report(tmp_path)
    assert (status, err) == (0, "")
    assert "2 (0, 1)" in out
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    assert max(map(len, out.splitlines())) < 1_000
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script>" not in page
    text = (tmp_path / "report" / "report.md").read_text()
    assert not re.search(r"(?<!\\)<script|!\[x\]\(http", text)


def test_a_folder_that_can_not_be_read_is_a_line(tmp_path, ppo_report, monkeypatch):
    write_run(tmp_path / "good", [1.0], 1.0)
    (tmp_path / "closed\x1b[2J").mkdir()
    scan = os.scandir

    def refuse(path):
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    status, out, err = ppo_report(tmp_path)
    assert (status, err) == (0, f"ppo-report: left out {tmp_path}/closed\\x1b[2J: Permission denied\n")
    assert "1 (0)" in out


def test_names_of_folders_do_not_steer_the_terminal(tmp_path, ppo_report):
    write_run(tmp_path / "good", [1.0], 1.0)
    (write_run(tmp_path / "a\n\x1b[2Jb", [1.0], seed=1) / "config.yaml").unlink()
    os.rename(write_run(tmp_path / "c", [1.0], seed=2), os.fsencode(tmp_path) + b"/\xff\n")
    status, _, err = ppo_report(tmp_path)
    assert (status, err) == (0, f"ppo-report: left out {tmp_path}/a\\n\\x1b[2Jb: it has no config.yaml\n")
    assert r"/\udcff\n" in (tmp_path / "report" / "runs.csv").read_text()


def test_a_report_is_not_written_through_a_link(tmp_path, ppo_report):
    write_run(tmp_path / "runs" / "good", [1.0], 1.0)
    (tmp_path / "victim").mkdir()
    (tmp_path / "runs" / "report").symlink_to(tmp_path / "victim")
    status, _, err = ppo_report(tmp_path / "runs")
    assert status == 2
    assert err.endswith("report is a link, through which nothing is written; --out DIR writes elsewhere\n")
    assert list((tmp_path / "victim").iterdir()) == []
    (tmp_path / "runs" / "report").unlink()
    (tmp_path / "runs" / "report").mkdir()
    for name in ("report.html", "table.csv", "CartPole-v1_learning_curves.png"):
        (tmp_path / "runs" / "report" / name).symlink_to(tmp_path / "victim" / name)
    assert ppo_report(tmp_path / "runs")[0] == 0
    assert list((tmp_path / "victim").iterdir()) == []


@pytest.mark.slow
def test_a_run_with_hundreds_of_knobs_of_its_own_does_not_swamp_the_others(tmp_path, ppo_report):
    for clip in (0.1, 0.2):
        write_run(tmp_path / str(clip), [1.0, 2.0], 1.0, clip_ratio=clip)
    text = (write_run(tmp_path / "odd", [1.0, 2.0], 1.0) / "config.yaml").read_text()
    (tmp_path / "odd" / "config.yaml").write_text(text + "".join(f"k{i}: {i}\n" for i in range(900)))
    status, out, err = ppo_report(tmp_path)
    assert (status, err) == (0, "")
    assert "clip_ratio=0.1" in out
    assert max(map(len, out.splitlines())) < 1_000


def test_runs_that_are_not_exact_are_marked(tmp_path):
    write_run(tmp_path / "whole", [1, 2, 3], seed=0)
    cut = write_run(tmp_path / "cut", [1, 2, 3], seed=1) / "metrics.csv"
    header, *lines = cut.read_text().splitlines()
    place = header.split(",").index("charts/cut_episodes")
    cells = lines[-1].split(",")
    cells[place] = "16.0"
    cut.write_text("\n".join([header, *lines[:-1], ",".join(cells)]) + "\n")
    (groups,) = grouped(tmp_path)[0].values()
    comparison = compare("CartPole-v1", groups)
    assert any("1 of 2 runs (seed 1) went on after a stop with new episodes" in n for n in comparison.notes())
    assert [row["cut_episodes"] for row in run_rows([comparison])] == [0, 16]
