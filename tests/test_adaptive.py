"""The learning rate that follows the KL, held against rsl_rl's rule written out; and warm-ups."""

import copy
import csv
import itertools

import pytest
import torch
from gymnasium import spaces
from refusals import refusal
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE
from torch.distributions import Categorical, Normal

from ppo_cli import compiled_step, update
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.adaptive import KLAdaptive
from ppo_cli.agent import flatten_parameters
from ppo_cli.distributions import make_distribution
from ppo_cli.optimizers.rules import adam_init
from ppo_cli.report.knobs import annealed, learned
from ppo_cli.rollout import Batch
from ppo_cli.runs.checkpoint import load_checkpoint, save_checkpoint

RULE = KLAdaptive(desired_kl=5e-4, learning_rate_min=1e-5, learning_rate_max=3e-3)
KNOBS = {"learning_rate": 1e-3, "clip_ratio": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
ROWS, SIZE, EPOCHS, ITERATIONS = 96, 32, 3, 4
SHORT = (
    "env=CartPole-v1", "preset=none", "n_envs=2", "n_steps=64", "total_timesteps=768", "batch_size=32",
    "n_epochs=3", "eval.episodes=2", "vectorization=sync", "learning_rate=3e-3",
)  # fmt: skip
KL = (*SHORT, "anneal.learning_rate.shape=kl")


class Reference:
    """A loop as rsl_rl writes it: the rate is a float, set in PyTorch's optimizer before each step."""

    def __init__(self, model, is_discrete):
        self.model, self.is_discrete, self.rate = model, is_discrete, KNOBS["learning_rate"]
        self.optimizer = torch.optim.Adam(model.parameters(), lr=self.rate, eps=1e-5)

    def policy(self, observations):
        logits = self.model.policy(observations)
        if self.is_discrete:
            return Categorical(logits=logits)
        mean, log_std = logits.chunk(2, -1)
        return Normal(mean, log_std.exp())

    def sums(self, values):
        return values if self.is_discrete else values.sum(-1)

    def step(self, observations, actions, logprobs, advantages, returns):
        policy = self.policy(observations)
        new = self.sums(policy.log_prob(actions))
        with torch.no_grad():
            log_ratio = (new - logprobs).double()
            kl = (log_ratio.exp() - 1 - log_ratio).mean().item()
        if kl > 2 * RULE.desired_kl:
            self.rate = max(RULE.learning_rate_min, self.rate / 1.5)
        elif 1e-7 < kl < RULE.desired_kl / 2:
            self.rate = min(RULE.learning_rate_max, self.rate * 1.5)
        self.optimizer.param_groups[0]["lr"] = self.rate
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        ratio = (new - logprobs).exp()
        surrogate = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        value = (self.model.value(observations, observations[:, :0]) - returns).square().mean()
        entropy = self.sums(policy.entropy()).mean()
        self.optimizer.zero_grad()
        (-surrogate + 0.5 * value - 0.01 * entropy).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()


def trained(step_of, actions):
    """Rates and weights after each step of ours and of the reference, over several rollouts."""
    torch.manual_seed(0)
    model = make_actor_critic(spaces.Box(-1, 1, (5,)), actions, hidden_sizes=(16,), shared=False)
    reference = Reference(copy.deepcopy(model), isinstance(actions, spaces.Discrete))
    distribution = make_distribution(actions)
    hyper = update.Hyperparameters(adaptive=RULE)
    params = flatten_parameters(model)
    step = step_of(update.make_step(model, distribution, hyper, tuple(KNOBS)))
    moments, rate, found = adam_init(params), KNOBS["learning_rate"], []
    for _ in range(ITERATIONS):
        observations = torch.randn(ROWS, 5)
        with torch.no_grad():
            policy = reference.policy(observations)
            taken = policy.sample()
            logprobs = reference.sums(policy.log_prob(taken))
        columns = (observations, taken, logprobs, torch.randn(ROWS), torch.randn(ROWS))
        batch = Batch(*columns, torch.zeros(ROWS))
        state = update.first_state(params.clone(), moments, hyper, rate)
        for _ in range(EPOCHS):
            for indices in torch.randperm(ROWS).split(SIZE):
                state = step(state, batch, indices, torch.ones(SIZE), torch.tensor(list(KNOBS.values())))
                reference.step(*(column[indices] for column in columns))
                theirs = torch.cat([weights.detach().flatten() for weights in reference.model.parameters()])
                found.append((state.learning_rate.item(), reference.rate, state.params, theirs))
        params.copy_(state.params)
        moments, rate = state.optimizer, state.learning_rate.item()
    return found


@pytest.mark.parametrize(
    ("actions", "is_compiled"),
    [
        (spaces.Box(-1, 1, (3,)), False),
        (spaces.Discrete(4), False),
        pytest.param(spaces.Box(-1, 1, (3,)), True, marks=pytest.mark.slow),
    ],
    ids=["box", "discrete", "compiled"],
)
def test_every_rate_and_every_step_is_that_of_rsl_rl(tmp_path, actions, is_compiled):
    found = trained(lambda step: compiled_step.compile_step(step, tmp_path) if is_compiled else step, actions)
    rates = [ours for ours, *_ in found]
    assert rates == pytest.approx([theirs for _, theirs, *_ in found], rel=1e-6)
    for _, _, ours, theirs in found:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    moves = [later / earlier for earlier, later in itertools.pairwise(rates)]
    assert min(moves) < 0.7 and max(moves) > 1.4 and 1.0 in moves  # lowered, raised and left alone
    assert not is_compiled or list(tmp_path.glob("*.pt2"))


@pytest.mark.parametrize(
    ("kl", "rate", "expected"),
    [
        (0.021, 3e-3, 2e-3),
        (0.02, 3e-3, 3e-3),  # neither bound is beyond itself
        (0.005, 3e-3, 3e-3),
        (0.0049, 2e-3, 3e-3),
        (0.0, 3e-3, 3e-3),
        (1e-9, 3e-3, 3e-3),  # rounding, of a policy that has not moved
        (-1e-9, 3e-3, 3e-3),
        (float("nan"), 3e-3, 3e-3),
        (1.0, 1.2e-5, 1e-5),
        (0.001, 9e-3, 1e-2),
        (0.01, 3e-2, 1e-2),  # that of a run whose bounds are others since it goes on
        (0.01, 1e-6, 1e-5),
    ],
)
def test_the_rule_by_hand(kl, rate, expected):
    rule = KLAdaptive(0.01, 1e-5, 1e-2)
    # in 64 bits, so that 0.02 is what is compared with
    found = rule(torch.tensor(rate, dtype=torch.float64), torch.tensor(kl, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def column(folder, tag):
    with (folder / "metrics.csv").open() as file:
        return [float(row[tag]) for row in csv.DictReader(file)]


def test_a_run_logs_the_rate_that_it_goes_on_with_and_resumes_to_the_same_bits(
    ppo_train, tmp_path, interrupt
):
    arguments = (*KL, INTERRUPTIBLE, "target_kl=0.03", "compile=false")
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(3)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    rates = column(tmp_path / "whole", "charts/learning_rate")
    assert len(set(rates)) > 1 and rates[0] != 3e-3
    last = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last.pt")
    assert last["steered"] == {"learning_rate": rates[-1]}
    assert ppo_train("resume=cut", "total_timesteps=896", "learning_rate=1e-3").status == 0
    again = column(tmp_path / "cut", "charts/learning_rate")
    assert again[:-1] == rates and again[-1] != rates[-1]
    steps = [1e-3 * 1.5**power for power in range(-12, 13)]
    assert min(abs(again[-1] / each - 1) for each in steps) < 1e-5 or again[-1] in (1e-2, 1e-5)


def test_a_checkpoint_from_before_goes_on_and_its_rate_may_be_steered_from_there(ppo_train, tmp_path):
    assert ppo_train(*SHORT, "compile=false", "hydra.run.dir=old").status == 0
    path = tmp_path / "old" / "checkpoints" / "last.pt"
    old = load_checkpoint(path)
    assert "steered" not in old  # what no run needs is not written
    for section in old["config"]["anneal"].values():
        del section["warmup"]
    for name in ("stop", "desired_kl", "learning_rate_min", "learning_rate_max"):
        del old["config"][name]
    save_checkpoint(path, old)
    save_checkpoint(path.with_name("768.pt"), old)
    assert ppo_train("resume=old", "total_timesteps=1024", "anneal.learning_rate.shape=kl").status == 0
    rates = column(tmp_path / "old", "charts/learning_rate")
    assert rates[:6] == [3e-3] * 6 and rates[6] != 3e-3


def test_the_minibatch_that_stops_an_update_still_lowers_the_rate_and_later_ones_do_not(ppo_train, tmp_path):
    typed = (*KL, "compile=false", "learning_rate=9e-3", "target_kl=1e-6", "n_epochs=1", "eval.episodes=0")
    assert ppo_train(*typed, "desired_kl=1e-6", "hydra.run.dir=run").status == 0
    rates = column(tmp_path / "run", "charts/learning_rate")
    assert rates == pytest.approx([9e-3 / 1.5**power for power in range(1, 7)], rel=1e-6)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("anneal.gamma.shape=kl", "anneal.gamma.shape=kl is for the learning rate alone: expected linear"),
        ("anneal.learning_rate.shape=kl learning_rate=0.1", "expected a value from learning_rate_min=1e-05"),
        (
            "anneal.learning_rate.shape=kl learning_rate_min=0.1",
            "learning_rate_min=0.1: expected at most learning_rate_max=0.01",
        ),
        (
            "anneal.learning_rate.shape=kl anneal.learning_rate.warmup=0.1",
            "leave it out, or use another shape",
        ),
        (
            "anneal.learning_rate.warmup=1",
            "anneal.learning_rate.warmup=1.0: expected a value from 0 to below 1",
        ),
        ("anneal.max_grad_norm.warmup=0.1 max_grad_norm=inf", "expected a finite max_grad_norm to rise to"),
        ("extra_losses=[{name:own_update.drift,coef:1,warmup:2}]", "own_update.drift has warmup=2: expected"),
        ("extra_losses=[{name:own_update.drift,coef:1,shape:kl}]", "own_update.drift has shape=kl: expected"),
        ("desired_kl=0", "desired_kl=0.0: expected a value above 0"),
    ],
)
def test_what_can_not_be_steered_or_raised_is_refused_in_a_line(typed, said):
    assert said in refusal(SHORT, *typed.split())


def test_a_warm_up_is_logged_of_any_number_of_the_update_and_of_a_loss_of_ones_own(ppo_train, tmp_path):
    typed = (
        *SHORT, "compile=false", "anneal.learning_rate.warmup=0.5", "anneal.learning_rate.final=0",
        "anneal.clip_ratio.warmup=0.5", "anneal.gamma.warmup=0.3",
        "extra_losses=[{name:own_update.drift,coef:0.3,warmup:0.5,final:0.1}]",
    )  # fmt: skip
    assert ppo_train(*typed, "hydra.run.dir=run").status == 0
    rates = column(tmp_path / "run", "charts/learning_rate")
    assert rates == pytest.approx([1e-3, 2e-3, 3e-3, 3e-3, 2e-3, 1e-3])
    thirds = [1 / 3, 2 / 3, 1, 1, 1, 1]
    assert column(tmp_path / "run", "charts/clip_ratio") == pytest.approx([0.2 * each for each in thirds])
    assert column(tmp_path / "run", "charts/gamma") == pytest.approx([0.99 / 1.8, *[0.99] * 5])
    coefs = column(tmp_path / "run", "charts/drift_coef")
    assert coefs == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3 - 0.2 / 3, 0.3 - 0.4 / 3])


def test_a_report_names_what_steers_a_knob_and_takes_its_shape_for_learned():
    kl = {"anneal.learning_rate.shape": "kl", "anneal.learning_rate.final": "null"}
    assert learned(kl)["anneal.learning_rate.shape"] == "kl"
    assert "anneal.learning_rate.shape" not in learned({**kl, "anneal.learning_rate.shape": "cosine"})
    assert annealed(kl, "learning_rate") == "→kl"
    rising = {"anneal.clip_ratio.warmup": "0.1"}
    assert annealed(rising, "clip_ratio") == "→warmup 0.1"
    whole = {**rising, "anneal.clip_ratio.final": "0.0", "anneal.clip_ratio.shape": "cosine"}
    assert annealed(whole, "clip_ratio") == "→0.0 cosine warmup 0.1"
    assert annealed({**kl, "anneal.learning_rate.shape": "linear"}, "learning_rate") == ""
