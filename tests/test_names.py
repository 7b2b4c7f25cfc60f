"""Names of rows: short, and never two that are the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_cli.names import middle_cut, shared_parts, short_names, split_name
from ppo_cli.text import SPELLED, spelled

VALUES = st.text("ab01.-=,/…", max_size=12)
KNOBS = st.sampled_from(["seed", "clip_ratio", "env.kwargs.at", "+env.kwargs.at", "a.lr", "b.lr", "network"])
PARTS = st.builds(
    lambda separator, knob, value: f"{separator}{knob}={value}", st.sampled_from(",/_"), KNOBS, VALUES
)
NAMES = st.lists(st.lists(PARTS | VALUES, max_size=5), min_size=1, max_size=15)


@settings(max_examples=300, deadline=None)
@given(NAMES, st.none() | st.integers(3, 60))
def test_names_that_differ_stay_different_and_within_the_width(names, width):
    shown = short_names(names, width)
    assert len(shown) == len(names)
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            assert (shown[i] == shown[j]) == (first == second)
    if width is not None:
        assert max(map(len, shown)) <= width


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.integers(1, 30), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_cut_text_is_as_long_as_it_may_be_and_keeps_its_ends(text, width, head):
    cut = middle_cut(text, width, head=head)
    assert len(cut) == min(len(text), width)
    before, _, after = cut.partition("…")
    if len(text) > width:
        assert text.startswith(before) or "…" in text
        assert text.endswith(after) or "…" in text


def grid(*knobs):
    """Names of jobs that differ in two knobs, behind what they share."""
    first, second = knobs
    return [[",env=X", f",{first}={a}", f",{second}={b}"] for a in (0.1, 0.2) for b in (0.9, 0.95)]


@pytest.mark.parametrize(
    ("width", "first"),
    [
        (None, "+env.kwargs.clip_ratio=0.1,gae_lambda=0.9"),
        (40, "clip_ratio=0.1,gae_lambda=0.9"),
        (26, "clip…tio=0.1,gae_…bda=0.9"),
        (12, "0.1,0.9"),
        (6, "1 en…9"),
    ],
)
def test_what_is_swept_is_cut_last(width, first):
    assert short_names(grid("+env.kwargs.clip_ratio", "gae_lambda"), width)[0] == first


def test_sections_stay_where_knobs_would_become_the_same():
    assert short_names(grid("actor.lr", "critic.lr"), 22)[0] == "act…lr=0.1,cri…lr=0.9"


def test_of_runs_paths_what_tells_them_apart_is_left():
    sweep = ["outputs/sweeps/one/clip_ratio=0.1,seed=0", "outputs/sweeps/one/clip_ratio=0.2,seed=0"]
    assert short_names([split_name(run) for run in sweep]) == ["clip_ratio=0.1", "clip_ratio=0.2"]
    runs = [
        "outputs/CartPole-v1/2026-01-31_12-00-00_n_envs=4,network.hidden_sizes=64,64,seed=0",
        "outputs/CartPole-v1/2026-01-31_12-00-05_n_envs=4,network.hidden_sizes=64,64,seed=1",
    ]
    assert short_names([split_name(run) for run in runs]) == [
        "2026-01-31_12-00-00,seed=0",
        "2026-01-31_12-00-05,seed=1",
    ]
    assert short_names([split_name(run) for run in ("a", "a/checkpoints/100.pt")]) == [
        "a",
        "checkpoints/100.pt",
    ]
    assert short_names([split_name("a/b"), split_name("a/b")]) == ["b", "b"]
    assert short_names([["a", ",b=1"]]) == ["a,b=1"]
    assert shared_parts([[",a=1", ",b=2"], [",b=2", ",c=3"]]) == ["b=2"]


def test_what_an_encoding_lacks_is_spelled_or_escaped():
    assert spelled("return 20.0 ± 1.5 · a→b … λ", "ascii") == "return 20.0 +- 1.5 | a->b ... lambda"
    assert spelled("± · λ", "latin-1") == "± · lambda"
    assert spelled("é \udcff 漢", "ascii") == "\\xe9 \\udcff \\u6f22"
    assert spelled("é ± 漢", "utf-8") == "é ± 漢"
    assert all(text.isascii() for text in SPELLED.values())


def test_no_two_knobs_are_cut_to_the_same_letters():
    names = [[f",n_envs={n}", f",n_steps={t}"] for n in (8, 16) for t in (128, 256)]
    for width in range(8, 20):
        for name in short_names(names, width):
            knobs = [part.partition("=")[0] for part in name.split(",") if "=" in part]
            assert len(set(knobs)) == len(knobs)
