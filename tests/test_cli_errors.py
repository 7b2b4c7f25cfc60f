"""Bad input: one line that names the key, what is wrong and the way out; status 2; nothing left behind."""

import pytest

CASES = [
    ("clip_rato=0.1", "'clip_rato'", "'clip_ratio'"),
    ("eval.episode=3", "'eval.episode'", "'eval.episodes'"),
    ("lr=1e-3", "'lr'", "--help"),
    ("+clip_ratio=0.3", "clip_ratio", "can only be set"),
    ("+new=0.3", "unknown key 'new'", "--help"),
    ("~seed", "seed", "can only be set"),
    ("clip_ratio=abc", "clip_ratio=abc", "a number"),
    ("n_envs=true", "n_envs=true", "an integer"),
    ("n_epochs=1.5", "n_epochs=1.5", "an integer"),
    ("threads=2.5", "threads=2.5", "an integer"),
    ("threads=many", "threads=many", "auto"),
    ("compile=maybe", "compile=maybe", "auto"),
    ("network.hidden_sizes=[64,a]", "network.hidden_sizes=[64,a]", "list of integers"),
    ("network.hidden_sizes=[0]", "network.hidden_sizes=0", "at least 1"),
    ("gamma=null", "gamma=null", "a number"),
    ("clip_ratio=-1", "clip_ratio=-1", "above 0"),
    ("clip_ratio=nan", "clip_ratio=nan", "above 0"),
    ("learning_rate=.inf", "learning_rate=.inf", "a number"),
    ("gamma=1.5", "gamma=1.5", "from 0 to 1"),
    ("n_epochs=0", "n_epochs=0", "at least 1"),
    ("seed=-1", "seed=-1", "from 0"),
    ("sde_sample_freq=0", "sde_sample_freq=0", "-1"),
    ("device=tpu", "device=tpu", "cuda"),
    ("device=cuda:99", "device=cuda:99", "auto"),
    ("anneal.ent_coef.shape=linar", "anneal.ent_coef.shape=linar", "'linear'"),
    ("anneal.ent_coef.final=0.1 anneal.ent_coef.shape=exponential", "ent_coef=0", "linear or cosine"),
    ("eval=3", "'eval' is a section", "eval.episodes"),
    ("network=mpl", "network=mpl", "'mlp'"),
    ("experiment=nothing", "experiment=nothing", "seed_document"),
    ("preset=CartPole-v1", "preset=CartPole-v1", "none"),
    ("env=null", "env=null", "~env"),
    ("~env", "no environment", "env=ID"),
    ("env=LunarLadner-v3", "LunarLadner", "Did you mean: `LunarLander`"),
    ("env=LunarLander-v99", "v99", "v3"),
    ("env=ALE/Nothing-v5", "ALE/Nothing-v5", ""),
    ("env=no_such_module:Foo-v0", "no_such_module", "pip install"),
    ("env=broken_envs:Lacking-v0", "surely_not_installed", "pip install surely_not_installed"),
    ("env=broken_envs:TextObservation-v0", "observation space Text(", "at 'words.0'"),
    ("env=broken_envs:SequenceAction-v0", "action space Sequence(", "expected Box"),
    ("env=broken_envs:Picky-v0", "Picky", "needed"),
    ("env=CartPole-v1 +env.kwargs.gravity=3", "gravity", "CartPole"),
    ("env.kwargs.gravity=3", "env.kwargs.gravity", "+env.kwargs.gravity"),
    ("env=CartPole-v1 use_sde=true", "use_sde=true", "Box"),
    ("env=CartPole-v1 squash_actions=true", "squash_actions=true", "Box"),
    ("env=Pendulum-v1 network.log_std=state", "network.log_std=state", "use_sde"),
    ("clip_ratio=0.1,0.2", "clip_ratio=0.1,0.2", "-m"),
    ("-m seed=0,1 clip_ratio=0.1,-0.2", "clip_ratio=-0.2", "above 0"),
    ("-m env=CartPole-v1,CartPoel-v1", "CartPoel", "CartPole"),
    ("-m seed=0,1,0", "seed=0", "twice"),
    ("-m seed=interval(0,1)", "seed=interval(0,1)", "listed values"),
    ("-m seed=0,1 --cfg job", "--cfg", "leave out -m"),
    ("env=CartPole-v1 --clip_ratio=0.1", "--clip_ratio=0.1", "knobs take no dashes"),
    ("env=CartPole-v1 -clip_ratio=0.1", "ratio=0.1", "knobs take no dashes"),
    ("+network.encoders={a:mlp}", "+network.encoders={a:mlp}", "+network.encoders.NAME=VALUE"),
    ("network.encoders={a:mlp}", "network.encoders.a", "+network.encoders.a=VALUE"),
    ("--config-path nowhere", "--config-path", "--config-dir"),
    ("seed=5000000000", "seed=5000000000", "from 0 to"),
    ("clip_ratio=${gamm}", "gamm", ""),
    ("network={hidden_sizes:[8]}", "network=", "a name"),
    ("++env.id=Acrobot-v1", "env.id", "can only be set"),
    ("clip_ratio", "'clip_ratio'", "KEY=VALUE"),
    ("seed=[1", "seed=[1", "KEY=VALUE"),
    ("--config-dir nowhere", "nowhere", "no such folder"),
    ("hydra/launcher=nothing", "hydra/launcher=nothing", "basic"),
]


@pytest.mark.parametrize(("line", "names", "remedy"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_nothing_left(ppo_train, tmp_path, line, names, remedy):
    outcome = ppo_train(*line.split())
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("ppo-train: ")
    assert names in outcome.err
    assert remedy in outcome.err
    assert list(tmp_path.iterdir()) == []
