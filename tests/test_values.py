"""The value's term: its losses, the heads they need, PopArt, and targets by another lambda."""

import csv

import numpy as np
import pytest
import torch
from gymnasium import spaces
from refusals import refusal
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE

from ppo_cli import compiled_step, losses, update
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import flatten_parameters
from ppo_cli.distributions import make_distribution
from ppo_cli.objectives import Loss, Terms
from ppo_cli.rollout import Batch, Rollout
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.policy import load_policy
from ppo_cli.targets import adapt_values, compute_batch
from ppo_cli.value_heads import BINS, DECAY, LEAST_DEVIATION, SymlogHead, TwoHotHead, ValueHead
from ppo_cli.value_losses import VALUE_LOSSES

ROWS, PADDING, FEATURES = 30, 11, 5
BOX, DISCRETE = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
CASES = [(name, None) for name in VALUE_LOSSES] + [(name, 0.7) for name in ("mse", "huber", "symlog")]
HEADS = {"mse": ValueHead, "huber": ValueHead, "symlog": SymlogHead, "two_hot": TwoHotHead}


def symlog(x):
    return np.sign(x) * np.log(np.abs(x) + 1)


def symexp(x):
    return np.sign(x) * (np.exp(np.abs(x)) - 1)


def reference(name, outputs, targets, old, epsilon, delta):
    """The error of each row in NumPy, by cases, from the papers."""

    def error(value, target):
        if name == "huber":
            distance = abs(value - target)
            return distance**2 if distance <= delta else 2 * delta * distance - delta**2
        return (symlog(value) - symlog(target)) ** 2 if name == "symlog" else (value - target) ** 2

    def cross_entropy(logits, target):
        bins = symexp(np.linspace(-20, 20, BINS))
        above = int(np.clip(np.searchsorted(bins, target), 1, BINS - 1))
        share = np.clip((target - bins[above - 1]) / (bins[above] - bins[above - 1]), 0, 1)
        log_probs = logits - np.log(np.exp(logits).sum())
        return -(share * log_probs[above] + (1 - share) * log_probs[above - 1])

    if name == "two_hot":
        return np.array([cross_entropy(*row) for row in zip(outputs, targets, strict=True)])
    values = symexp(outputs[:, 0]) if name == "symlog" else outputs[:, 0]
    errors = [error(*row) for row in zip(values, targets, strict=True)]
    if epsilon is None:
        return np.array(errors)
    held = old + np.clip(values - old, -epsilon, epsilon)
    return np.maximum(errors, [error(*row) for row in zip(held, targets, strict=True)])


def terms(name, outputs, targets, old, weights, epsilon=None):
    """Terms of a minibatch in double precision, of which only those of the value matter."""
    targets, old, weights = (torch.as_tensor(x).double() for x in (targets, old, weights))
    head = HEADS[name](FEATURES)
    clip = None if epsilon is None else torch.tensor(epsilon, dtype=torch.float64)
    nothing = torch.zeros_like(targets)
    return Terms(
        nothing, outputs, head.decode(outputs), nothing, nothing, nothing, nothing, targets, old, nothing,
        weights, torch.tensor(0.2).double(), clip,
    )  # fmt: skip


def drawn(name, seed=0, rows=ROWS):
    """Outputs [B, K], targets, old values and weights, [B] each."""
    generator = np.random.default_rng(seed)
    outputs = generator.normal(size=(rows, HEADS[name].outputs))
    targets, old = 5 * generator.normal(size=(2, rows))
    return outputs, targets, old, generator.uniform(0.5, 2, rows)


@pytest.mark.parametrize(("name", "epsilon"), CASES)
def test_losses_and_their_gradients_are_those_of_the_papers(name, epsilon):
    outputs, targets, old, weights = drawn(name)
    if name == "two_hot":
        targets[:3] = [1e10, -1e10, 0.0]  # beyond the bins, and on one
    options = {"delta": 2.0} if name == "huber" else {}
    leaf = torch.tensor(outputs, requires_grad=True)
    loss = VALUE_LOSSES[name](terms(name, leaf, targets, old, weights, epsilon), **options)
    loss.backward()

    def value(outputs):
        errors = reference(name, outputs, targets, old, epsilon, 2.0)
        return (weights * errors).sum() / weights.sum()

    assert loss.item() == pytest.approx(value(outputs), rel=1e-9)
    step = 1e-6
    for row, column in [
        (0, 0),
        (0, -1),
        (2, HEADS[name].outputs // 2),
        *((row, 0) for row in range(3, ROWS)),
    ]:
        change = np.zeros_like(outputs)
        change[row, column] = step
        slope = (value(outputs + change) - value(outputs - change)) / (2 * step)
        assert leaf.grad[row, column].item() == pytest.approx(slope, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(("name", "epsilon"), CASES)
def test_rows_of_weight_zero_change_neither_loss_nor_gradient(name, epsilon):
    outputs, targets, old, weights = drawn(name)
    others = drawn(name, seed=1, rows=PADDING)
    alone = torch.tensor(outputs, requires_grad=True)
    loss = VALUE_LOSSES[name](terms(name, alone, targets, old, weights, epsilon))
    loss.backward()
    padded = torch.tensor(np.concatenate([outputs, others[0]]), requires_grad=True)
    columns = [np.concatenate(pair) for pair in zip((targets, old), others[1:3], strict=True)]
    other = VALUE_LOSSES[name](
        terms(name, padded, *columns, np.concatenate([weights, np.zeros(PADDING)]), epsilon)
    )
    other.backward()
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(padded.grad[:ROWS], alone.grad)
    assert (padded.grad[ROWS:] == 0).all()


@pytest.mark.parametrize(
    ("error", "loss", "slope"), [(0.5, 0.25, 1.0), (1.0, 1.0, 2.0), (3.0, 5.0, 2.0), (-3.0, 5.0, -2.0)]
)
def test_hubers_loss_by_hand(error, loss, slope):
    value = torch.tensor([error], requires_grad=True)
    found = losses.huber_error(value, torch.zeros(1), 1.0)
    found.backward()
    assert (found.item(), value.grad.item()) == pytest.approx((loss, slope))


def test_symlog_and_symexp_are_inverses_and_odd():
    x = torch.tensor([-1e6, -3.0, -1e-3, 0.0, 1e-3, 3.0, 1e6])
    torch.testing.assert_close(losses.symexp(losses.symlog(x)), x, rtol=1e-5, atol=0)
    assert torch.equal(losses.symlog(-x), -losses.symlog(x))
    assert losses.symlog(torch.tensor(np.e - 1)).item() == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_target_is_the_mean_of_its_two_bins(dtype):
    bins = losses.symexp_bins(BINS, torch.zeros((), dtype=dtype))
    assert torch.equal(bins, -bins.flip(0))
    assert bins[-1].item() == pytest.approx(np.expm1(20))
    targets = torch.tensor([-1e8, -400.5, -1.0, -1e-4, 0.0, 0.3, 7.7, 12345.6, 3e8], dtype=dtype)
    weights = losses.two_hot(targets, bins)
    assert ((weights > 0).sum(-1) <= 2).all()
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(targets))
    torch.testing.assert_close((weights * bins).sum(-1), targets, rtol=1e-4, atol=1e-5)
    beyond = losses.two_hot(torch.tensor([1e12, -1e12], dtype=dtype), bins)
    assert beyond[0, -1] == beyond[1, 0] == 1.0


def test_the_value_of_a_distribution_is_its_mean():
    generator = np.random.default_rng(0)
    logits = 3 * generator.normal(size=(8, BINS))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = probs @ symexp(np.linspace(-20, 20, BINS))
    found = losses.expected_bin(torch.tensor(logits))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("ortho_init", [True, False])
def test_a_distribution_over_returns_starts_with_the_value_zero(ortho_init):
    model = make_actor_critic(BOX, DISCRETE, value_loss="two_hot", ortho_init=ortho_init)
    assert model.value_head.weight.shape == (BINS, 64)
    assert torch.equal(model.value(torch.randn(20, 3)), torch.zeros(20))


def popart(seed=0):
    """A head that normalises, with weights that are not small."""
    torch.manual_seed(seed)
    head = ValueHead(FEATURES, normalize=True)
    with torch.no_grad():
        head.weight.normal_()
        head.bias.normal_()
    return head


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_values_stay_what_they_are_when_the_statistics_move(seed, scale):
    head = popart(seed)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(50, FEATURES, generator=generator)
    for _ in range(20):
        before = head.values(head(features))
        old = head.statistics.mean.item(), head.statistics.deviation.item()
        spread, centre = 10 ** (2 * torch.rand(2, generator=generator) - 1)
        head.adapt(scale * (centre + spread * torch.randn(200, generator=generator)))
        assert (head.statistics.mean.item(), head.statistics.deviation.item()) != old
        after = head.values(head(features))
        size = max(before.abs().max().item(), head.statistics.deviation.item())
        assert (after - before).abs().max().item() <= 1e-5 * size


def test_a_frozen_head_and_its_statistics_stay_as_they_are():
    head = popart()
    head.adapt(torch.tensor([3.0, 90.0]))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.requires_grad_(False)
    head.adapt(torch.tensor([-1e3, 2e3]))
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_statistics_are_averages_without_the_bias_of_their_start():
    generator = np.random.default_rng(0)
    rollouts = [generator.normal(5 * i, 1 + i, size=400) for i in range(6)]
    head = popart()
    for number, targets in enumerate(rollouts):
        head.adapt(torch.tensor(targets))
        shares = (1 - DECAY) * DECAY ** np.arange(number, -1, -1) / (1 - DECAY ** (number + 1))
        assert shares.sum() == pytest.approx(1)
        mean = shares @ [each.mean() for each in rollouts[: number + 1]]
        square = shares @ [(each**2).mean() for each in rollouts[: number + 1]]
        assert head.statistics.mean.item() == pytest.approx(mean)
        assert head.statistics.deviation.item() == pytest.approx(np.sqrt(square - mean**2))


def test_targets_that_hardly_vary_are_not_blown_up():
    head = popart()
    head.adapt(torch.full((100,), 3.0))
    assert head.statistics.deviation.item() == pytest.approx(LEAST_DEVIATION)


def test_a_batch_is_normalised_by_the_rows_that_are_transitions():
    head, rows = popart(), torch.tensor([0, 2, 3])
    returns, values = torch.tensor([1.0, 1e9, 5.0, 6.0]), torch.tensor([2.0, 0.0, 3.0, 4.0])
    column = torch.zeros(4)
    batches = [Batch(column, column, column, column, returns, values)]
    (batch,) = adapt_values(head, batches, returns[rows])
    assert head.statistics.mean.item() == pytest.approx(4.0)
    deviation = np.std([1.0, 5.0, 6.0])
    assert batch.returns[rows].tolist() == pytest.approx(((np.array([1, 5, 6]) - 4) / deviation).tolist())
    assert batch.values[rows].tolist() == pytest.approx(((np.array([2, 3, 4]) - 4) / deviation).tolist())


def collected():
    """A rollout of random numbers in which an episode is cut and one ends."""
    generator = torch.Generator().manual_seed(0)
    rollout = Rollout(12, 2, (3,), torch.float32, (), torch.int64)
    rollout.observations.normal_(generator=generator)
    rollout.rewards.normal_(generator=generator)
    rollout.terminated[4, 0] = rollout.truncated[7, 1] = True
    for t, env in ((4, 0), (7, 1)):
        rollout.add_final(t, np.array([env]), np.full((1, 3), 0.5, np.float32))
    return rollout


def test_the_values_have_targets_by_a_lambda_of_their_own():
    rollout, model = collected(), make_actor_critic(BOX, DISCRETE)
    distribution, device = make_distribution(DISCRETE), torch.device("cpu")

    def batch(**knobs):
        with torch.no_grad():
            return compute_batch(rollout, model, distribution, {"gamma": 0.9, **knobs}, device)

    usual, other = batch(gae_lambda=0.95), batch(gae_lambda=0.3)
    decoupled = batch(gae_lambda=0.95, value_lambda=0.3)
    assert torch.equal(decoupled.advantages, usual.advantages)
    assert torch.equal(decoupled.returns, other.returns)
    assert not torch.allclose(decoupled.returns, usual.returns)
    # λ = 1 are the discounted rewards themselves, to the end of the episode
    flags, rewards = rollout.terminated[:, 0], rollout.rewards[:5, 0]
    assert flags[4]
    whole = batch(gae_lambda=0.0, value_lambda=1.0).returns.view(12, 2)[0, 0].item()
    assert whole == pytest.approx((0.9 ** torch.arange(5) * rewards).sum().item(), rel=1e-5)


TINY = (
    "env=CartPole-v1", "preset=none", "n_envs=2", "n_steps=32", "batch_size=32", "n_epochs=2",
    "total_timesteps=192", "eval.episodes=1", "compile=false", "vectorization=sync", "checkpoint.every=1",
    INTERRUPTIBLE,
)  # fmt: skip


def test_an_own_loss_of_normalised_values_resumes_exactly_and_gives_values_in_units_of_the_return(
    ppo_train, tmp_path, interrupt
):
    typed = (
        *TINY, "value_loss=own_update.expectile", "+value_loss_kwargs.tau=0.6", "normalize.values=true",
        "value_lambda=1", "anneal.value_lambda.final=0.5",
    )  # fmt: skip
    assert ppo_train(*typed, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*typed, "hydra.run.dir=cut").status == 143
    interrupt(None)
    resumed = ppo_train("resume=cut")
    assert resumed.status == 0
    assert (
        "importing own_update, which cut/config.yaml names (value_loss=own_update.expectile)" in resumed.out
    )
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    last = tmp_path / "whole" / "checkpoints" / "last.pt"
    held = load_checkpoint(last)["model"]
    mean, deviation = held["value_head.statistics.mean"], held["value_head.statistics.deviation"]
    assert mean.item() > 1
    assert deviation.item() > 1
    model = load_policy(last).batch.model
    with torch.no_grad():
        obs = torch.randn(5, 4)
        outputs = model.value_head(model.trunk(obs)).squeeze(-1)
        torch.testing.assert_close(model.value(obs), outputs * deviation + mean)
    curve = [float(row["charts/value_lambda"]) for row in table(tmp_path / "whole")]
    assert curve == pytest.approx([1, 5 / 6, 2 / 3])
    changed = ppo_train("resume=cut", "value_loss=mse", "total_timesteps=256")
    assert changed.status == 2
    assert "value_loss" in changed.err


def table(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (
            "value_loss=hubr",
            "value_loss=hubr: no loss 'hubr': expected mse, huber, symlog, two_hot or package.module",
        ),
        ("value_loss=huber +value_loss_kwargs.dlta=2", "huber takes no option 'dlta': it takes delta; did"),
        ("value_loss=huber +value_loss_kwargs.delta=-1", "ValueError: delta=-1: expected a number above 0"),
        ("value_loss=huber +value_loss_kwargs.delta=much", "huber with {'delta': 'much'} raised TypeError: "),
        ("value_loss=own_update.rows", "own_update.rows returned torch.float32 [2]: expected a scalar"),
        ("value_loss=two_hot normalize.values=true", "value_loss=two_hot has a scale of its own"),
        ("value_loss=symlog normalize.values=true", "value_loss=symlog has a scale of its own"),
        ("value_loss=two_hot vf_clip_ratio=0.2", "vf_clip_ratio=0.2: value_loss=two_hot clips no values"),
        (
            "value_loss=own_update.expectile vf_clip_ratio=1",
            "value_loss=own_update.expectile clips no values",
        ),
        ("value_lambda=1.5", "value_lambda=1.5: expected a value from 0 to 1"),
        ("anneal.value_lambda.final=0.5", "expected a finite value_lambda to start from"),
    ],
)
def test_what_does_not_go_together_is_a_line(typed, line):
    assert line in refusal(TINY[:-1], *typed.split())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "vf_clip_ratio"), [("huber", 0.2), ("symlog", 0.2), ("two_hot", None)])
def test_compiled_and_eager_updates_agree(tmp_path, name, vf_clip_ratio):
    torch.manual_seed(0)
    model, distribution = make_actor_critic(BOX, DISCRETE, value_loss=name), make_distribution(DISCRETE)
    params = flatten_parameters(model).clone()
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(64, generator=generator) for _ in range(3)]
    taken = torch.randint(2, (64,), generator=generator)
    batch = Batch(torch.randn(64, 3, generator=generator), taken, torch.full((64,), -0.7), *columns)
    hyper = update.Hyperparameters(value_loss=Loss(name, VALUE_LOSSES[name]))
    knobs = {"learning_rate": 1e-3, "clip_ratio": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
    knobs |= {} if vf_clip_ratio is None else {"vf_clip_ratio": vf_clip_ratio}
    eager = update.make_step(model, distribution, hyper, tuple(knobs))
    ends = []
    for step in (eager, compiled_step.compile_step(eager, tmp_path)):
        state = update.first_state(
            params, hyper.optimizer.init(params, update.parameter_shapes(model)), hyper
        )
        for _ in range(5):
            state = step(state, batch, torch.arange(64), torch.ones(64), torch.tensor(list(knobs.values())))
        ends.append(state)
    assert list(tmp_path.glob("*.pt2"))
    torch.testing.assert_close(ends[1].params, ends[0].params, rtol=0, atol=1e-5)
    torch.testing.assert_close(ends[1].sums, ends[0].sums, rtol=1e-4, atol=1e-4)
