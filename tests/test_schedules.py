"""Annealing schedules against PyTorch's learning rate schedulers, and at points worked out by hand."""

from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from ppo_cli.schedules import Schedule, Shape

SHAPES: list[Shape] = ["linear", "cosine", "exponential"]
STEPS = 10


def torch_schedule(initial: float, final: float, shape: Shape) -> list[float]:
    """The learning rates of PyTorch's scheduler of that shape at progress 0, 1/10, ..., 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=initial)
    if shape == "linear":
        scheduler = lr_scheduler.LinearLR(optimizer, 1.0, final / initial, total_iters=STEPS)
    elif shape == "cosine":
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=final)
    else:
        scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=(final / initial) ** (1 / STEPS))
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(STEPS):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("shape", SHAPES)
def test_matches_torch(shape: Shape) -> None:
    schedule = Schedule(3e-2, 3e-4, shape)
    ours = [schedule(i / STEPS) for i in range(STEPS + 1)]
    assert ours == pytest.approx(torch_schedule(3e-2, 3e-4, shape), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_final_value_the_knob_is_constant(shape: Shape) -> None:
    schedule = Schedule(0.1, None, shape)
    assert [schedule(progress) for progress in (0.0, 0.3, 1.0)] == [0.1, 0.1, 0.1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("initial", "final"), [(0.1, 0.005), (0.005, 0.1), (0.2, 0.2)])
def test_runs_from_initial_to_final_without_turning_back(shape: Shape, initial: float, final: float) -> None:
    schedule = Schedule(initial, final, shape)
    values = [schedule(i / 100) for i in range(101)]
    assert values[0] == pytest.approx(initial)
    assert values[-1] == pytest.approx(final)
    falling = values if initial >= final else values[::-1]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(falling))


@pytest.mark.parametrize(
    ("shape", "progress", "value"),
    [
        ("linear", 0.25, 75.25),
        ("cosine", 0.5, 50.5),
        ("cosine", 1 / 3, 75.25),  # cos(π/3) = 1/2
        ("exponential", 0.5, 10.0),  # the geometric mean of 100 and 1
    ],
)
def test_value_by_hand(shape: Shape, progress: float, value: float) -> None:
    assert Schedule(100.0, 1.0, shape)(progress) == pytest.approx(value)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_reaches_zero_exactly_and_never_goes_below(shape: Shape) -> None:
    schedule = Schedule(2.5e-4, 0.0, shape)
    assert schedule(1.0) == 0.0
    assert min(schedule(i / 977) for i in range(978)) >= 0.0


@pytest.mark.parametrize(("final", "shape"), [(None, "linear"), (0.0, "linear"), (0.0, "cosine")])
def test_a_warm_up_rises_in_a_line_and_the_schedule_goes_on_to_the_same_end(
    final: float | None, shape: Shape
) -> None:
    schedule, whole = Schedule(8.0, final, shape, warmup=0.25), Schedule(8.0, final, shape)
    assert [schedule(p) for p in (0.0, 0.125, 0.25)] == [0.0, 4.0, 8.0]
    assert schedule(0.625) == pytest.approx(whole(0.5))
    assert schedule(1.0) == pytest.approx(whole(1.0))
    assert not schedule.is_constant and whole.is_constant == (final is None)


def test_no_iteration_of_a_warm_up_is_trained_with_nothing_or_with_more_than_the_value() -> None:
    schedule = Schedule(6.0, warmup=0.5)
    assert [schedule(i / 6, 1 / 6) for i in range(6)] == pytest.approx([2, 4, 6, 6, 6, 6])
    assert [schedule(i / 5, 1 / 5) for i in range(5)] == pytest.approx([2.4, 4.8, 6, 6, 6])
    assert Schedule(6.0, warmup=0.01)(0.0, 0.2) == 6.0  # a share of less than an iteration
