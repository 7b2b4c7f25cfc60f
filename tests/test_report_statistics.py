"""What ppo-report says in numbers, held against rliable, SciPy, statsmodels, and values found by hand."""

import csv
import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import logging as absl_logging
from rliable import library, metrics
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.nonparametric import rank_compare_2indep
from test_report import flat, grouped, ppo_report, sweep, write_run  # noqa: F401 - two are fixtures

from ppo_cli.report.aggregates import estimate_pooled
from ppo_cli.report.comparison import compare, cross_notes
from ppo_cli.report.groups import called, group_runs
from ppo_cli.report.rows import curve_rows
from ppo_cli.report.runs import FailedRun, find_runs, read_run
from ppo_cli.report.statistics import (
    ALL_EQUAL,
    FEWEST_FOR_IQM,
    FEWEST_SEEDS,
    TOO_FEW,
    estimate,
    estimate_improvement,
    improvements,
    probability_of_improvement,
    rank_test,
    smoothed,
)
from ppo_cli.report.tables import failed_table
from ppo_cli.runs.folder import identity, lock_run, note_failure, noted_failure
from ppo_cli.statistics import iqm

# rliable brings absl, whose handler holds pytest's stream and closes it when Hydra sets up logging anew.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

# Final returns of ten, eight, five and three seeds, with ties and one that is far out.
SCORES = {
    0.1: [212.4, 187.0, 500.0, 431.6, 95.2, 388.1, 274.9, 500.0, 146.3, 322.7],
    0.2: [500.0, 466.8, 500.0, 441.5, 489.3, 500.0, 477.2, 499.0],
    0.3: [98.0, 300.0, 98.0, 50.0, 12.25],
    0.4: [480.0, 490.0, 500.0],
}


def column(values):
    """Scores as rliable takes them: runs by tasks."""
    return np.array(values)[:, None]


@pytest.fixture
def rows(tmp_path, ppo_report):  # noqa: F811
    """The table.csv of a report on `SCORES`, by clip ratio."""
    for clip, finals in SCORES.items():
        for seed, final in enumerate(finals):
            returns = [final * share for share in (0.1, 0.4, 0.8, 1.0)]
            write_run(tmp_path / f"{clip}_{seed}", returns, final, clip_ratio=clip, seed=seed)
    assert ppo_report(tmp_path)[0] == 0
    with (tmp_path / "report" / "table.csv").open() as file:
        return dict(zip(SCORES, csv.DictReader(file), strict=True))


def test_the_tables_values_are_rliables(rows):
    base = column(SCORES[0.1])
    for clip, finals in SCORES.items():
        scores = column(finals)
        assert float(rows[clip]["iqm"]) == pytest.approx(metrics.aggregate_iqm(scores), rel=1e-12)
        assert float(rows[clip]["mean"]) == pytest.approx(metrics.aggregate_mean(scores), rel=1e-12)
        if clip != 0.1:
            better = metrics.probability_of_improvement(scores, base)
            assert float(rows[clip]["p_better"]) == pytest.approx(better, rel=1e-12)
        # linear between the four returns: trapezia of 0.25, 0.6 and 0.9 of the final one
        areas = column(finals) * np.mean([0.25, 0.6, 0.9])
        assert float(rows[clip]["auc"]) == pytest.approx(metrics.aggregate_iqm(areas), rel=1e-3)


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")  # in arch, of rliable
@pytest.mark.parametrize("clip", [0.1, pytest.param(0.2, marks=pytest.mark.slow)])
def test_the_tables_intervals_of_an_iqm_are_scipys_and_rliables_but_farther_out(rows, clip):
    finals = np.array(SCORES[clip])
    n = len(finals)
    level = 1 - 2 * stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
    low, high = float(rows[clip]["iqm_low"]), float(rows[clip]["iqm_high"])
    near = 0.04 * (high - low)  # all draw their resamples
    found = stats.bootstrap(
        (finals,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=50_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert (low, high) == (pytest.approx(found.low, abs=near), pytest.approx(found.high, abs=near))
    _, ends = library.get_interval_estimates(
        {"_": column(finals)},
        lambda x: np.array([metrics.aggregate_iqm(x)]),
        reps=20_000,
        confidence_interval_size=level,
        random_state=np.random.RandomState(0),
    )
    assert (low, high) == (pytest.approx(ends["_"][0, 0], abs=near), pytest.approx(ends["_"][1, 0], abs=near))


def test_groups_with_too_few_seeds_have_no_interval_in_the_table(rows):
    assert [bool(row["iqm_low"]) for row in rows.values()] == [True, True, False, False]
    assert [bool(row["auc_low"]) for row in rows.values()] == [True, True, False, False]
    assert [bool(row["p_better_low"]) for row in rows.values()] == [False, True, True, False]


def test_tests_and_their_correction_are_scipys_and_statsmodels():
    rng = np.random.default_rng(5)
    base = np.round(rng.normal(0, 1, 7), 1)
    groups = [np.round(rng.normal(shift, 1, 8), 1) for shift in (0.0, 0.5, 1.5, 2.5, 4.0)]
    found = improvements(groups, base)
    permutations = stats.PermutationMethod(n_resamples=10_000)  # all 6,435
    expected = [stats.mannwhitneyu(group, base, method=permutations).pvalue for group in groups]
    assert [one.p_value for one in found] == pytest.approx(expected)
    assert [one.stays for one in found] == list(multipletests(expected, 0.05, "holm")[0])
    assert len({one.stays for one in found}) == 2


def test_the_rank_test_is_scipys_exact_one_where_nothing_is_tied():
    rng = np.random.default_rng(6)
    for m, n in ((4, 4), (5, 9), (10, 10)):
        x, y = rng.normal(0.8, 1, m), rng.normal(0, 1, n)
        assert rank_test(x, y) == pytest.approx(stats.mannwhitneyu(x, y, method="exact").pvalue)


def newcombes_end(theta_hat, m, n, sign):
    """The end of Newcombe's interval, found on a grid."""
    theta = np.linspace(1e-6, 1 - 1e-6, 400_001)
    shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
    deviation = np.sqrt(theta * (1 - theta) * (1 + ((m + n) / 2 - 1) * shape) / (m * n))
    inside = theta[np.abs(theta_hat - theta) <= stats.norm.ppf(0.975) * deviation]
    return inside[0] if sign < 0 else inside[-1]


@pytest.mark.parametrize(("x", "y"), [(0.2, 0.1), (0.3, 0.1), (0.1, 0.2)])
def test_p_better_has_the_wider_of_newcombes_and_brunner_and_munzels_intervals(x, y):
    x, y = np.array(SCORES[x]), np.array(SCORES[y])
    found = estimate_improvement(x, y)
    other = rank_compare_2indep(x, y)
    low, high = other.conf_int()
    low = min(max(low, 0.0), newcombes_end(other.prob1, len(x), len(y), -1))
    high = max(min(high, 1.0), newcombes_end(other.prob1, len(x), len(y), 1))
    if rank_test(x, y) >= 0.05:
        low, high = min(low, 0.5), max(high, 0.5)
    assert float(found.value) == pytest.approx(other.prob1)
    assert (float(found.low), float(found.high)) == (
        pytest.approx(low, abs=1e-5),
        pytest.approx(high, abs=1e-5),
    )


def test_iqm_by_hand():
    assert iqm(np.array([100.0, 0.0, 6.0, 1.0, 5.0, 2.0, 4.0, 3.0])) == 3.5  # of 2, 3, 4, 5
    assert iqm(np.array([1.0, 2.0, 6.0])) == 3.0  # too few to cut any


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0])) == 0.5
    assert probability_of_improvement(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.5])) == 4 / 6


def test_no_interval_has_no_width():
    rng = np.random.default_rng(0)
    for seeds in range(FEWEST_SEEDS, 13):
        far, near = rng.normal(500, 1, seeds), rng.normal(0, 1, seeds)
        for x, y in ((far, near), (near, far), (np.full(seeds, 500.0), np.full(seeds, 500.0))):
            found = estimate_improvement(x, y)
            assert found.high - found.low > 0.1
    for seeds in range(FEWEST_FOR_IQM, 60):
        one_far = np.where(np.arange(seeds) == 0, 400.0, 500.0)
        found = estimate(one_far)
        assert found.low < found.high


def test_too_few_seeds_and_equal_ones_have_no_interval_and_say_why():
    few = estimate(np.arange(FEWEST_FOR_IQM - 1.0))
    assert (few.low, few.high, few.why) == (None, None, TOO_FEW)
    equal = estimate(np.full(20, 500.0))
    assert (equal.value, equal.low, equal.high, equal.why) == (500.0, None, None, ALL_EQUAL)
    curve = estimate(np.array([np.arange(10.0), np.full(10, 500.0)]))
    assert np.isfinite(curve.low).tolist() == [True, False]
    (one,) = improvements([np.arange(FEWEST_SEEDS - 1.0)], np.arange(9.0))
    assert (one.p_value, one.stays, one.estimate.why) == (None, None, TOO_FEW)


def test_where_no_outcome_could_stay_nothing_is_said():
    far, base = np.arange(5.0) + 100, np.arange(5.0)
    assert [one.stays for one in improvements([far] * 6, base)] == [True] * 6  # 2 of 252 orders, six times
    assert [one.stays for one in improvements([far] * 7, base)] == [None] * 7


def test_intervals_shrink_with_seeds():
    values = np.random.default_rng(3).normal(10.0, 2.0, 200)
    few, many = estimate(values[:8]), estimate(values)
    assert many.high - many.low < 0.3 * (few.high - few.low)
    one, two = (improvements([values[:n] + 1], values[-n:])[0].estimate for n in (8, 80))
    assert two.high - two.low < 0.5 * (one.high - one.low)


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")  # in arch, of rliable
def test_intervals_of_an_iqm_over_environments_are_rliables_but_farther_out():
    scores = np.random.default_rng(1).normal(0.6, 0.2, (10, 3))  # runs by tasks
    found = estimate_pooled(list(scores.T))
    _, ends = library.get_interval_estimates(
        {"_": scores},
        lambda drawn: np.array([metrics.aggregate_iqm(drawn)]),
        reps=20_000,
        confidence_interval_size=1 - 2 * stats.norm.cdf(-math.sqrt(10 / 9) * stats.t.ppf(0.975, 9)),
        random_state=np.random.RandomState(0),
    )
    near = 0.05 * (found.high - found.low)
    assert found.low == pytest.approx(ends["_"][0, 0], abs=near)
    assert found.high == pytest.approx(ends["_"][1, 0], abs=near)


# --- curves and the threshold


def test_the_curve_of_one_seed_reaches_the_threshold_where_the_table_says(tmp_path):
    rng = np.random.default_rng(2)
    write_run(tmp_path / "run", list(np.linspace(0, 100, 60) + rng.normal(0, 20, 60)))
    groups = grouped(tmp_path)[0]["CartPole-v1"]
    for smooth in (1, 5, 20):
        comparison = compare("CartPole-v1", groups, threshold=60.0, smooth=smooth)
        (summary,) = comparison.summaries
        curve = summary.curve
        first = curve.steps[np.flatnonzero(curve.returns.value >= 60.0)[0]]
        assert summary.reached[0] - 1_000 <= first <= summary.reached[0] + (curve.steps[1] - curve.steps[0])
        assert any(f"the last {smooth} logged returns" in note for note in comparison.notes())
    notes = compare("CartPole-v1", groups, threshold=60.0, smooth=50).notes()
    assert any("50 logged returns (of a run with few, half of them) average" in note for note in notes)


def test_smoothed_by_hand():
    assert smoothed(np.array([0.0, 2.0, 4.0, 6.0, 8.0]), 3).tolist() == [2.0, 4.0, 6.0]
    assert smoothed(np.array([0.0, 2.0, 4.0]), 5).tolist() == [1.0, 3.0]  # half of so few
    assert smoothed(np.array([7.0]), 5).tolist() == [7.0]
    assert smoothed(np.array([]), 5).tolist() == []


# --- names


def test_a_name_says_whether_a_knob_is_annealed(tmp_path):
    to_zero, constant = {"final": 0.0, "shape": "linear"}, {"final": None, "shape": "linear"}
    for clip, anneal in (
        (0.1, to_zero),
        (0.2, to_zero),
        (0.2, constant),
        (0.3, to_zero | {"shape": "cosine"}),
    ):
        run = tmp_path / f"{clip}_{anneal['final']}_{anneal['shape']}"
        write_run(run, [1.0, 2.0], clip_ratio=clip, anneal__clip_ratio=anneal)
    groups = grouped(tmp_path)[0]["CartPole-v1"]
    assert {group.name for group in groups} == {
        "clip_ratio=0.1→0.0", "clip_ratio=0.2→0.0", "clip_ratio=0.2", "clip_ratio=0.3→0.0 cosine",
    }  # fmt: skip
    assert [group.name for group in called("clip_ratio=0.1->0.0", groups)] == ["clip_ratio=0.1→0.0"]
    assert [group.knobs["clip_ratio"] for group in groups] == ["0.1", "0.2", "0.2", "0.3"]


def test_the_shape_of_no_annealing_makes_no_group(tmp_path):
    for seed, shape in enumerate(("linear", "cosine")):
        write_run(tmp_path / shape, [1.0], seed=seed, anneal__clip_ratio={"final": None, "shape": shape})
    assert [len(group.runs) for group in grouped(tmp_path)[0]["CartPole-v1"]] == [2]


def test_numbers_inside_values_are_ordered_as_numbers(tmp_path):
    for sizes in ([256, 256], [64, 64], [64], [1024]):
        write_run(tmp_path / str(sizes), [1.0], network__hidden_sizes=sizes)
    for envs in (16, 8):
        write_run(tmp_path / str(envs), [1.0], env_id="Acrobot-v1", n_envs=envs)
    groups, _ = grouped(tmp_path)
    names = [group.name.partition("=")[2] for group in groups["CartPole-v1"]]
    assert names == ["[64]", "[64,64]", "[256,256]", "[1024]"]
    assert [group.name for group in groups["Acrobot-v1"]] == ["n_envs=8", "n_envs=16"]


def test_a_knob_that_is_annealed_in_one_environment_alone_is_noted(tmp_path):
    for env_id, final in (("CartPole-v1", 0.0), ("Acrobot-v1", None)):
        for clip in (0.1, 0.2):
            annealing = {"final": final, "shape": "linear"}
            folder = tmp_path / f"{env_id}_{clip}"
            write_run(folder, [1.0, 2.0], env_id=env_id, clip_ratio=clip, anneal__clip_ratio=annealing)
    comparisons = [compare(env_id, groups) for env_id, groups in grouped(tmp_path)[0].items()]
    assert cross_notes(comparisons) == [
        "clip_ratio is not one knob in all environments: constant in Acrobot-v1; "
        "annealed (→0.0) in CartPole-v1."
    ]
    assert cross_notes(comparisons[:1]) == []


# --- failed runs


def failed(folder, returns, reason="RunError: the loss is nan", **knobs):
    """A run that failed after some iterations of twenty."""
    (write_run(folder, returns, total_timesteps=20_000, **knobs) / "failed.txt").write_text(
        f"{reason}\n\nmore"
    )
    if not returns:
        (folder / "metrics.csv").unlink()
    return folder


def test_three_failed_and_three_finished_runs_have_no_winner(tmp_path, ppo_report):  # noqa: F811
    for seed in range(3):
        write_run(tmp_path / f"whole{seed}", [10.0 * i for i in range(20)], 190.0, seed=seed, clip_ratio=0.1)
        failed(tmp_path / f"failed{seed}", [1.0] * 12, seed=seed, clip_ratio=0.2)
    status, out, err = ppo_report(tmp_path)
    assert (status, err) == (0, "")
    for seed in range(3):
        assert re.search(rf"\| clip_ratio=0\.2 +\| {seed} +\| 12,000 +\| RunError: the loss is nan", out)
    said = "Not compared with clip_ratio=0.1, since the runs' steps are not equal: clip_ratio=0.2."
    assert said in flat(out)
    whole, short = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"]).summaries
    assert (short.comparable, short.improvement) == (False, None)
    assert whole.area.value > short.area.value  # over the steps that they share


@pytest.mark.parametrize("seeds", [5, 10])
def test_a_group_in_which_runs_failed_is_not_compared(tmp_path, seeds):
    for seed in range(seeds):
        write_run(tmp_path / f"a{seed}", [1.0] * 20, 1.0, seed=seed, clip_ratio=0.1)
        write_run(tmp_path / f"b{seed}", [2.0] * 20, 9.0 + seed, seed=seed, clip_ratio=0.2)
    groups = grouped(tmp_path)[0]["CartPole-v1"]
    comparison = compare("CartPole-v1", groups)
    assert comparison.summaries[1].improvement.stays
    assert (
        "1 comparison with clip_ratio=0.1, exact rank tests, after Holm's correction these differ at the 5 % "
        "level: clip_ratio=0.2."
    ) in comparison.notes()
    failed(tmp_path / "early", [], seed=seeds, clip_ratio=0.2)
    comparison = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"])
    assert comparison.summaries[1].improvement is None
    ((name, run),) = comparison.failed
    assert (name, run.seed, run.reason) == ("clip_ratio=0.2", seeds, "RunError: the loss is nan")


@pytest.mark.parametrize(
    ("evaluated", "rows", "knobs", "why"),
    [
        (None, 20, {}, "final returns are not of one kind of evaluation or of training alone"),
        (9.0, 20, {"eval__deterministic": False}, "final returns are not of one kind"),
        (9.0, 40, {}, "runs' steps are not equal"),
    ],
)
def test_returns_of_unlike_kinds_or_budgets_have_no_winner(tmp_path, evaluated, rows, knobs, why):
    for seed in range(8):
        write_run(tmp_path / f"a{seed}", [1.0] * 20, 1.0 + seed / 10, seed=seed, clip_ratio=0.1)
        write_run(tmp_path / f"b{seed}", [9.0] * rows, evaluated, seed=seed, clip_ratio=0.2, **knobs)
    comparison = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"])
    assert [summary.improvement for summary in comparison.summaries] == [None, None]
    notes = " ".join(comparison.notes())
    assert re.search(rf"Not compared with [^:]*clip_ratio=0\.1[^:]*{why}[^:]*: [^;]*clip_ratio=0\.2", notes)
    assert "these differ" not in notes


def test_a_baseline_that_nothing_can_be_held_against_is_named_once(tmp_path):
    for seed in range(5):
        write_run(tmp_path / f"a{seed}", [1.0] * 20, 1.0, seed=seed, clip_ratio=0.1)
        write_run(tmp_path / f"b{seed}", [9.0] * 20, 9.0, seed=seed, clip_ratio=0.2)
    failed(tmp_path / "early", [], seed=9, clip_ratio=0.1)
    notes = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"]).notes()
    assert notes[0] == "None is compared with clip_ratio=0.1, whose own runs' steps are not equal."
    assert not any("Not compared" in note for note in notes)


def test_budgets_that_are_rounded_far_apart_are_said(tmp_path):
    write_run(tmp_path / "a", [1.0] * 20, 1.0, n_steps=64, total_timesteps=15_000)
    write_run(tmp_path / "b", [1.0] * 15, 1.0, n_steps=128, total_timesteps=15_000)
    notes = compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"]).notes()
    assert any(note.startswith("Finished runs trained for 15,000 to 20,000 steps") for note in notes)


def test_points_of_a_curve_without_an_interval_are_empty_cells(tmp_path):
    for seed in range(8):
        write_run(tmp_path / f"{seed}", [500.0] * 10 + [500.0 - seed] * 10, 500.0, seed=seed)
    rows = list(curve_rows([compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"])]))
    assert rows[0]["iqm_low"] is rows[0]["iqm_high"] is None
    assert rows[-1]["iqm_low"] < rows[-1]["iqm_high"]


def test_runs_that_failed_before_their_first_episode_are_listed_alone(tmp_path):
    failed(tmp_path / "none", [], seed=0)
    failed(tmp_path / "no_episode", [None, None], seed=1)
    runs = [read_run(folder) for folder in find_runs([tmp_path])]
    assert {(type(run), run.last_step) for run in runs} == {(FailedRun, 0), (FailedRun, 2_000)}
    comparison = compare("CartPole-v1", group_runs(runs)[0]["CartPole-v1"])
    assert comparison.summaries == ()
    assert comparison.notes() == []
    assert failed_table(comparison)[1:] == [
        ["CartPole-v1", "0", "0", "RunError: the loss is nan"],
        ["CartPole-v1", "1", "2,000", "RunError: the loss is nan"],
    ]


def test_a_status_is_what_the_folder_says(tmp_path):
    assert read_run(write_run(tmp_path / "whole", [1.0], 1.0)).status == "finished"
    going = write_run(tmp_path / "going", [1.0], total_timesteps=9_000)
    assert (read_run(going).status, read_run(going).held) == ("running", False)
    broken = read_run(failed(tmp_path / "failed", [1.0], "\x1b[2Jgone; `ppo-train resume=x` goes on"))
    assert (broken.status, broken.reason) == ("failed", "\\x1b[2Jgone")
    trial = write_run(tmp_path / "trial" / "seed=0", [1.0], total_timesteps=9_000)
    (tmp_path / "trial" / "failed.txt").write_text("seed=0: EnvError: gone\n")
    assert (read_run(trial).status, read_run(trial).reason) == ("failed", "EnvError: gone")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it can't be told")
def test_a_run_that_a_process_holds_is_being_run(tmp_path):
    going = write_run(tmp_path / "going", [1.0], total_timesteps=9_000)
    code = (
        "import sys; from pathlib import Path; from ppo_cli.report.runs import read_run; "
        "print(read_run(Path(sys.argv[1])).held)"
    )
    with lock_run(going):  # a process's own lock is none for itself
        other = subprocess.run(
            [sys.executable, "-c", code, going], capture_output=True, text=True, check=True
        )
    assert other.stdout == "True\n"
    assert not read_run(going).held


def test_a_run_that_fails_leaves_a_line_and_takes_it_away_again(tmp_path):
    with pytest.raises(RuntimeError), noted_failure(tmp_path):
        raise RuntimeError("CUDA\nis gone")
    assert (tmp_path / "failed.txt").read_text() == "CUDA is gone\n"
    with pytest.raises(KeyError), noted_failure(tmp_path):  # of an encoder of the user's, say
        raise KeyError("pixels")
    assert (tmp_path / "failed.txt").read_text() == "KeyError: 'pixels'\n"
    with noted_failure(tmp_path):
        assert not (tmp_path / "failed.txt").exists()


def test_a_note_of_failing_goes_into_no_folder_that_took_the_runs_place(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    own = identity(run)
    run.rename(tmp_path / "moved")
    note_failure(run, own, "gone\n")
    run.mkdir()
    note_failure(run, own, "another\n")
    assert not list(tmp_path.rglob("failed.txt"))


# --- an environment's own scalars


def test_own_scalars_are_read_and_hostile_ones_are_harmless(tmp_path):
    run = write_run(tmp_path / "run", [1.0] * 20)
    with (run / "metrics.csv").open(newline="") as file:
        header, *cells = csv.reader(file)
    names = [
        "info/is_success",
        "info/\x1b[2J",
        "info/twice",
        "info/twice",
        *(f"info/k{i}" for i in range(200)),
    ]
    values = [["" if i < 9 else str(i), "1e999", "1", "2", *["nan"] * 200] for i in range(20)]
    with (run / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header + names, *(a + b for a, b in zip(cells, values, strict=True))])
    found = read_run(run)
    assert len(found.infos) == 64
    assert "twice" not in found.infos
    assert all(key.isprintable() for key in found.infos)
    assert all(len(values) == len(found.logged_steps) for values in found.infos.values())
    assert found.final_info("is_success") == 18.5  # of 11 values the last tenth is two
    assert math.isnan(found.final_info("\\x1b[2J"))
    assert math.isnan(found.final_info("absent"))


# --- coverage


@pytest.mark.slow
def test_intervals_cover_and_alarms_are_rare(monkeypatch, capsys):
    folder = Path(__file__).parents[1] / "benchmarks"
    if not folder.is_dir():
        pytest.skip("benchmarks/ is not part of the source archive")
    monkeypatch.syspath_prepend(str(folder))
    intervals = importlib.import_module("intervals")
    repeats = 500
    tables = {
        "IQM: coverage in %": intervals.iqm_coverage(repeats),
        "P(better): coverage in %": intervals.better_coverage(repeats),
        "false alarms in %": intervals.false_alarms(repeats),
    }
    for title, rows in tables.items():
        found = list(rows)
        with capsys.disabled():
            print(f"\n{intervals.table(title, found)}")
        alarms = title.startswith("false")
        bound = 0.05 if alarms else 0.9
        error = 3 * math.sqrt(bound * (1 - bound) / repeats)  # of so many samples, with hundreds of cells
        for what, shares in found:
            given = [share for share in shares if share is not None]
            assert len(given) >= 3, what
            assert max(given) <= bound + error if alarms else min(given) >= bound - error, what
