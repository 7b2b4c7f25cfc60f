"""Names that a user types for groups, and what a report says where they are not in every environment."""

import json

import numpy as np
import pytest
from test_report import grouped, write_run

from ppo_cli.report.aggregates import aggregate
from ppo_cli.report.choices import BY_IQM, ChoiceError, Choices, compare_groups
from ppo_cli.report.comparison import compare
from ppo_cli.report.figures.style import WIDTH, Style, drawing, legend, looks, panels
from ppo_cli.report.groups import group_runs
from ppo_cli.report.runs import find_runs, read_run
from ppo_cli.report.statistics import mean_over_steps
from ppo_cli.report.write import write_report

TO_ZERO = {"final": 0.0, "shape": "linear"}


@pytest.fixture
def annealed(tmp_path):
    """A constant clip ratio and an annealed one, which one environment has alone."""
    for seed in range(2):
        for env_id, clips in (("CartPole-v1", (0.1, 0.2)), ("Acrobot-v1", (0.3,))):
            for clip in clips:
                write_run(
                    tmp_path / f"{env_id}{clip}{seed}", [1.0, 2.0], env_id=env_id, seed=seed, clip_ratio=clip
                )
            write_run(
                tmp_path / f"{env_id}to0{seed}", [1.0, 3.0], env_id=env_id, seed=seed,
                clip_ratio=0.2, anneal__clip_ratio=TO_ZERO,
            )  # fmt: skip
    return grouped(tmp_path)[0]


def names(comparison):
    return [summary.group.name for summary in comparison.summaries]


def test_a_name_is_first_that_of_the_group_that_has_it(annealed):
    acrobot, cartpole = compare_groups(annealed, Choices(baseline="clip_ratio=0.2"))
    assert cartpole.baseline == "clip_ratio=0.2"
    assert acrobot.baseline == "clip_ratio=0.2→0.0"  # where no other has it, without the annealing
    _, cartpole = compare_groups(annealed, Choices(baseline="clip_ratio=0.2->0.0"))
    assert cartpole.baseline == "clip_ratio=0.2→0.0"
    acrobot, cartpole = compare_groups(annealed, Choices(labels=["clip_ratio=0.2=constant"]))
    assert names(cartpole) == ["clip_ratio=0.1", "clip_ratio=0.2→0.0", "constant"]
    assert names(acrobot) == ["constant", "clip_ratio=0.3"]
    orders = compare_groups(annealed, Choices(order="clip_ratio=0.3; clip_ratio=0.2"))
    assert [names(comparison)[0] for comparison in orders] == ["clip_ratio=0.3", "clip_ratio=0.2"]


def test_a_name_that_could_be_two_groups_is_refused(tmp_path):
    for shape in ("linear", "cosine"):
        write_run(tmp_path / shape, [1.0, 2.0], clip_ratio=0.2, anneal__clip_ratio=TO_ZERO | {"shape": shape})
    groups = grouped(tmp_path)[0]
    both = {"CartPole-v1": [*groups["CartPole-v1"]]}
    found = [group.name for group in both["CartPole-v1"]]
    with pytest.raises(ChoiceError, match="could be"):
        compare_groups(both, Choices(baseline=found[0].replace("→0.0", "").replace(" cosine", "")))


def test_a_baseline_that_an_environment_lacks_is_said(annealed, tmp_path):
    acrobot, cartpole = compare_groups(annealed, Choices(baseline="clip_ratio=0.3"))
    assert acrobot.baseline == "clip_ratio=0.3"
    assert cartpole.notes()[0] == (
        "The baseline is clip_ratio=0.1: no run of clip_ratio=0.3 here to hold the others against."
    )
    assert not any("The baseline is" in note for note in acrobot.notes())


def test_aggregates_are_against_the_baseline_of_the_environments_that_count(tmp_path):
    for env_id, clips in (
        ("Acrobot-v1", (0.1, 0.4)),
        ("CartPole-v1", (0.1, 0.2, 0.4)),
        ("Pendulum-v1", (0.1, 0.2, 0.4)),
    ):
        for clip in clips:
            for seed in range(2):
                write_run(
                    tmp_path / f"{env_id}{clip}{seed}",
                    [0.0, 10.0],
                    10 * clip,
                    env_id,
                    seed=seed,
                    clip_ratio=clip,
                )
    comparisons = compare_groups(grouped(tmp_path)[0], Choices(baseline="clip_ratio=0.2"))
    overall = aggregate(comparisons)
    assert overall.baseline == "clip_ratio=0.2"
    assert [group.name for group in overall.groups] == ["clip_ratio=0.1", "clip_ratio=0.2", "clip_ratio=0.4"]
    found = aggregate(compare_groups(grouped(tmp_path)[0], Choices(order=BY_IQM)), by_iqm=True).groups
    assert [group.name for group in found] == ["clip_ratio=0.4", "clip_ratio=0.2", "clip_ratio=0.1"]


def test_the_area_is_of_every_logged_return(tmp_path):
    spikes = [100.0 if i % 10 == 3 else 0.0 for i in range(991)]
    run = read_run(write_run(tmp_path / "run", spikes))
    assert mean_over_steps(run, (1_000, 991_000)) == pytest.approx(99 * 100 / 990)


@pytest.mark.parametrize(("first", "last"), [(10_000.0, 10_060.0), (1_232.0, 1_237.0), (1e-4, 5e-4)])
def test_a_derived_threshold_is_within_what_was_gained(tmp_path, first, last):
    write_run(tmp_path / "run", list(np.linspace(first, last, 200)), env_id="Pendulum-v1")
    comparison = compare("Pendulum-v1", grouped(tmp_path)[0]["Pendulum-v1"])
    assert (comparison.threshold - first) / (last - first) == pytest.approx(0.9, abs=0.01)
    assert np.isfinite(comparison.summaries[0].reached).all()
    assert f"{comparison.goal} is 90% of the way" in comparison.notes()[-1]
    assert float(comparison.goal) == comparison.threshold


def test_each_reason_of_an_early_end_is_counted(tmp_path):
    reasons = ["stop.return=475: 480.3 over 100 episodes", "stop.time=2h", "stop.time=2h"]
    for seed, why in enumerate(reasons):
        folder = write_run(tmp_path / str(seed), [1.0] * 20, 190.0, seed=seed, total_timesteps=100_000)
        (folder / "eval.json").write_text(json.dumps({"mean": 190.0, "steps": 20_000, "stopped": why}))
    notes = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"]).notes()
    assert (
        notes[0]
        == "CartPole-v1: 3 of 3 runs stopped at 20,000 steps: 1 by stop.return=475, 2 by stop.time=2h."
    )


@pytest.mark.parametrize("size", [None, (3.3, 2.4)])
def test_a_legend_is_no_wider_than_its_figure(size):
    found = [
        f"learning_rate={rate},gamma={gamma}" for rate in (0.0001, 0.0003, 0.001) for gamma in (0.9, 0.99)
    ]
    style = Style(size, 8.0)
    with drawing(style):
        figure, _ = panels(style, 1)
        legend(figure, style, looks(found))
        width = figure.legends[0].get_window_extent().width / figure.dpi
    assert width <= (size[0] if size else WIDTH)


def test_a_second_report_leaves_nothing_of_the_first(tmp_path):
    out, runs = tmp_path / "out", tmp_path / "runs"
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        for clip in (0.1, 0.2):
            write_run(runs / f"{env_id}{clip}", [0.0, 10.0], 10 * clip, env_id, clip_ratio=clip)

    def report(found):
        comparisons = [compare(env_id, groups) for env_id, groups in found.items()]
        stems = {env_id: env_id for env_id in found}
        write_report(out, comparisons, aggregate(comparisons), Style(), stems, {})

    environments, _ = group_runs(map(read_run, find_runs([runs])))
    out.mkdir()
    (out / "aggregates.csv").write_text("a user's")
    report({"CartPole-v1": environments["CartPole-v1"]})
    assert (out / "aggregates.csv").read_text() == "a user's"
    report(environments)
    assert (out / "aggregates.csv").read_text() != "a user's"
    (out / "mine.png").write_text("a user's")
    report({"CartPole-v1": environments["CartPole-v1"]})
    assert (out / "mine.png").exists()
    assert not (out / "aggregates.csv").exists()
    left = {path.name.partition("_")[0] for path in out.glob("*_*")}
    assert left == {"CartPole-v1"}
