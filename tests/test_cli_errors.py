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
    ("network.hidden_sizes=[0]", "network.hidden_sizes=0", "from 1 to 16384"),
    ("network.hidden_sizes=[64,[64]]", "network.hidden_sizes", "a list of integers, given [64, [64]]"),
    (f"network.hidden_sizes=[{','.join(['64'] * 65)}]", "65 entries", "at most 64"),
    (
        "network.hidden_sizes=[16384,16384,16384,16384,16384] network.shared=false n_steps=1e6 n_envs=65536",
        "65,536,000,000 steps would take",
        "lower it",
    ),
    (f"network.hidden_sizes=[{','.join(['16384'] * 64)}]", "network.hidden_sizes would take", "lower it"),
    ("threads=1000000", "threads=1000000", "from 1 to 1024"),
    ("n_steps=1e12", "n_steps=1000000000000", "from 1 to 1000000000"),
    ("n_envs=2147483648", "n_envs=2147483648", "from 1 to 65536"),
    ("eval.episodes=1e30", "eval.episodes=1", "from 0 to 1000000"),
    ("total_timesteps=inf", "total_timesteps=inf", "an integer"),
    ("learning_rate=1e-320", "learning_rate=1e-320", "from 1.18e-38"),
    ("learning_rate=1e39", "learning_rate=1e+39", "to 3.4e+38"),
    ("anneal.ent_coef.final=1e-40", "anneal.ent_coef.final=1e-40", "32-bit"),
    ("network.ortho_init=str(3)", "network.ortho_init=str(3)", "true or false"),
    ("network.shared=2", "network.shared=2", "true or false"),
    ("normalize.rewards=yes", "normalize.rewards=yes", "true or false"),
    ("gamma=null", "gamma=null", "a number"),
    ("clip_ratio=-1", "clip_ratio=-1", "above 0"),
    ("clip_ratio=nan", "clip_ratio=nan", "above 0"),
    ("learning_rate=.inf", "learning_rate=.inf", "a number"),
    ("gamma=1.5", "gamma=1.5", "from 0 to 1"),
    ("n_epochs=0", "n_epochs=0", "from 1 to 1000000"),
    ("seed=-1", "seed=-1", "from 0"),
    ("sde_sample_freq=0", "sde_sample_freq=0", "-1"),
    ("device=tpu", "device=tpu", "cuda"),
    ("device=cuda:99", "device=cuda:99", "auto"),
    ("anneal.ent_coef.shape=linar", "anneal.ent_coef.shape=linar", "'linear'"),
    ("anneal.ent_coef.final=0.1 anneal.ent_coef.shape=exponential", "ent_coef=0", "linear or cosine"),
    ("eval=3", "'eval' is a section", "eval.episodes"),
    ("network=mpl", "network=mpl", "'mlp'"),
    ("experiment=nothing", "experiment=nothing", "wide_lander"),
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
    ("env=Pendulum-v1 network.log_std_max=0", "network.log_std_max=0.0", "set it to null"),
    ("env=Pendulum-v1 box_policy=beta", "use_sde=true", "box_policy=beta"),
    ("env=Pendulum-v1 preset=none box_policy=beta squash_actions=true", "squash_actions=true", "=gaussian"),
    ("env=Pendulum-v1 preset=none network.log_std_min=0.5", "network.log_std_init=0", "log_std_min"),
    ("env=CartPole-v1 box_policy=categorical", "box_policy=categorical", "Box actions"),
    ("env=CartPole-v1 network.trunk=simba network.hidden_sizes=[8,4]", "network.trunk=simba", "[8, 4]"),
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
    ("network=[mlp,mlp_large]", "network=[mlp,mlp_large]", "one only"),
    ("network=glob(mlp*)", "network=glob(mlp*)", "-m"),
    ("--info x y=1", "invalid choice: 'x'", "searchpath"),
    ("--experimental-rerun x", "--experimental-rerun", "resume=RUN_DIR"),
    ("--resolve", "--resolve", "--cfg job"),
    ("--package env", "--package", "--cfg job"),
    ("--cfg job --package nothing", "--package nothing", "no such part"),
    ("--cfg job --help", "--help and --cfg", "one of them"),
    ("-m --info all", "--info", "leave out -m"),
    ("-m --run seed=1,2", "-m", "one of them"),
    ("hydra.mode=RUN -m seed=1,2", "hydra.mode=RUN", "one of them"),
    ("--shell-completion x", "install", "query"),
    ("-m hydra.sweeper.params.seed=1,2", "hydra.sweeper.params", "KEY=V1,V2"),
    ("-m hydra.verbose=true,false seed=1", "can't be swept", "one value"),
    ("hydra.run.dir=${nope}", "hydra.run.dir", "'nope'"),
    ("+hydra.callbacks.mine._target_=nowhere.Nothing", "nowhere.Nothing", "No module named 'nowhere'"),
    ("hydra.job_logging.root.level=NOPE", "_logging.root.level=NOPE", "WARNING"),
    ("-m seed=1,2 hydra.job_logging.root.level=NOPE", "_logging.root.level=NOPE", "WARNING"),
    ("-m seed=1,2 hydra.hydra_logging.root.level=NOPE", "_logging.root.level=NOPE", "WARNING"),
    ("-m seed=1,2 +hydra.callbacks.mine._target_=nowhere.Nothing", "nowhere.Nothing", "No module named"),
    ("hydra/job_logging=nothing", "hydra/job_logging=nothing", "disabled"),
    ("hydra.mode=NOPE", "hydra.mode", "MULTIRUN"),
    ("hydra.job.chdir=true", "hydra.job.chdir=true", "leave it out"),
    ("hydra.run.dir=/dev/null/x", "/dev/null/x", "can't be made"),
    ("-m seed=1,2 hydra.sweep.dir=/dev/null/x", "/dev/null/x", "can't be made"),
    ("seed=${oc.env:SURELY_NOT_SET}", "seed", "'SURELY_NOT_SET'"),
    ("-m seed=range(0)", "no job", "lists no value"),
    ("-m seed=1,2 hydra.sweeper=3", "hydra.sweeper=3", "hydra/sweeper=NAME"),
    ("hydra.run.dir=", "hydra.run.dir=", "is empty"),
    ("resume=auto", "resume=auto", "hydra.run.dir=outputs/NAME"),
    ("resume=auto hydra.run.dir=${now:%Y}", "resume=auto", "the same each time"),
    ("resume=auto -m seed=1,2", "resume=auto", "hydra.sweep.dir=outputs/sweeps/NAME"),
    ("resume=auto resume=there", "resume=", "one folder"),
    ("resume=nowhere --help", "nowhere", "no run there"),
    ("sweep.resume=nowhere --help", "--help", "leave the option out"),
    ("seed=\udcff", "\\udcff", "UTF-8"),
    ("lr=1e-3", "'lr'", "did you mean 'learning_rate'?"),
    ("anneal.lr.final=0", "'anneal.lr.final'", "did you mean 'anneal.learning_rate.final'?"),
    ("environment=CartPole-v1", "'environment'", "did you mean 'env'?"),
]


FILES = [  # in a folder of one's own: name, text, what is typed, what is said
    (
        "envs/Mine-v0.yaml",
        "n_envs: 3",
        "env=CartPole-v1",
        "'envs' is no group of configs; did you mean 'env'?",
    ),
    ("Network/mine.yaml", "n_envs: 3", "env=CartPole-v1", "did you mean 'network'?"),
    ("env/Mine-v0.yml", "n_envs: 3", "env=CartPole-v1", "ends in .yaml"),
    ("env/Mine-v0.yaml", "n_envs: 3", "env=Mine-v0", "# @package _global_"),
    ("experiment/mine.yaml", "clip_ratio: 0.3", "experiment=mine", "# @package _global_"),
    ("experiment/mine.yaml", "# @package _global_\nnetwork: {shared: 2}", "experiment=mine", "true or false"),
    ("experiment/mine.yaml", "# @package _global_\nhydra: {mode: MULTIRUN}", "experiment=mine", "type -m"),
    ("experiment/mine.yaml", b"# @package _global_\n# \xff\nseed: 1\n", "experiment=mine", "can't be read"),
    ("experiment/mine.yaml", "# @package _global_\nseed: &a [*a]", "experiment=mine", "seed"),
    ("experiment/mine.yaml", "# @package _global_\ndefaults: 3", "experiment=mine", "defaults"),
    ("experiment/mine.yaml", "- 1", "experiment=mine", "experiment/mine"),
]


@pytest.mark.parametrize(("name", "text", "typed", "said"), FILES, ids=[str(case[1:]) for case in FILES])
def test_one_line_on_a_file_of_ones_own(ppo_train, tmp_path, name, text, typed, said):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    outcome = ppo_train("--config-dir", "mine", typed)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
    assert said in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


@pytest.mark.parametrize(("line", "names", "remedy"), CASES, ids=[ascii(case[0]) for case in CASES])
def test_one_line_and_nothing_left(ppo_train, tmp_path, line, names, remedy):
    outcome = ppo_train(*line.split())
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("ppo-train: ")
    assert names in outcome.err
    assert remedy in outcome.err
    assert list(tmp_path.iterdir()) == []
