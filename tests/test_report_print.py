"""ppo-report in print: figures, tables that fit, LaTeX, aggregates over environments, and choices."""

import contextlib
import csv
import io
import math
import re
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rliable import metrics
from test_report import flat, grouped, ppo_report, write_run  # noqa: F401 - a fixture

from ppo_cli.cli.report import main
from ppo_cli.report.aggregates import (
    aggregate,
    estimate_pooled,
    estimate_profile,
    improvement_over_tasks,
    mean_improvement,
    median_of_means,
    optimality_gap,
    performance_profile,
    pooled_iqm,
    pooled_mean,
    scale_of,
)
from ppo_cli.report.comparison import compare
from ppo_cli.report.figures.finals import _readable
from ppo_cli.report.figures.style import Style, looks
from ppo_cli.report.latex import escape, tabular
from ppo_cli.report.names import keyed, shortened
from ppo_cli.report.plots import draw, draw_all
from ppo_cli.report.statistics import ALL_EQUAL, TOO_FEW
from ppo_cli.report.tables import aligned, continued, escaped, fitted

ENVS = {"CartPole-v1": (20.0, 500.0), "Acrobot-v1": (-500.0, -80.0)}
WHY = "RunError: the loss is nan after " + "many " * 30 + "steps"


def learned(folder, env_id, clip, seed, **knobs):
    """A run whose returns rise to what its clip ratio and its seed say."""
    low, high = ENVS[env_id]
    top = low + (high - low) * (1 - clip) * (1 - 0.01 * seed)
    returns = [low + (top - low) * (1 - 0.6**i) for i in range(12)]
    return write_run(folder, returns, top, env_id=env_id, clip_ratio=clip, seed=seed, **knobs)


def with_infos(run, **infos):
    """Adds columns to a run's metrics.csv, each a function of the row's number."""
    with (run / "metrics.csv").open() as file:
        header, *rows = csv.reader(file)
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, *(f"info/{key}" for key in infos)])
        writer.writerows([*row, *(value(i) for value in infos.values())] for i, row in enumerate(rows))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three clip ratios on two environments with three seeds, and a run that failed."""
    root = tmp_path_factory.mktemp("study")
    for env_id in ENVS:
        for clip in (0.1, 0.2, 0.4):
            for seed in range(3):
                run = learned(root / f"{env_id},{clip},{seed}", env_id, clip, seed)
                if env_id == "CartPole-v1":
                    with_infos(run, is_success=lambda i: i / 10, reward_forward=lambda i: 2.0)
    lost = write_run(root / "lost", [None], clip_ratio=0.1, seed=9, total_timesteps=12_000)
    (lost / "failed.txt").write_text(WHY)
    return root


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    """The report's folder and what was printed, with all that can be chosen."""
    out = tmp_path_factory.mktemp("out")
    typed = [
        "--labels", "clip_ratio=0.1=small=best", "--order", "clip_ratio=0.4; small=best", "--size", "3.3x2.4",
        "--font-size", "7", "--smooth", "3", "--normalize", "Acrobot-v1=-500,-100",
        "--baseline", "clip_ratio=0.2",
    ]  # fmt: skip
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["ppo-report", str(study), "--out", str(out), *typed])
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return out, printed.getvalue()


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def comparisons_of(root, **options):
    return [compare(env_id, groups, **options) for env_id, groups in grouped(root)[0].items()]


# --- names and tables that fit


def test_names_lose_what_is_shared_and_never_a_value():
    names = [
        f"network.hidden_sizes=[{n},{n}],network.activation=tanh,clip_ratio={c}"
        for n in (64, 256)
        for c in (1, 2)
    ]
    for width in (80, 60, 50):
        short = shortened(names, width)
        assert max(map(len, short)) <= width
        assert len(set(short)) == 4
        assert all(
            f"[{n},{n}]" in name and name.endswith(f"={c}")
            for name, n, c in zip(short, (64, 64, 256, 256), (1, 2, 1, 2), strict=True)
        )


def test_names_without_knobs_lose_their_common_beginning_up_to_a_word():
    assert shortened(["a very long beginning, run 10", "a very long beginning, run 12"], 12) == [
        "…10",
        "…12",
    ]


def test_names_that_can_not_fit_are_numbered_and_have_a_key():
    names = [f"learning_rate=0.000{i},minibatch_size=6{i},n_steps=204{i},n_epochs={i}" for i in range(3)]
    short, key = keyed(names, 20)
    assert [len(name) <= 20 and name.startswith(f"#{i + 1} ") for i, name in enumerate(short)] == [True] * 3
    assert key == [f"#{i + 1}: {name}" for i, name in enumerate(names)]


def test_names_that_fit_stay():
    assert keyed(["clip_ratio=0.1", "clip_ratio=0.2"], 14) == (["clip_ratio=0.1", "clip_ratio=0.2"], [])


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_wide_table_becomes_several_that_fit(width):
    rows = [
        ["group", *(f"column {i}" for i in range(9))],
        *([f"clip_ratio=0.{r}", *["312.4 [300.1, 330.0]"] * 9] for r in (1, 2)),
    ]
    blocks = fitted(rows, width).blocks
    assert max(len(line) for block in blocks for line in aligned(block).splitlines()) <= width
    assert [name for block in blocks for name in block[0][1:]] == rows[0][1:]
    assert {row[0] for block in blocks for row in block[1:]} == {"clip_ratio=0.1", "clip_ratio=0.2"}


def test_a_long_last_column_goes_on_in_further_rows():
    rows = continued([["group", "reason"], ["a", WHY]], 60)
    assert max(map(len, aligned(rows, left=(0, 1)).splitlines())) <= 60
    assert " ".join(row[1] for row in rows[1:]) == WHY
    assert [row[0] for row in rows[1:]] == ["a", *[""] * (len(rows) - 2)]


def test_columns_of_wide_letters_line_up():
    from rich.cells import cell_len

    lines = aligned([["group", "IQM"], ["日本語", "1"], ["abc", "10"]]).splitlines()
    assert len(set(map(cell_len, lines))) == 1


# --- LaTeX


def test_latex_has_no_letter_that_means_something():
    plain = escape(r"a_b & 5% of $x^2 #1 {y} ~ \z <i> | [64,64] * → ε … 日")
    assert plain == (
        r"a\_b \& 5\% of \$x\textasciicircum{}2 \#1 \{y\} \textasciitilde{} \textbackslash{}z "
        r"\textless{}i\textgreater{} \textbar{} {[}64,64{]} {*} $\to$ $\varepsilon$ \ldots{} U+65E5"
    )
    assert escape("-12.5 [-20.0, 3-4]") == "$-$12.5 {[}$-$20.0, 3-4{]}"


def test_a_latex_table_has_booktabs_rules_and_equally_many_cells():
    lines = tabular([["group", "IQM"], ["[64]&", "1.0"]]).splitlines()
    assert lines == [
        r"\begin{tabular}{lr}", r"\toprule", r"group & IQM \\", r"\midrule", r"{[}64{]}\& & 1.0 \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


# --- aggregates over environments

RNG = np.random.default_rng(5)
X, Y = RNG.normal(0.6, 0.4, (10, 7)), RNG.normal(0.5, 0.4, (9, 7))  # rliable's [runs, tasks]
X[3:6] = X[0]  # equal ones


def test_aggregates_are_rliables():
    x, y = list(X.T), list(Y.T)
    assert pooled_iqm(x) == pytest.approx(metrics.aggregate_iqm(X))
    assert pooled_iqm(y) == pytest.approx(metrics.aggregate_iqm(Y))
    assert pooled_mean(x) == pytest.approx(metrics.aggregate_mean(X))
    assert median_of_means(x) == pytest.approx(metrics.aggregate_median(X))
    assert optimality_gap(x) == pytest.approx(metrics.aggregate_optimality_gap(X))
    assert mean_improvement(x, y) == pytest.approx(metrics.probability_of_improvement(X, Y))
    taus = np.array([0.0, 0.5, 1.0])
    assert performance_profile(x, taus) == pytest.approx([np.mean(tau < X) for tau in taus])


def test_one_far_seed_among_equal_ones_is_not_called_equal_and_has_a_width():
    scores = [np.array([0.1, *[1.0] * 9]), np.ones(10)]
    assert estimate_pooled(scores).low < estimate_pooled(scores).high
    assert estimate_pooled(scores[1:] * 2).why == ALL_EQUAL


def test_a_profile_has_a_width_where_all_runs_or_none_are_above():
    profile = estimate_profile([np.ones(8)] * 2, np.array([0.5, 2.0]))
    assert profile.value == pytest.approx([1.0, 0.0])
    of_one = 0.025 ** (1 / 8)  # Clopper and Pearson's lower end of 8 of 8
    assert profile.low == pytest.approx([1 - (1 - of_one) / math.sqrt(2), 0.0])
    assert profile.high == pytest.approx([1.0, (1 - of_one) / math.sqrt(2)])
    assert estimate_profile([np.ones(8), np.ones(4)], np.array([0.5])).why == TOO_FEW


def test_resamples_are_rows_of_aggregates():
    drawn = [np.stack([column, column[::-1] + 1]) for column in X.T]
    for statistic in (pooled_iqm, pooled_mean, median_of_means, optimality_gap):
        assert statistic(drawn) == pytest.approx(np.array([statistic(list(X.T)), statistic(list(X.T + 1))]))


def test_environments_weigh_the_same_whatever_their_seeds():
    easy, hard = np.full(9, 1.0), np.full(3, 0.0)
    assert pooled_iqm([easy, hard]) == pytest.approx(0.5)
    assert optimality_gap([easy, hard]) == pytest.approx(0.5)
    assert performance_profile([easy, hard], np.array([0.5])) == pytest.approx([0.5])


def test_an_improvement_over_environments_has_a_width_and_shrinks_with_their_number():
    apart = np.arange(6.0) + 10, np.arange(6.0)
    one, four = (improvement_over_tasks([apart[0]] * n, [apart[1]] * n) for n in (1, 4))
    assert one.value == four.value == 1.0
    assert one.low < four.low < 1.0
    assert improvement_over_tasks([apart[0][:3]], [apart[1]]).low is None


def test_scores_are_0_at_the_start_and_1_at_the_threshold(tmp_path):
    write_run(tmp_path / "a", [10.0, 100.0, 250.0], 250.0)
    (comparison,) = comparisons_of(tmp_path, threshold=410.0)
    scale = scale_of(comparison)
    assert (scale.low, scale.high) == (10.0, 410.0)
    assert scale.scores(np.array([10.0, 210.0, 410.0])).tolist() == [0.0, 0.5, 1.0]
    (comparison,) = comparisons_of(
        tmp_path
    )  # a threshold that is taken from the runs is none that counts as solved
    assert scale_of(comparison).high == 250.0
    assert scale_of(comparison, (0.0, 500.0)).scores(np.array([250.0])) == 0.5


def test_only_what_all_have_is_aggregated(tmp_path):
    for env_id in ENVS:
        for clip in (0.1, 0.2):
            learned(tmp_path / f"{env_id}{clip}", env_id, clip, 0)
    comparisons = comparisons_of(tmp_path)
    assert [group.runs for group in aggregate(comparisons).groups] == [2, 2]
    learned(tmp_path / "more", "CartPole-v1", 0.4, 0)
    overall = aggregate(comparisons_of(tmp_path))
    assert overall.groups == ()
    assert "Acrobot-v1, without a run of clip_ratio=0.4." in overall.notes()[0]
    for env_id in ("MountainCar-v0", "Pendulum-v1"):
        write_run(tmp_path / env_id, [-200.0, -150.0], -150.0, env_id=env_id, clip_ratio=0.4)
    others = [note for note in aggregate(comparisons_of(tmp_path)).notes() if "MountainCar-v0" in note]
    assert len(others) == 1 and "MountainCar-v0, Pendulum-v1, without a run of" in others[0]
    assert aggregate(comparisons[:1]) is None


def test_where_nothing_was_learned_there_is_no_scale_unless_one_is_given(tmp_path):
    for env_id in ENVS:
        learned(tmp_path / env_id, env_id, 0.1, 0)
    write_run(tmp_path / "worse", [-200.0, -900.0], -900.0, env_id="Pendulum-v1")
    comparisons = comparisons_of(tmp_path)
    assert len(aggregate(comparisons).scales) == 2
    assert any("--normalize Pendulum-v1=LOW,HIGH" in note for note in aggregate(comparisons).notes())
    assert len(aggregate(comparisons, {"Pendulum-v1": (-1600.0, -100.0)}).scales) == 3


# --- figures


def test_groups_differ_in_grey_too():
    entries = list(looks([str(i) for i in range(35)]).values())
    assert len({(look.colour, str(look.dashes)) for look in entries}) == 35
    assert len({str(look.dashes) for look in entries[:5]}) == len({look.marker for look in entries[:5]}) == 5


def test_figures_say_threshold_smoothing_and_statistic(study):
    cartpole = next(
        one for one in comparisons_of(study, threshold=475.0, smooth=3) if one.env_id == "CartPole-v1"
    )
    figures = draw(cartpole)
    (axes,) = figures["learning_curves"].axes
    assert [text.get_text() for text in axes.texts] == ["threshold: 475"]
    assert axes.get_xlabel() == "environment steps · mean of last 3 logged"
    assert axes.get_ylabel() == "training return, mean of seeds"  # of three seeds an IQM leaves none out
    assert "sample_efficiency" not in figures  # nobody got there
    dots = [line for line in figures["final_returns"].axes[0].lines if len(line.get_xdata()) == 3]
    assert len(dots) == 3
    assert [axes.get_title() for axes in figures["info"].axes] == ["is_success", "reward_forward"]


def test_figures_say_where_seeds_are_too_few_for_an_interval(study):
    comparisons = comparisons_of(study)
    for kind in ("learning_curves", "final_returns", "sensitivity"):
        figure = draw(comparisons[0])[kind]
        titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        assert "8" in " ".join(titles), kind
    overall = aggregate(comparisons)
    assert "Not in the aggregates: clip_ratio=0.1, steps not equal." in overall.notes()  # a run of it failed
    assert [group.name for group in overall.groups] == ["clip_ratio=0.2", "clip_ratio=0.4"]
    title = draw_all(comparisons, overall)["aggregates"].get_suptitle()
    assert title == "2 environments, normalised scores · no interval below 8 seeds"


def test_a_title_names_what_has_intervals(tmp_path):
    for env_id in ENVS:
        for clip in (0.1, 0.2):
            for seed in range(5):
                learned(tmp_path / f"{env_id}{clip}{seed}", env_id, clip, seed)
    comparisons = comparisons_of(tmp_path)
    title = draw_all(comparisons, aggregate(comparisons))["aggregates"].get_suptitle()
    assert "95 % intervals: profile, P(better) · no interval below 8 seeds" in flat(title)


def test_the_sensitivity_plot_names_an_annealing_as_the_table_does(tmp_path):
    for place, (clip, final) in enumerate([(0.1, None), (0.2, None), (0.1, 0.0), (0.2, 0.0), (0.2, 0.05)]):
        learned(tmp_path / f"{place}", "CartPole-v1", clip, 0, anneal__clip_ratio__final=final)
    figure = draw(comparisons_of(tmp_path)[0])["sensitivity"]
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert set(texts) == {
        "clip_ratio constant",
        "clip_ratio→0.0",
        "clip_ratio→0.05",
        "clip_ratio=0.1,anneal.clip_ratio.shape=linear",
        "clip_ratio=0.2,anneal.clip_ratio.shape=linear",
    }


def test_a_knob_with_one_value_in_every_setting_is_not_drawn(tmp_path):
    learned(tmp_path / "a", "CartPole-v1", 0.1, 0, gamma=0.9)
    learned(tmp_path / "b", "CartPole-v1", 0.2, 0, gamma=0.99)
    assert "sensitivity" not in draw(comparisons_of(tmp_path)[0])


def test_a_backslash_does_not_free_what_markdown_escapes():
    assert escaped(r"\<b>") == r"\\\<b>"
    assert aligned([["a", "b"], [r"x\|y", "1"]]).splitlines()[-1].startswith(r"| x\\\|y |")


def test_one_long_name_cuts_no_other_off_a_figure(tmp_path):
    for place, note in enumerate(["x" * 150, *(f"a rather short one {i}" for i in range(9))]):
        learned(tmp_path / str(place), "CartPole-v1", 0.1, 0, env__kwargs={"note": note})
    figures = draw(comparisons_of(tmp_path)[0])
    for figure in (figures["final_returns"], figures["learning_curves"]):
        renderer = FigureCanvasAgg(figure).get_renderer()
        for axes in figure.axes:
            for text in (*axes.get_yticklabels(), axes.title):
                extent = text.get_window_extent(renderer)
                if text.get_text() and axes.get_visible():
                    assert extent.x0 >= -1 and extent.x1 <= figure.bbox.width + 1, text.get_text()


def test_numbers_below_an_axis_do_not_lie_over_each_other():
    assert _readable([0.02, 0.04, 0.1, 0.16, 0.18, 0.2], True) == [0.02, 0.04, 0.1, 0.16, 0.2]
    assert _readable([1.0, 2.0, 3.0], False) == [1.0, 2.0, 3.0]


def test_one_value_of_a_knob_and_one_run_are_no_figure(tmp_path):
    write_run(tmp_path / "a", [1.0, 2.0, 3.0], 3.0)
    figures = draw(compare("CartPole-v1", grouped(tmp_path)[0]["CartPole-v1"], threshold=9.0))
    assert list(figures) == ["learning_curves"]
    assert figures["learning_curves"].axes[0].get_ylabel() == "training return"


def test_a_group_looks_alike_in_all_environments(study):
    comparisons = comparisons_of(study)
    grid = draw_all(comparisons, aggregate(comparisons))["learning_curves"]
    curves = [[(line.get_color(), line.get_marker()) for line in axes.lines[:3]] for axes in grid.axes]
    assert [axes.get_title() for axes in grid.axes] == ["Acrobot-v1", "CartPole-v1"]
    assert curves[0] == curves[1]
    (legend,) = grid.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        f"clip_ratio={clip}" for clip in (0.1, 0.2, 0.4)
    ]


@pytest.mark.parametrize("style", [Style((3.3, 2.4), 8.0), Style()])
def test_nothing_is_cut_and_no_legend_covers_axes(study, style):
    comparisons = comparisons_of(study)
    figures = {**draw(comparisons[1], style), **draw_all(comparisons, aggregate(comparisons), style)}
    for kind, figure in figures.items():
        width, height = figure.bbox.width, figure.bbox.height
        boxes = [figure.legends[0].get_window_extent()] if figure.legends else []
        for axes in filter(lambda axes: axes.get_visible(), figure.axes):
            box = axes.get_tightbbox()
            assert box.x0 > -1.5, kind
            assert box.y0 > -1.5, kind
            assert box.x1 < width + 1.5, kind
            assert box.y1 < height + 1.5, kind
            assert not any(axes.get_window_extent().overlaps(legend) for legend in boxes), kind


# --- the files


def test_every_figure_is_there_thrice_and_what_can_be_chosen_is_done(report):
    out, printed = report
    stems = {path.stem for path in out.glob("*.png")}
    assert {"all_learning_curves", "all_aggregates", "CartPole-v1_info"} <= stems
    assert "Acrobot-v1_info" not in stems
    assert stems == {path.stem for path in out.glob("*.pdf")} == {path.stem for path in out.glob("*.svg")}
    rows = rows_of(out / "table.csv")
    assert [row["group"] for row in rows] == ["clip_ratio=0.4", "small=best", "clip_ratio=0.2"] * 2
    assert {row["baseline"] for row in rows} == {"clip_ratio=0.2"}
    assert "0 is -500 (given), 1 is -100 (given)" in flat(printed)
    assert 'width="237.6pt" height="172.8pt"' in (out / "CartPole-v1_learning_curves.svg").read_text()


def test_pdf_files_embed_truetype_and_no_date(report):
    data = (report[0] / "CartPole-v1_learning_curves.pdf").read_bytes()
    assert b"/CIDFontType2" in data or b"/TrueType" in data
    assert b"/Type3" not in data
    assert b"CreationDate" not in data


def test_what_is_printed_fits_80_columns_and_markdown_100(report):
    out, printed = report
    assert max(len(line) for line in printed.splitlines() if not line.endswith("report.html")) <= 80
    tables = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("|")]
    assert tables
    assert max(map(len, tables)) <= 100


def test_all_that_is_written_says_the_same_numbers(tmp_path, ppo_report):  # noqa: F811
    rng = np.random.default_rng(3)
    for clip in (0.1, 0.2, 0.4):
        for seed, top in enumerate(rng.normal(300 + 200 * clip, 40, 9)):
            returns = [top * (1 - 0.7**i) for i in range(12)]
            write_run(tmp_path / f"{clip},{seed}", returns, top, clip_ratio=clip, seed=seed)
    out = tmp_path / "report"
    _, printed, _ = ppo_report(tmp_path, "--smooth", 3)
    texts = [printed, *((out / name).read_text() for name in ("report.md", "report.html", "table.tex"))]
    (comparison,) = comparisons_of(tmp_path, smooth=3)
    figures = draw(comparison)
    bars = figures["final_returns"].axes[0].containers
    for row, (mark, _, (bar,)) in zip(rows_of(out / "table.csv"), bars, strict=True):
        assert float(row["iqm"]) == pytest.approx(mark.get_xdata()[0], rel=1e-12)
        ends = [float(row["iqm_low"]), float(row["iqm_high"])]
        assert ends == pytest.approx([x for x, _ in bar.get_segments()[0]], rel=1e-9)
        for name, decimals in (("iqm", 1), ("auc", 1), ("p_better", 2)):
            if row[name]:
                value, low, high = (
                    f"{float(row[key]):.{decimals}f}" for key in (name, f"{name}_low", f"{name}_high")
                )
                for text in texts:
                    assert f"{value} [{low}, {high}]" in text.replace("{[}", "[").replace("{]}", "]")
    curves = rows_of(out / "curves.csv")
    for summary, line in zip(comparison.summaries, figures["learning_curves"].axes[0].lines, strict=False):
        own = [float(row["iqm"]) for row in curves if row["group"] == summary.group.name]
        assert own == pytest.approx(list(line.get_ydata()), rel=1e-12)


def test_failed_runs_have_a_table_with_the_reason(report):
    out, printed = report
    lost = [row for row in rows_of(out / "runs.csv") if row["status"] == "failed"]
    assert [(row["group"], row["seed"], row["reason"]) for row in lost] == [("small=best", "9", WHY)]
    assert [row["failed"] for row in rows_of(out / "table.csv")] == ["0"] * 4 + ["1", "0"]
    for text in (printed, (out / "report.md").read_text(), (out / "report.html").read_text()):
        assert "Failed runs" in text
        assert "RunError: the loss" in text


def test_infos_have_their_final_means(report):
    rows = [row for row in rows_of(report[0] / "table.csv") if row["environment"] == "CartPole-v1"]
    assert {float(row["info/is_success"]) for row in rows} == {1.05}  # of the last two of twelve rows
    assert {float(row["info/reward_forward"]) for row in rows} == {2.0}
    finals = [row["info/is_success"] for row in rows_of(report[0] / "runs.csv")]
    assert finals.count("1.05") == 9


def test_latex_tables_are_balanced(report):
    text = (report[0] / "table.tex").read_text()
    for what in ("table", "tabular"):
        assert text.count(rf"\begin{{{what}}}") == text.count(rf"\end{{{what}}}") == 4
    for block in re.findall(
        r"(?s)\\begin\{tabular\}\{(l+r*)(?:p\{0.5\\linewidth\})?\}(.*?)\\end\{tabular\}", text
    ):
        cells = [
            re.sub(r"\\&", "", line).count("&") + 1 for line in block[1].splitlines() if line.endswith(r"\\")
        ]
        assert len(set(cells)) == 1
        assert cells[0] - len(block[0]) in (0, 1)  # the last column of failed runs is as wide as a line
    assert r"clip\_ratio=0.4" in text
    assert text.count("{") == text.count("}")


def test_the_page_says_how_it_was_made_and_loads_nothing(report):
    page = (report[0] / "report.html").read_text()
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert not re.search(r"<script|style=|<link|@import|url\(", page)
    for said in (
        "ppo-cli ",
        "numpy ",
        "matplotlib ",
        "--font-size 7",
        "prefers-color-scheme: dark",
        '<a href="#s1">',
    ):
        assert said in page
    assert re.search(r"<dd>\d{4}-\d\d-\d\d \d\d:\d\d", page)
    assert page.count('<div class="frame') == page.count("<table>") == 4


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (
            ["--size", "3"],
            "--size: expected inches as WIDTHxHEIGHT from 1.5 to 40, such as 3.3x2.4, given '3'",
        ),
        (["--size", "nanx3"], "given 'nanx3'"),
        (["--size", "3x400"], "given '3x400'"),
        (["--size", "1.5x1.5", "--font-size", "40"], "--size 1.5x1.5 has no room for letters of 40 points"),
        (["--font-size", "big"], "--font-size: expected points from 4 to 40, given 'big'"),
        (["--smooth", "0"], "--smooth: expected a whole number from 1 to 10,000, given '0'"),
        (["--smooth", "2.5"], "given '2.5'"),
        (["--normalize", "CartPole-v1=9"], "--normalize: expected ENV=LOW,HIGH with LOW below HIGH, given"),
        (["--normalize", "CartPole-v1=9,1"], "given 'CartPole-v1=9,1'"),
        (
            ["--normalize", "Foo-v0=0,1"],
            "--normalize Foo-v0=: no run on Foo-v0; there are runs on CartPole-v1",
        ),
        (["--labels", "x"], "--labels x: expected GROUP=NAME; there are clip_ratio=0.1; clip_ratio=0.2"),
        (["--labels", "clip_ratio=0.1="], "--labels clip_ratio=0.1=: the new name is empty"),
        (
            ["--labels", "clip_ratio=0.1=clip_ratio=0.2"],
            "--labels: two groups would be called clip_ratio=0.2",
        ),
        (["--order", "best"], "--order best: no such group; there are clip_ratio=0.1; clip_ratio=0.2"),
        (["--order", ";"], "--order ;: expected value, iqm, or names of groups with ; between them"),
        (["--baseline", "b"], "--baseline b: no such group; there are clip_ratio=0.1; clip_ratio=0.2"),
    ],
)
def test_what_can_not_be_chosen_is_a_line_and_nothing_is_written(tmp_path, ppo_report, typed, line):  # noqa: F811
    for clip in (0.1, 0.2):
        write_run(tmp_path / f"{clip}", [1.0], 1.0, clip_ratio=clip)
    status, out, err = ppo_report(tmp_path, *typed)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert line in err
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [2, 4])
@pytest.mark.parametrize("mixed", [False, True])
def test_intervals_over_environments_hold_the_true_value(tasks, mixed):
    """In 90 % of samples or more, but for three standard errors, of skewed and of unlike environments."""
    rng, seeds, repeats = np.random.default_rng(1), 8, 400
    taus = np.array([0.05, 0.3, 0.8, 1.01])

    def draw_scores(runs):
        skewed = [rng.lognormal(0, 1, runs) / 5 for _ in range(tasks)]
        if mixed:
            skewed[1::2] = [
                np.where(rng.random(runs) < 0.8, rng.normal(1.0, 0.01, runs), rng.normal(0.1, 0.04, runs))
                for _ in skewed[1::2]
            ]
        return skewed

    many = draw_scores(500_000)
    truth = [pooled_iqm(many), *performance_profile(many, taus), 0.5]
    held = np.zeros(len(truth))
    for repeat in range(repeats):
        scores, others = draw_scores(seeds), draw_scores(seeds)
        found = [
            estimate_pooled(scores, repeat, 1_999),
            estimate_profile(scores, taus),
            improvement_over_tasks(scores, others),
        ]
        lows, highs = (np.hstack([getattr(one, end) for one in found]) for end in ("low", "high"))
        held += (lows <= truth) & (truth <= highs)
    assert (held / repeats >= 0.9 - 3 * math.sqrt(0.9 * 0.1 / repeats)).all()
