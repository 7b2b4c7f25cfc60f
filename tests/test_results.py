"""benchmarks/results.py: what it keeps of runs, and the tables that it makes of what is kept."""

import json
import re
import runpy
import sys
import tarfile
from pathlib import Path

import pytest
from test_report import write_run

from ppo_cli.config.compose import load
from ppo_cli.config.convert import to_dict
from ppo_cli.report.groups import read_groups

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "results.py"
MEANS = [480.0, 490.0, 500.0, 470.0, 485.0, 495.0, 465.0, 475.0]
PAGE = "# Returns\n\n<!-- results: some -->\nold figures\n<!-- end of results -->\n\nWords.\n"
ROWS = """\
some:
  - {row: plain, typed: env=CartPole-v1 preset=none total_timesteps=300000, published: Z 500, bar: 490}
  - {row: later, typed: env=Acrobot-v1, bar: -72}
"""

pytest.importorskip("scipy")
if not SCRIPT.is_file():
    pytest.skip("benchmarks/ is not part of the source archive", allow_module_level=True)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A function that calls the script on a page of the test's own."""
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results.md").write_text(PAGE)
    (tmp_path / "docs" / "results" / "tables.yaml").write_text(ROWS)

    def call(*arguments):
        monkeypatch.setattr(
            sys, "argv", [str(SCRIPT), "--docs", str(tmp_path / "docs"), *map(str, arguments)]
        )
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return (tmp_path / "docs" / "results.md").read_text()

    return call


@pytest.fixture
def runs(tmp_path):
    """Eight seeds of 300 logged returns each, and of an evaluation."""
    for seed, mean in enumerate(MEANS, start=11):
        folder = write_run(
            tmp_path / "sweep" / f"seed={seed}", [None, *range(299)], mean, seed=seed, eval__episodes=100
        )
        summary = json.loads((folder / "eval.json").read_text())
        (folder / "eval.json").write_text(json.dumps({**summary, "returns": [mean / 3, mean / 7]}))
    return tmp_path / "sweep"


def test_a_table_is_made_of_what_is_kept_and_leaves_the_rest_of_the_page_alone(results, runs):
    results("keep", "plain", runs)
    page = results("tables")
    row, later = (line for line in page.splitlines() if line.startswith("| `env="))
    typed, iqm, ends, seeds, steps, published, bar = (cell.strip() for cell in row.strip("|").split("|"))
    assert typed == "`env=CartPole-v1 preset=none total_timesteps=300000`"
    assert iqm.startswith("482.5 [4") and ends == "465.0, 500.0"
    assert (seeds, steps, published, bar) == ("8", "300,000", "Z 500", "≥ 490: met")
    assert later == "| `env=Acrobot-v1` | not run |  |  |  |  | ≥ −72 |"
    command = f"ppo-train -m {typed.strip('`')} eval.episodes=100 'seed=range(11,19)'"
    assert command in page.splitlines()
    assert page.startswith("# Returns\n") and page.endswith("\nWords.\n") and "old figures" not in page
    assert results("tables") == page


def test_what_is_kept_is_small_the_same_every_time_and_what_a_report_reads(results, runs, tmp_path):
    results("keep", "plain", runs)
    archive = tmp_path / "docs" / "results" / "plain.tar.xz"
    first = archive.read_bytes()
    results("keep", "plain", runs)
    assert archive.read_bytes() == first
    assert len(first) < 8 * 2_000
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "again", filter="data")
    left_out = []
    ((group,),) = read_groups([tmp_path / "again"], left_out.append).values()
    assert [run.evaluated for run in group.runs] == MEANS
    assert [run.seed for run in group.runs] == list(range(11, 19))
    run = group.runs[0]
    assert (run.status, run.last_step, len(run.steps), left_out) == ("finished", 300_000, 100, [])
    assert run.returns[-1] == 297.0  # the mean of the last three rows


def test_runs_that_are_not_one_finished_group_are_not_kept(results, runs, tmp_path):
    (runs / "seed=12" / "eval.json").unlink()
    with pytest.raises(SystemExit, match=r"seed=12"):
        results("keep", "plain", runs)
    write_run(runs / "other", [1.0] * 300, 3.0, seed=30, clip_ratio=0.3)
    with pytest.raises(SystemExit, match=r"clip_ratio=0\.3"):
        results("keep", "plain", runs)
    assert not (tmp_path / "docs" / "results" / "plain.tar.xz").exists()


def test_a_folder_that_is_not_there_is_not_passed_over(results, runs, tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(SystemExit, match=re.escape(f"{gone}: No such file")):
        results("recipe", "slow", gone, runs)


def test_a_row_whose_command_gives_other_settings_by_now_is_refused(results, runs, tmp_path):
    results("keep", "plain", runs)
    rows = tmp_path / "docs" / "results" / "tables.yaml"
    rows.write_text(rows.read_text().replace("preset=none", "preset=none clip_ratio=0.3"))
    with pytest.raises(SystemExit, match=r"clip_ratio=0\.2, now 0\.3; run it again"):
        results("tables")


def test_a_recipe_is_a_row_of_environments_with_each_seeds_return(results, runs, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for env_id, seed, mean in (("Pendulum-v1", 1, -160.4), ("Pendulum-v1", 2, 1_234.5), ("Taxi-v3", 1, 7.7)):
        write_run(elsewhere / f"{env_id}{seed}", [1.0] * 300, mean, env_id, seed=seed, eval__episodes=100)
    results("recipe", "plain", runs, elsewhere)
    typed = "env=CartPole-v1 preset=none total_timesteps=300000"
    rows = tmp_path / "docs" / "results" / "tables.yaml"
    results("recipe", "again", runs)
    as_typed = {"plain": typed, "again": f"{typed} seed=0"}
    told = "".join(
        f"  - {{recipe: {name}, typed: {words}, says: ours}}\n" for name, words in as_typed.items()
    )
    rows.write_text(f"some:\n{told}")
    page = results("tables").splitlines()
    assert "| settings | CartPole-v1 | Pendulum-v1 | Taxi-v3 |" in page
    assert "| ours | 480, 490, 500, 470, 485, 495, 465, 475 | −160, 1,234 | 7.70 |" in page
    assert "| ours | 480, 490, 500, 470, 485, 495, 465, 475 |  |  |" in page  # two rows may say the same
    rest = "eval.episodes=100 eval.seed=1000"
    assert f"ppo-train -m {typed} env.id=CartPole-v1 {rest} 'seed=range(11,19)'" in page
    assert f"ppo-train -m {typed} env.id=Pendulum-v1 {rest} 'seed=range(1,3)'" in page
    assert f"ppo-train {typed} env.id=Taxi-v3 {rest} seed=1" in page  # one run is no sweep


def test_a_study_is_kept_and_told_of_with_its_command(results, tmp_path):
    search = tmp_path / "search"
    search.mkdir()
    axes = [
        {"key": "learning_rate", "low": 1e-4, "high": 0.01, "step": None, "log": True, "integer": False},
        {"key": "n_epochs", "low": 4.0, "high": 8.0, "step": 2.0, "log": False, "integer": True},
        {"key": "network", "values": ["mlp", "simba"]},
    ]
    plan = {
        "typed": ["threads=1", "env=Pendulum-v1", "eval.episodes=5"],
        "seeds": [1, 2],
        "settings": {"n_trials": 3, "pruner": "median", "evaluations": 4},
        "axes": axes,
        "bases": [{"config": to_dict(load("env=Pendulum-v1", "vectorization=sync"))}],
    }
    (search / "search.json").write_text(json.dumps(plan))
    (search / "trials.csv").write_text(
        "number,state,value,folder,learning_rate,n_epochs,network\n"
        "0,complete,-200.04,a,0.0002,4,mlp\n1,complete,-150.06,b,0.003,8,simba\n2,pruned,,c,0.001,6,mlp\n"
    )
    (search / "best.yaml").write_text("learning_rate: 0.003\n")
    with pytest.raises(SystemExit, match=r"it has no importances\.csv"):
        results("study", "Pendulum-v1", search)
    (search / "importances.csv").write_text(
        "knob,importance\nlearning_rate,0.9\nnetwork,0.06\nn_epochs,0.04\n"
    )
    results("study", "Pendulum-v1", search)
    rows = "some:\n  - {study: Pendulum-v1, typed: env=Pendulum-v1}\n"
    (tmp_path / "docs" / "results" / "tables.yaml").write_text(rows)
    page = results("tables").splitlines()
    assert (
        "| Pendulum-v1 | 3: 2, 1 | −150.1 | `learning_rate=0.003` `n_epochs=8` `network=simba` "
        "| `learning_rate` 90%, `network` 6% |"
    ) in page
    assert (
        "ppo-train -m hydra/sweeper=optuna env=Pendulum-v1 eval.episodes=5 seed=1,2 hydra.sweeper.n_trials=3 "
        "hydra.sweeper.evaluations=4 'learning_rate=tag(log,interval(0.0001,0.01))' 'n_epochs=range(4,10,2)' "
        "network=mlp,simba"
    ) in page
    plan["bases"][0]["config"]["clip_ratio"] = 0.3
    (search / "search.json").write_text(json.dumps(plan))
    results("study", "Pendulum-v1", search)
    with pytest.raises(SystemExit, match=r"clip_ratio=0\.3, now 0\.2"):
        results("tables")


def test_what_is_kept_of_the_presets_is_one_group_in_each_environment(tmp_path):
    kept = Path(__file__).parents[1] / "docs" / "results"
    for archive in kept.glob("*.tar.xz"):
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path, filter="data")
    left_out = []
    environments = read_groups([tmp_path], left_out.append)
    assert not left_out and len(environments) > 20
    assert [env_id for env_id, groups in environments.items() if len(groups) > 1] == []
