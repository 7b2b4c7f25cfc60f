"""Published settings are what was published, row by row of a table, and presets say whose they have."""

import functools
import re
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from ppo_cli.config.compose import load
from ppo_cli.config.convert import dotted, from_stored, load_yaml, to_dict
from ppo_cli.config.published import published
from ppo_cli.config.schema import conf_dir, find_knob
from ppo_cli.errors import ConfigError

# A dash is Stable-Baselines3's default, `lin` before a number decays it to 0 over the run.
TABLE = """
environment              | n_envs | T   | n_steps | batch | epochs | γ     | λ    | ent      | lr         | clip    | norm
CartPole-v1              | 8      | 1e5 | 32      | 256   | 20     | .98   | .8   | 0        | lin .001   | lin .2  | no
Acrobot-v1               | 16     | 1e6 | 256     | -     | 4      | .99   | .94  | 0        | -          | -       | yes
MountainCar-v0           | 16     | 1e6 | 16      | -     | 4      | .99   | .98  | 0        | -          | -       | yes
Pendulum-v1              | 4      | 1e5 | 1024    | -     | 10     | .9    | .95  | 0        | 1e-3       | .2      | no
MountainCarContinuous-v0 | 1      | 2e4 | 8       | 256   | 10     | .9999 | .9   | .00429   | 7.77e-5    | .1      | yes
LunarLander-v3           | 16     | 1e6 | 1024    | 64    | 4      | .999  | .98  | .01      | -          | -       | no
LunarLanderContinuous-v3 | 16     | 1e6 | 1024    | 64    | 4      | .999  | .98  | .01      | -          | -       | no
BipedalWalker-v3         | 32     | 5e6 | 2048    | 64    | 10     | .999  | .95  | 0        | 3e-4       | .18     | yes
BipedalWalkerHardcore-v3 | 16     | 1e8 | 2048    | 64    | 10     | .99   | .95  | .001     | lin 2.5e-4 | lin .2  | yes
HalfCheetah              | 1      | 1e6 | 512     | 64    | 20     | .98   | .92  | 0.000401762  | 2.0633e-5  | .1      | yes
Hopper                   | 1      | 1e6 | 512     | 32    | 5      | .999  | .99  | 0.00229519 | 9.80828e-5 | .2      | yes
Walker2d                 | 1      | 1e6 | 512     | 32    | 20     | .99   | .95  | 0.000585045  | 5.05041e-5 | .1      | yes
Ant                      | 1      | 1e6 | -       | -     | -      | -     | -    | -        | -          | -       | yes
Humanoid                 | 1      | 1e7 | 512     | 256   | 5      | .95   | .9   | 0.00238306 | 3.56987e-5 | .3      | yes
Swimmer                  | 4      | 1e6 | 1024    | 256   | -      | .9999 | .98  | -        | 6e-4       | -       | yes
Reacher                  | 1      | 1e6 | 512     | 32    | 5      | .9    | 1.0  | 7.52585e-08   | 0.000104019    | .3      | yes
InvertedPendulum         | 1      | 1e6 | 32      | 64    | 5      | .999  | .9   | 1.37976e-07   | 0.000222425    | .4      | yes
InvertedDoublePendulum   | 1      | 1e6 | 128     | 512   | 10     | .98   | .8   | 1.05057e-06  | 0.000155454    | .4      | yes
CarRacing-v3             | 8      | 4e6 | 512     | 128   | 10     | .99   | .95  | 0        | lin 1e-4   | .2      | returns
MiniGrid                 | 8      | 1e5 | 128     | 64    | 10     | .99   | .95  | 0        | 2.5e-4     | .2      | yes
MiniGrid-KeyCorridorS3R1-v0    | 8 | 5e5 | 128    | 64    | 10     | .99   | .95  | 0        | 2.5e-4     | .2      | yes
MiniGrid-RedBlueDoors-6x6-v0   | 8 | 1e6 | 512    | 64    | 10     | .99   | .95  | 0        | 2.5e-4     | .2      | yes
Atari                    | 8      | 1e7 | 128     | 256   | 4      | -     | -    | .01      | lin 2.5e-4 | lin .1  | no
MinAtar                  | 64     | 1e7 | 128     | 1024  | 4      | .99   | .95  | .01      | lin 5e-3   | .2      | no
"""  # noqa: E501 - a table

COLUMNS = {  # the table's column: the knob, and Stable-Baselines3's default
    "n_envs": ("n_envs", 1),
    "T": ("total_timesteps", None),
    "n_steps": ("n_steps", 2048),
    "batch": ("batch_size", 64),
    "epochs": ("n_epochs", 10),
    "γ": ("gamma", 0.99),
    "λ": ("gae_lambda", 0.95),
    "ent": ("ent_coef", 0.0),
    "lr": ("learning_rate", 3e-4),
    "clip": ("clip_ratio", 0.2),
}
HEADINGS, *ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.split("\n") if line]
IDS = [row[0] for row in ROWS]

SEPARATE = ([64, 64], "tanh", False, True, 0.0)  # hidden_sizes, activation, shared, ortho_init, log_std_init
ATARI = ([], "relu", True, True, 0.0)  # and image_encoder=nature_cnn, or minatar_cnn
CAR_RACING = ([256], "gelu", False, False, -2.0)  # the same
MUJOCO = ([256, 256], "relu", False, False, -2.0)
OTHER = {  # max_grad_norm, vf_coef, network; where they are not .5, .5 and SEPARATE
    "MountainCarContinuous-v0": (5.0, 0.19, ([64, 64], "tanh", False, False, -3.29)),
    "HalfCheetah": (0.8, 0.58096, MUJOCO),
    "Hopper": (0.7, 0.835671, MUJOCO),
    "Walker2d": (1.0, 0.871923, SEPARATE),
    "Humanoid": (2.0, 0.431892, MUJOCO),
    "Reacher": (0.9, 0.950368, SEPARATE),
    "InvertedPendulum": (0.3, 0.19816, SEPARATE),
    "InvertedDoublePendulum": (0.5, 0.695929, SEPARATE),
    "CarRacing-v3": (0.5, 0.5, CAR_RACING),
    "Atari": (0.5, 0.5, ATARI),
    "MinAtar": (0.5, 0.25, ATARI),  # half the squared error there
}
GSDE = {"Pendulum-v1": 4, "MountainCarContinuous-v0": -1, "CarRacing-v3": 4}  # sde_sample_freq
GAMES = ["Pong", "Breakout", "Qbert", "BeamRider", "Seaquest", "SpaceInvaders"]
MINATAR = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]
TASKS = ["Empty-Random-5x5", "DoorKey-5x5", "Unlock"]
SAMPLED = [
    "Atari",
    "MinAtar",
    *(name for name in IDS if name.startswith("MiniGrid")),
]  # evaluated as published: the table's returns are of sampled actions
PUBLISHED = [name for name in IDS if name != "MinAtar"]  # which no table of rl-zoo3's has
CONTINUOUS = [
    name
    for name in IDS
    if (name in OTHER and OTHER[name][2] in (SEPARATE, MUJOCO)) or name in ("Ant", "Swimmer")
]
RETIRED = ["LunarLander-v2", "LunarLanderContinuous-v2"]


def ids(name: str) -> list[str]:
    """The ids of a row: MuJoCo's stand for both versions, Atari's for all games."""
    if name == "Atari":
        return [name for game in GAMES for name in (f"ALE/{game}-v5", f"{game}NoFrameskip-v4")]
    if name == "MinAtar":
        return [f"MinAtar/{game}-v1" for game in MINATAR]
    if name == "MiniGrid":
        return [f"MiniGrid-{task}-v0" for task in TASKS]
    return [name] if "-v" in name else [f"{name}-v5", f"{name}-v4"]


@functools.cache
def composed(env_id: str, *overrides: str):
    return load(f"env={env_id}", *overrides)


def check_row(row: list[str], config) -> None:
    """The config has what its row of the table says, and the other settings of that row."""
    cells = dict(zip(HEADINGS, row, strict=True))
    name = cells["environment"]
    for column, (knob, default) in COLUMNS.items():
        cell = cells[column]
        assert getattr(config, knob) == (default if cell == "-" else float(cell.split()[-1])), (name, knob)
        if hasattr(config.anneal, knob):
            final = getattr(config.anneal, knob).final
            assert final == (0.0 if cell.startswith("lin ") else None), (name, knob)
    normalize = (config.normalize.observations, config.normalize.rewards, config.normalize.clip)
    assert normalize == (cells["norm"] == "yes", cells["norm"] != "no", 10.0)
    max_grad_norm, vf_coef, network = OTHER.get(name, (0.5, 0.5, SEPARATE))
    assert (config.max_grad_norm, config.vf_coef) == (max_grad_norm, vf_coef)
    found = config.network
    assert network == (
        found.hidden_sizes, found.activation, found.shared, found.ortho_init, found.log_std_init
    )  # fmt: skip
    images = {"Atari": "nature_cnn", "CarRacing-v3": "nature_cnn", "MinAtar": "minatar_cnn"}
    assert found.image_encoder == images.get(name, "auto")
    assert config.eval.deterministic == (name not in SAMPLED)
    assert config.use_sde == (name in GSDE)
    assert config.sde_sample_freq == GSDE.get(name, -1)
    assert config.vf_clip_ratio == (0.2 if name == "MinAtar" else None)
    assert (config.target_kl, config.normalize_advantage) == (None, True)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] in PUBLISHED], ids=PUBLISHED)
def test_rl_zoo3s_settings_of_an_environment_are_its_row_of_the_table(row):
    first, *others = ids(row[0])
    config = composed(first, "experiment=rl_zoo3")
    assert config.env.id == first
    check_row(row, config)
    keys = dict(dotted(load_yaml(conf_dir() / "base" / "rl_zoo3.yaml")["otherwise"]))
    for other in others:
        for key in ("total_timesteps", *keys):
            assert setting(other, key) == setting(first, key)


def setting(env_id: str, key: str):
    return published("rl_zoo3", key, _root_=SimpleNamespace(env=SimpleNamespace(id=env_id)))


@pytest.mark.parametrize("typed", ["LunarLander-v2", "gymnasium:LunarLander-v3", "LunarLander"])
def test_published_settings_are_those_of_any_version(typed):
    assert setting(typed, "gamma") == 0.999


def test_an_environment_without_published_settings_is_said_in_a_line():
    with pytest.raises(
        ConfigError, match=r"^experiment=rl_zoo3 has no settings for Hoper-v5, only .*'Hopper'\?$"
    ):
        load("env=Hoper-v5", "experiment=rl_zoo3")


def test_what_is_typed_wins_over_published_settings():
    config = load("env=Hopper-v5", "experiment=rl_zoo3", "n_steps=64", "network=mlp_large", "preset=none")
    assert (config.n_steps, config.n_epochs, config.network.hidden_sizes) == (64, 5, [512, 512, 256])


def test_published_settings_hide_every_knob_that_a_preset_may_set():
    plain = dict(dotted(load_yaml(conf_dir() / "base" / "plain.yaml")))
    defaults = dict(dotted(to_dict(from_stored({"env": {"id": "any"}}))))
    own = (
        "env",
        "network",
        "seed",
        "total_timesteps",
        "vectorization",
        "shards",
        "init_",
        "freeze",
        "hooks",
        "stop",
    )
    learned = {
        key
        for key in defaults
        if find_knob(key).learned and not key.startswith(own) and not find_knob(key).entries
    }
    assert plain == {key: defaults[key] for key in learned}
    text = (conf_dir() / "experiment" / "rl_zoo3.yaml").read_text()
    text += (conf_dir() / "network" / "rl_zoo3.yaml").read_text()
    table = dict(dotted(load_yaml(conf_dir() / "base" / "rl_zoo3.yaml")["otherwise"]))
    assert set(re.findall(r"\$\{published:rl_zoo3,([\w.]+)\}", text)) == {"total_timesteps", *table}
    for experiment in ("cleanrl", "cleanrl_atari", "cleanrl_continuous", "rl_zoo3"):
        assert (
            "defaults:\n  - /base/plain\n" in (conf_dir() / "experiment" / f"{experiment}.yaml").read_text()
        )


@pytest.mark.parametrize("name", IDS)
def test_a_preset_that_says_so_has_rl_zoo3s_settings(name):
    first, *others = ids(name)
    words = (conf_dir() / "env" / f"{first}.yaml").read_text().split("\n")[1]
    if name == "MinAtar":
        check_row(ROWS[IDS.index(name)], composed(first))
    elif words.startswith(
        ("# rl-zoo3's settings", "# The settings of all Atari games", "# The settings of MiniGrid")
    ):
        assert composed(first) == composed(first, "experiment=rl_zoo3")
    for other in others:
        of_first, of_other = (OmegaConf.load(conf_dir() / "env" / f"{each}.yaml") for each in (first, other))
        assert of_other == OmegaConf.create({"defaults": [first.rpartition("/")[2]]}) or of_other == of_first


def test_no_preset_is_without_a_row():
    files = {str(path.relative_to(conf_dir() / "env"))[:-5] for path in (conf_dir() / "env").rglob("*.yaml")}
    assert files == {env_id for row in ROWS for env_id in ids(row[0])} | set(RETIRED)


@pytest.mark.parametrize("env_id", RETIRED)
def test_a_retired_id_has_its_successors_settings(env_id):
    retired, successor = load(f"env={env_id}"), composed(env_id.replace("v2", "v3"))
    retired.env.id = successor.env.id
    assert retired == successor


@pytest.mark.parametrize("more", [(), ("experiment=rl_zoo3",)])
@pytest.mark.parametrize(
    "typed", ["minigrid:MiniGrid-DoorKey-5x5-v0", "ale_py:ALE/Pong-v5", "gymnasium:LunarLander"]
)
def test_the_module_that_registers_an_id_changes_no_setting(typed, more):
    module, _, bare = typed.partition(":")
    named, alone = load(f"env={typed}", *more), load(f"env={bare}", *more)
    named.env.id = alone.env.id
    assert named == alone
    assert named.env.wrappers or module == "gymnasium"


def test_a_vector_of_ones_own_has_no_preset_of_another():
    assert load("env=my_vectors:Pendulum").n_steps == load("env=my_vectors:Own").n_steps
    assert load("env=gymnasium:Pendulum").n_steps == load("env=Pendulum-v1").n_steps


@pytest.mark.parametrize("name", CONTINUOUS)
def test_cleanrls_continuous_settings_are_the_same_for_every_environment(name):
    hopper, other = (
        composed("Hopper-v5", "experiment=cleanrl_continuous"),
        load(f"env={ids(name)[0]}", "experiment=cleanrl_continuous"),
    )
    other.env.id = hopper.env.id
    assert other == hopper


def test_cleanrls_settings_are_those_that_were_published():
    hopper = composed("Hopper-v5", "experiment=cleanrl_continuous")
    cart_pole = composed("CartPole-v1", "experiment=cleanrl")
    pong = composed("PongNoFrameskip-v4", "experiment=cleanrl_atari")
    for config, n_envs, n_steps, minibatches, n_epochs, rate, clip, ent_coef in (
        (hopper, 1, 2048, 32, 10, 3e-4, 0.2, 0.0),
        (cart_pole, 4, 128, 4, 4, 2.5e-4, 0.2, 0.01),
        (pong, 8, 128, 4, 4, 2.5e-4, 0.1, 0.01),
    ):
        assert (config.n_envs, config.n_steps, config.minibatches) == (n_envs, n_steps, minibatches)
        assert (config.n_epochs, config.learning_rate, config.ent_coef) == (n_epochs, rate, ent_coef)
        assert (config.clip_ratio, config.vf_clip_ratio, config.vf_coef) == (clip, clip, 0.25)
        assert (config.anneal.learning_rate.final, config.anneal.clip_ratio.final) == (0.0, None)
        assert (config.gamma, config.gae_lambda, config.max_grad_norm) == (0.99, 0.95, 0.5)
    assert (hopper.normalize.observations, hopper.normalize.rewards) == (True, True)
    assert (cart_pole.normalize.observations, cart_pole.normalize.rewards) == (False, False)
    assert (hopper.network.hidden_sizes, hopper.network.shared) == ([64, 64], False)
    assert (pong.network.image_encoder, pong.network.shared) == ("nature_cnn", True)
