"""Overrides: a command line's, read once, and those that values of Python's are written as."""

import math
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ppo_cli.config.compose import load
from ppo_cli.config.overrides import override_texts, read_line, read_override
from ppo_cli.errors import ConfigError

keys = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8).map(
    lambda text: f"k{text}"
)
texts = st.text(max_size=12) | st.text("\\'\"${}[]():,=~+ \tna1", max_size=12)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False),
    texts.filter(str.isprintable),
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_a_value_of_pythons_reads_back_as_itself(value):
    read = read_override(override_texts("any", value)[0]).value()
    resolved = OmegaConf.to_container(OmegaConf.create({"value": read}), resolve=True)["value"]
    assert repr(resolved) == repr(value)  # 1 is not True, nor 1.0


@settings(max_examples=8, deadline=None)  # each is composed
@given(
    st.dictionaries(keys, values, min_size=2, max_size=5), st.lists(texts.filter(str.isprintable), max_size=3)
)
def test_a_value_of_pythons_composes_back_to_itself(kwargs, names):
    wrappers = [{"name": name, "path": "${oc.env:HOME}", "text": "\\${a}: 1"} for name in names]
    config = load(
        "env=CartPole-v1", *override_texts("env.kwargs", kwargs), *override_texts("env.wrappers", wrappers)
    )
    assert repr(config.env.kwargs) == repr(kwargs)
    assert config.env.wrappers == wrappers


def test_what_need_not_be_quoted_is_written_as_it_is_typed():
    assert override_texts("network", "mlp_large") == ["network=mlp_large"]
    assert override_texts("env", "ALE/Breakout-v5") == ["env=ALE/Breakout-v5"]
    assert override_texts("env", "minigrid:MiniGrid-Empty-5x5-v0") == ["env=minigrid:MiniGrid-Empty-5x5-v0"]
    assert override_texts("vf_clip_ratio", None) == ["vf_clip_ratio=null"]
    assert override_texts("eval", {"episodes": 3, "deterministic": False}) == [
        "eval={episodes:3,deterministic:false}"
    ]


def test_numbers_of_numpys_paths_and_infinity_are_values_too():
    config = load(
        "env=CartPole-v1",
        *override_texts("clip_ratio", np.float32(0.25)),
        *override_texts("n_envs", np.int64(3)),
        *override_texts("max_grad_norm", math.inf),
        *override_texts("env.kwargs", {"file": Path("a b/c")}),
        *override_texts("network.hidden_sizes", (8, 16)),
    )
    assert (config.clip_ratio, config.n_envs, config.max_grad_norm) == (0.25, 3, math.inf)
    assert config.env.kwargs == {"file": "a b/c"} and config.network.hidden_sizes == [8, 16]


def test_a_value_that_no_config_holds_is_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"^hooks: expected a number, a text, .*given object$"):
        override_texts("hooks", [object()])
    with pytest.raises(ConfigError, match=r"^env\.kwargs: expected keys of letters.*given 'a b'$"):
        override_texts("env.kwargs", {"a b": 1})


def test_what_is_to_go_on_with_is_no_override():
    line = read_line(["resume=outputs/a,b=[1", "gamma=0.9", "resume='auto'", "env.id=Foo-v0"])
    assert line.targets == {"resume": ["outputs/a,b=[1", "auto"], "sweep.resume": []}
    assert line.goes_on
    assert [override.key_or_group for override in line.typed] == ["gamma", "env.id"]
    assert line.words == ["gamma=0.9", "env.id=Foo-v0", "~env"]


def test_folders_of_a_sweep_are_told_apart_whatever_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a=1,b=2", "c=3"):
        (tmp_path / name).mkdir()
    for typed, found in (
        ("null,a=1,b=2", ["null", "'a=1,b=2'"]),
        ("a=1,b=2,c=3:best,null", ["'a=1,b=2'", "'c=3:best'", "null"]),
    ):
        override = read_override(f"init_from={typed}")
        assert list(override.sweep_string_iterator()) == found
    assert read_override("init_from=a=1,b=2").value() == "a=1,b=2"
    assert (
        read_override("init_from=null,nowhere=1").value() == "null,nowhere=1"
    )  # said where it is looked for


def test_places_in_a_tuple_are_keys_of_encoders():
    texts = override_texts(
        "network.encoders", {"0": "mlp", "z": {"1": "mlp"}, "s": {"name": "own.Enc", "k": 1}}
    )
    assert texts[:2] == ["++network.encoders.0=mlp", "++network.encoders.z.1=mlp"]
    encoders = load("env=CartPole-v1", *texts).network.encoders
    assert encoders == {"0": "mlp", "z": {"1": "mlp"}, "s": {"name": "own.Enc", "k": 1}}


def test_places_are_no_keys_of_an_environments_own():
    with pytest.raises(ConfigError, match="expected keys of letters"):
        override_texts("env.kwargs", {"table": {0: 0.5}})
    with pytest.raises(ConfigError, match="expected keys of letters"):
        override_texts("env.kwargs", {"0": 1})


def test_a_folder_that_hydras_grammar_refuses_is_quoted():
    assert read_override("hydra.run.dir=it's/a=b").value() == "it's/a=b"
    assert read_override("hydra.run.dir=outputs/x").input_line == "hydra.run.dir=outputs/x"
    with pytest.raises(ConfigError, match=r"can't read 'gamma=\[1'"):
        read_override("gamma=[1")
