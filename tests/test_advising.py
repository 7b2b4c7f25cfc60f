"""Advice: what goes wrong is told of once, and what goes well is not."""

import math
import shlex
from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces
from run_hooks import INTERRUPTIBLE

from ppo_cli.distributions import make_distribution
from ppo_cli.runs.advising import OF_BEGINNINGS, SIGNS, Advising, with_limit
from ppo_cli.runs.checkpoint import load_checkpoint

DISCRETE, BOX = spaces.Discrete(4), spaces.Box(-1, 1, (2,))


class Played:
    """A run made up of what its iterations log."""

    def __init__(self, caplog, space=DISCRETE, iterations=100, n_envs=2, steps=1000):
        self.caplog, self.iterations, self.steps = caplog, iterations, steps
        self.distribution = make_distribution(space)
        shape = (5, n_envs, *self.distribution.action_shape)
        actions = torch.zeros(shape, dtype=self.distribution.action_dtype)
        self.rollout = SimpleNamespace(actions=actions, n_envs=n_envs)
        self.hook = Advising()
        self.done, self.init_from = 0, None

    def run(self):
        """The run after the iterations so far."""
        return SimpleNamespace(
            agent=SimpleNamespace(distribution=self.distribution),
            collector=SimpleNamespace(rollout=self.rollout),
            shards=SimpleNamespace(n_envs=self.rollout.n_envs),
            config={"init_from": self.init_from, "env": {"wrappers": []}},
            iteration=self.done,
            steps=self.done * self.steps,
            total_timesteps=self.iterations * self.steps,
        )

    def go_on(self, of, n=None):
        """Further iterations, whose scalars ``of`` changes as a function of progress in [0, 1]."""
        for _ in range(self.iterations if n is None else n):
            self.done += 1
            healthy = {
                "charts/episodic_return": 10.0 * self.done + (-1) ** self.done,
                "losses/entropy": 1.3 - 0.005 * self.done,
                "losses/value_loss": 5.0,
                "losses/approx_kl": 0.02,
                "losses/explained_variance": 0.5,
            }
            self.hook.after_iteration(self.run(), healthy | of(self.done))
        return self

    def resume(self):
        """Goes on with a new hook that has this one's state."""
        state, self.hook = self.hook.state_dict(), Advising()
        self.hook.load_state_dict(state)
        self.hook.start(self.run())
        return self

    @property
    def told(self):
        return self.hook.state_dict()["said"]


@pytest.fixture
def played(caplog):
    return lambda *args, **kwargs: Played(caplog, *args, **kwargs)


def poor(iteration):
    """A return that does not rise, of iterations that differ."""
    return {"charts/episodic_return": -100.0 + 20 * math.sin(iteration)}


def test_a_run_that_learns_hears_nothing(played, caplog):
    assert played().go_on(lambda i: {}).told == []
    assert played(BOX).go_on(lambda i: {"losses/entropy": 3 - 0.03 * i}).told == []
    assert not caplog.records


@pytest.mark.parametrize(
    ("kind", "space", "of", "says"),
    [
        ("entropy", DISCRETE, lambda i: {"losses/entropy": 1.3 if i < 20 else 0.001, **poor(i)}, "ent_coef"),
        ("entropy", BOX, lambda i: {"losses/entropy": 3.0 if i < 20 else -7.5, **poor(i)}, "ent_coef"),
        ("values", DISCRETE, lambda i: {"losses/value_loss": 2.0**i, **poor(i)}, "normalize.values"),
        ("kl", DISCRETE, lambda i: {"losses/approx_kl": 0.02 if i < 20 else 3.0}, "target_kl"),
        ("flat", DISCRETE, poor, "ent_coef, use_sde, intrinsic=rnd"),
        ("flat", DISCRETE, lambda i: {"charts/episodic_return": -200.0}, "reward"),
    ],
)
def test_what_goes_wrong_is_told_of_in_a_line_with_what_to_turn(played, caplog, kind, space, of, says):
    told = played(space).go_on(of).told
    assert told[0] == kind
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(told)
    assert lines[0].startswith("advice at ")
    assert says in lines[0]
    assert "\n" not in lines[0]


def test_each_kind_is_told_of_once_also_by_a_run_that_goes_on(played, caplog):
    run = played().go_on(lambda i: {"losses/approx_kl": 3.0}, 30)
    assert run.told == ["kl"]
    run.resume().go_on(lambda i: {"losses/approx_kl": 3.0}, 30)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("at", [1, 5, 11, 52])
def test_a_run_that_goes_on_says_what_one_that_was_not_stopped_says(played, caplog, at):
    def of(i):
        return {"losses/entropy": 1.3 * 0.5**i, "losses/value_loss": 2.0**i, **poor(i)}

    whole = played().go_on(of)
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    cut = played().go_on(of, at).resume().go_on(of, 100 - at)
    assert cut.hook.state_dict() == whole.hook.state_dict()
    assert [record.getMessage() for record in caplog.records] == lines
    assert len(lines) == 3


def test_what_has_learned_before_is_held_against_no_beginning(played):
    def solved(i):
        loss = 1e-6 if i < 75 else 100.0
        return {"charts/episodic_return": 500.0, "losses/entropy": 0.5 * 0.5**i, "losses/value_loss": loss}

    def of_old(n_envs, done=40, init_from=None):
        run = played(n_envs=n_envs)
        run.done, run.init_from = done, init_from  # of which this hook saw nothing
        run.hook.start(run.run())
        return run

    assert of_old(2).go_on(solved, 60).told == list(OF_BEGINNINGS)
    assert of_old(2, 0, "earlier").go_on(solved).told == list(OF_BEGINNINGS)
    assert of_old(2, 0).go_on(solved).told
    endless = of_old(1).go_on(lambda i: {"charts/episodic_return": math.nan}, 29)
    assert endless.told == list(OF_BEGINNINGS)
    assert endless.go_on(lambda i: {"charts/episodic_return": math.nan}, 1).told[3:] == ["episodes"]
    assert of_old(2).go_on(lambda i: {"losses/approx_kl": 3.0}, 3).told[3:] == ["kl"]


def test_the_policy_of_a_task_that_is_solved_may_be_certain(played):
    assert played().go_on(lambda i: {"losses/entropy": 1.3 if i < 20 else 0.001}).told == []


def test_a_task_may_be_learned_at_once(played):
    def of(i):
        learned = min(20.0, 4.0 * i) + (-1) ** i
        return {"charts/episodic_return": learned, "losses/entropy": 1.3 if i < 5 else 0.001}

    assert played().go_on(of).told == []


def test_values_may_grow_with_the_returns(played):
    assert played().go_on(lambda i: {"losses/value_loss": 1.3**i}).told == []


def test_single_iterations_do_not_count(played):
    assert played().go_on(lambda i: {"losses/approx_kl": 5.0 if i % 3 else 0.01}).told == []


@pytest.mark.parametrize(("outside", "told"), [(1.0, ["clipped"]), (0.9, [])])
def test_actions_that_are_all_clipped_are_told_of(played, outside, told):
    run = played(BOX)
    run.rollout.actions[:] = 3.0
    run.rollout.actions.flatten()[: round(20 * (1 - outside))] = 0.0
    assert run.go_on(lambda i: {}, 20).told == told


def test_that_no_episode_ends_is_told_of_after_longer_than_games_take(played):
    def endless(i):
        return {"charts/episodic_return": math.nan}

    assert played(n_envs=2).go_on(endless, 59).told == []
    assert played(n_envs=2).go_on(endless, 60).told == ["episodes"]
    assert played(n_envs=2).go_on(lambda i: endless(i) if i % 50 else {}, 500).told == []


@pytest.mark.parametrize("damage", [{"said": 3}, {"best_return": "much"}, {"seen": []}])
def test_a_state_that_no_run_left_is_refused(played, damage):
    state = played().go_on(lambda i: {}, 3).hook.state_dict() | damage
    with pytest.raises((TypeError, ValueError, AttributeError)):
        Advising().load_state_dict(state)


def test_every_sign_lasts_and_is_said_in_words():
    assert all(sign.lasting >= 1 for sign in SIGNS.values())


def test_a_run_says_it_once_though_it_is_resumed(ppo_train, interrupt, tmp_path):
    arguments = (
        "env=Pendulum-v1", "preset=none", "n_steps=16", "batch_size=16", "total_timesteps=320",
        "network.log_std_init=10", "compile=false", "eval.episodes=0", "checkpoint.every=1", INTERRUPTIBLE,
    )  # fmt: skip
    interrupt(15)
    cut = ppo_train(*arguments, "hydra.run.dir=run")
    assert cut.status == 143
    interrupt(None)
    resumed = ppo_train("resume=run")
    assert resumed.status == 0
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("advice at ") == log.count("advice at 160 steps: nearly every action lies outside") == 1
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["own_hooks"]
    assert kept["advising"]["said"] == ["clipped"]


def test_a_time_limit_is_typed_beside_the_wrappers_that_there_are(ppo_train):
    (typed,) = shlex.split(with_limit({"env": {"wrappers": []}}))
    assert ppo_train("env=CartPole-v1", typed, "--cfg", "job").status == 0
    assert "to the list env.wrappers" in with_limit({"env": {"wrappers": [{"name": "FlattenObservation"}]}})
