"""Atari's games from EnvPool: what they share with the wrapped ones, frame by frame, and what is taken."""

import numpy as np
import pytest

from ppo_cli.config.compose import load
from ppo_cli.envs.make import env_fn, make_env, spaces_of
from ppo_cli.envs.pool import EnvPoolVector
from ppo_cli.envs.pool_atari import translate
from ppo_cli.envs.vector import Recipe
from ppo_cli.errors import EnvError
from ppo_cli.runs.checkpoint import load_checkpoint

pytest.importorskip("envpool")
pytest.importorskip("ale_py")
cv2 = pytest.importorskip("cv2")

FRAMES = 4  # a step
PRESET = load("env=ALE/Breakout-v5").env


def entries(**options):
    """The preset's wrappers, with other arguments of some."""
    return [{**entry, **options.get(entry["name"], {})} for entry in PRESET.wrappers]


def pool(env_id, n, **options):
    make = env_fn(env_id, PRESET.kwargs, PRESET.wrappers, training=True)
    wrappers = entries(**options)
    return EnvPoolVector(Recipe(env_id, [make] * n, spaces_of(make), kwargs=PRESET.kwargs, wrappers=wrappers))


class Emulator:
    """The bare game, given what the published settings say: skipped frames, their maximum, and the score."""

    def __init__(self, env_id):
        self._env = make_env(env_id, PRESET.kwargs)
        self.ale = self._env.unwrapped.ale
        self._fire = self._env.unwrapped.get_action_meanings().index("FIRE")

    def begin(self, anew):
        if anew:
            self._env.reset(seed=0)
        self._env.step(self._fire)
        return self._shown(self.ale.getScreenGrayscale())

    def step(self, action):
        score, seen = 0.0, []
        for _ in range(FRAMES):
            score += self._env.step(action)[1]
            seen.append(self.ale.getScreenGrayscale())
            if self.ale.game_over():
                return score, None
        return score, self._shown(np.maximum(*seen[-2:]))

    @staticmethod
    def _shown(screen):
        return cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", pytest.param("ALE/Qbert-v5", marks=pytest.mark.slow)])
def test_envpool_shows_and_pays_what_the_emulator_does(env_id):
    game = Emulator(env_id)
    # FIRE takes the place of a single no-op, so that no number of them is drawn
    envs = pool(env_id, 1, AtariPreprocessing={"noop_max": 1})
    obs, _ = envs.reset(seed=[0])
    assert all(np.array_equal(frame, obs[0, -1]) for frame in obs[0])
    assert np.array_equal(obs[0, -1], game.begin(anew=True))
    lives, scores, total, ends = game.ale.lives(), [], 0.0, 0
    for action in np.random.default_rng(0).integers(0, envs.single_action_space.n, 600):
        last = obs.copy()
        obs, rewards, terminated, truncated, info = envs.step(np.array([action]))
        if info["filler"]:
            is_anew = game.ale.game_over()
            shown = game.begin(is_anew)
            assert (rewards, terminated, truncated) == (0, False, False)
            assert np.array_equal(obs[0, -1], shown)
            # unlike `FrameStackObservation`, a life begins with the frames of the one before
            assert np.array_equal(obs[0, 0], shown if is_anew else last[0, 1])
            lives = game.ale.lives()
            continue
        score, shown = game.step(action)
        total += score
        assert rewards == np.sign(score)
        is_over, is_lost = game.ale.game_over(), 0 < game.ale.lives() < lives
        lives = game.ale.lives()
        assert terminated == (is_over or is_lost)
        assert not truncated
        assert info["env_over"] == is_over
        if is_over:
            scores.append((info["returns"].item(), total))
            total = 0.0
        else:
            assert np.isnan(info["returns"])
            assert np.array_equal(obs[0, -1], shown)
        ends += int(is_lost)
    assert len(scores) >= 1
    assert ends >= 3
    assert all(told == played for told, played in scores)


def test_the_preset_becomes_envpools_arguments():
    assert translate("ALE/SpaceInvaders-v5", PRESET.kwargs, PRESET.wrappers) == (
        "SpaceInvaders-v5",
        {
            "noop_max": 30, "frame_skip": 4, "img_height": 84, "img_width": 84, "stack_num": 4,
            "episodic_life": True, "use_fire_reset": True, "reward_clip": True,
            "repeat_action_probability": 0.0, "full_action_space": False, "max_episode_steps": 27000,
        },
    )  # fmt: skip


def test_what_is_left_out_or_changed_is_so_in_envpool():
    kwargs = {"frameskip": 1, "full_action_space": True, "max_num_frames_per_episode": 18000}
    wrappers = [
        {"name": "AtariPreprocessing", "noop_max": 7, "frame_skip": 3, "screen_size": 64},
        {"name": "FrameStackObservation", "stack_size": 2},
    ]
    task, found = translate("ALE/MsPacman-v5", kwargs, wrappers)
    assert task == "MsPacman-v5"
    assert found == {
        "noop_max": 7, "frame_skip": 3, "img_height": 64, "img_width": 64, "stack_num": 2,
        "episodic_life": False, "use_fire_reset": False, "reward_clip": False,
        "repeat_action_probability": 0.25, "full_action_space": True, "max_episode_steps": 6000,
    }  # fmt: skip


def test_the_older_name_of_a_game_is_the_same():
    names = ("ALE/Pong-v5", "PongNoFrameskip-v4")
    one, other = (translate(name, PRESET.kwargs, PRESET.wrappers) for name in names)
    assert one == other


@pytest.mark.parametrize("limit", [None, 0])
def test_a_game_without_a_limit_has_none_there_either(limit):
    _, found = translate("ALE/Pong-v5", {"max_num_frames_per_episode": limit}, PRESET.wrappers)
    assert found["max_episode_steps"] == 2**31 // FRAMES - 1


@pytest.mark.parametrize(
    ("kwargs", "wrappers", "said"),
    [
        ({"mode": 1}, PRESET.wrappers, "env.kwargs.mode: vectorization=envpool takes frameskip, "),
        ({"max_num_frames_per_episode": -5}, PRESET.wrappers, "=-5: vectorization=envpool takes 0, which is"),
        ({"max_num_frames_per_episode": 3}, PRESET.wrappers, "=3: vectorization=envpool takes 0, which is "),
        ({}, [], "AtariPreprocessing and FrameStackObservation always, given none"),
        ({}, PRESET.wrappers[:-1], "given RecordEpisodeStatistics, AtariPreprocessing, EpisodicLife, "),
        ({}, PRESET.wrappers[::-1], "in this order"),
        ({}, [*PRESET.wrappers, {"name": "FrameStackObservation", "stack_size": 4}], "in this order"),
        ({}, [*PRESET.wrappers, {"name": "my.Wrapper"}], "FrameStackObservation, my.Wrapper; for others use"),
        ({}, entries(AtariPreprocessing={"scale_obs": True}), "AtariPreprocessing with scale_obs=True"),
        ({}, entries(AtariPreprocessing={"terminal_on_life_loss": True}), "terminal_on_life_loss=False"),
        ({}, entries(AtariPreprocessing={"screen_size": (84, 64)}), "with screen_size=(84, 64)"),
        ({}, entries(AtariPreprocessing={"noop_max": 0}), "with noop_max=0: vectorization=envpool takes at"),
        ({}, entries(AtariPreprocessing={"frame_skip": 1}), "with frame_skip=1: vectorization=envpool takes"),
        ({}, entries(FrameStackObservation={"padding_type": "zero"}), "with padding_type=zero"),
        ({}, entries(FireReset={"by": 2}), "FireReset with by=2: vectorization=envpool takes no arguments"),
    ],
)
def test_what_envpool_does_not_have_is_refused_in_a_line(kwargs, wrappers, said):
    with pytest.raises(EnvError, match=r"^env\.(wrappers|kwargs).*use vectorization=auto$") as refused:
        translate("ALE/Breakout-v5", kwargs, wrappers)
    assert said in str(refused.value)


def test_a_config_with_other_wrappers_is_refused_before_anything_is_written(ppo_train, tmp_path):
    refused = ppo_train("env=ALE/Pong-v5", "vectorization=envpool", "env.wrappers=[]")
    assert refused.status == 2
    assert refused.err.startswith("ppo-train: env.wrappers: vectorization=envpool takes RecordEpisode")
    assert refused.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_envpools_atari_learns_from_transitions_and_is_evaluated_in_the_wrappers(
    ppo_train, tmp_path
):
    outcome = ppo_train(
        "env=ALE/Breakout-v5", "vectorization=envpool", "total_timesteps=800", "n_envs=4", "n_steps=200",
        "batch_size=800", "n_epochs=1", "compile=false", "eval.episodes=1", "eval.max_steps=10",
        "network.image_encoder=flatten", "network.hidden_sizes=[4]",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "envpool" in outcome.out
    steps = load_checkpoint(next(tmp_path.glob("outputs/*/*/checkpoints/last.pt")))["steps"]
    assert steps >= 800
    assert steps % 800 != 0  # rows of 4 x 200, less the one after each lost life
    header, *rows = next(tmp_path.glob("outputs/*/*/metrics.csv")).read_text().splitlines()
    column = header.split(",").index("charts/episodic_length")
    lengths = [float(row.split(",")[column] or 0) for row in rows]
    assert max(lengths) > 100  # whole games, over their lives
