"""Every peer in one table: its pinned packages, how each of our knobs reaches it, and what differs there."""

from peers.peer import Peer

TORCH = "torch==2.13.0"
GYMNASIUM = "gymnasium[box2d,classic-control,mujoco]==1.4.0"
SB3 = "stable-baselines3==2.9.2"
# What goes to `common.py`, where a peer leaves environments and networks to its user.
ENVIRONMENT = dict.fromkeys(("env.id", "env.kwargs", "n_envs"), "common.make_env, n_envs times")
SEED = {"seed": "torch.manual_seed, np.random.seed"}
NETWORK = dict.fromkeys(
    ("network.hidden_sizes", "network.activation", "network.ortho_init"), "common.mlp, twice"
)
NORMALIZE = dict.fromkeys(
    ("normalize.observations", "normalize.rewards"), "common.make_env: Gymnasium's wrappers"
)
NO_SDE = {"use_sde": False, "sde_sample_freq": -1}
_SB3_NAMES = {
    knob: knob
    for knob in ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "vf_coef",
                 "max_grad_norm", "use_sde", "sde_sample_freq", "target_kl", "seed", "normalize_advantage")
}  # fmt: skip
_SB3_DERIVED = {
    "env.id": "gym.make in DummyVecEnv",
    "env.kwargs": "gym.make in DummyVecEnv",
    "n_envs": "length of DummyVecEnv",
    "total_timesteps": "learn(total_timesteps)",
    "learning_rate": "learning_rate, a function when annealed",
    "anneal.learning_rate.final": "learning_rate, a function when annealed",
    "clip_ratio": "clip_range, a function when annealed",
    "anneal.clip_ratio.final": "clip_range, a function when annealed",
    "network.hidden_sizes": "policy_kwargs: net_arch",
    "normalize.observations": "VecNormalize",
    "normalize.rewards": "VecNormalize",
}
_SB3 = Peer(
    title="Stable-Baselines3 2.9.2",
    module="run_sb3",
    packages=(TORCH, GYMNASIUM, SB3),
    imports=("stable_baselines3",),
    names=_SB3_NAMES | {"vf_clip_ratio": "clip_range_vf"},
    derived=_SB3_DERIVED
    | dict.fromkeys(("network.activation", "network.ortho_init", "network.log_std_init"), "policy_kwargs"),
    lacks={"network.shared": False},
    differs="`DummyVecEnv`; writes no logs",
)
_CLEANRL = (
    "https://raw.githubusercontent.com/vwxyzjn/cleanrl/fe8d8a03c41a7ef5b523e2e354bd01c363e786bb/cleanrl/"
)

PEERS = {
    "sb3": _SB3,
    "sb3-rendering": Peer(
        title="Stable-Baselines3 2.9.2, `make_vec_env`",
        module="run_sb3",
        packages=_SB3.packages,
        imports=_SB3.imports,
        names=_SB3.names,
        derived=_SB3.derived,
        lacks=_SB3.lacks,
        differs='environments with `render_mode="rgb_array"`, as its `make_vec_env` makes them',
    ),
    "sbx": Peer(
        title="SBX 0.28",
        module="run_sb3",
        packages=(TORCH, GYMNASIUM, SB3, "sbx-rl==0.28.0"),
        imports=("stable_baselines3", "sbx"),
        names=_SB3_NAMES,
        derived=_SB3_DERIVED,
        lacks={
            "vf_clip_ratio": None,
            "network.shared": False,
            "network.activation": "tanh",
            "network.ortho_init": False,
            "network.log_std_init": 0.0,
        },
        differs="JAX, which compiles anew in each run and chooses its threads",
    ),
    "cleanrl": Peer(
        title="CleanRL",
        module="run_cleanrl",
        packages=(TORCH, GYMNASIUM, "tyro==1.0.16", "tensorboard==2.21.0"),
        sources=(
            (
                _CLEANRL + "ppo.py",
                "d8dfbb7ac0b21e747b77d6e6673e566db4d6cdacc83bcebcd19cf87ad0e459ae",
            ),
            (
                _CLEANRL + "ppo_continuous_action.py",
                "326dd8678bf9cc51abec833eb551ef2409a3804d604b689e1f0a084eca41f655",
            ),
        ),
        names={
            "env.id": "env-id",
            "seed": "seed",
            "total_timesteps": "total-timesteps",
            "n_envs": "num-envs",
            "n_steps": "num-steps",
            "n_epochs": "update-epochs",
            "learning_rate": "learning-rate",
            "gamma": "gamma",
            "gae_lambda": "gae-lambda",
            "clip_ratio": "clip-coef",
            "normalize_advantage": "norm-adv",
            "ent_coef": "ent-coef",
            "vf_coef": "vf-coef",
            "max_grad_norm": "max-grad-norm",
            "target_kl": "target-kl",
        },
        derived={
            "batch_size": "num-minibatches",
            "anneal.learning_rate.final": "anneal-lr, which falls to 0",
            "vf_clip_ratio": "clip-vloss, with clip-coef",
            "normalize.observations": "ppo_continuous_action.py always, ppo.py never",
            "normalize.rewards": "ppo_continuous_action.py always, ppo.py never",
        },
        lacks={
            "env.kwargs": {},
            "anneal.clip_ratio.final": None,
            "network.hidden_sizes": [64, 64],
            "network.activation": "tanh",
            "network.shared": False,
            "network.ortho_init": True,
            "network.log_std_init": 0.0,
            **NO_SDE,
        },
        differs="`ppo.py` or `ppo_continuous_action.py` unchanged; a cut episode counts as a failed one",
    ),
    "tianshou": Peer(
        title="Tianshou 2.0.1",
        module="run_tianshou",
        packages=(TORCH, GYMNASIUM, "tianshou==2.0.1"),
        names={
            "gamma": "gamma",
            "gae_lambda": "gae_lambda",
            "clip_ratio": "eps_clip",
            "normalize_advantage": "advantage_normalization",
            "ent_coef": "ent_coef",
            "vf_coef": "vf_coef",
            "max_grad_norm": "max_grad_norm",
        },
        derived=ENVIRONMENT
        | SEED
        | NETWORK
        | NORMALIZE
        | {
            "total_timesteps": "max_epochs: an epoch is a rollout",
            "n_steps": "collection_step_num_env_steps: n_envs x n_steps",
            "batch_size": "OnPolicyTrainerParams: batch_size",
            "n_epochs": "update_step_num_repetitions",
            "learning_rate": "AdamOptimizerFactory: lr",
            "anneal.learning_rate.final": "LRSchedulerFactoryLinear, which falls to 0",
            "vf_clip_ratio": "value_clip, with eps_clip",
            "network.log_std_init": "the actor's parameter",
        },
        lacks={
            "anneal.clip_ratio.final": None,
            "target_kl": None,
            "network.shared": False,
            **NO_SDE,
        },
        differs="`DummyVectorEnv`; values for the advantages computed after the rollout, 256 rows at a time",
    ),
    "skrl": Peer(
        title="skrl 2.1.1",
        module="run_skrl",
        packages=(TORCH, GYMNASIUM, "skrl==2.1.1"),
        names={
            "n_steps": "rollouts",
            "n_epochs": "learning_epochs",
            "learning_rate": "learning_rate",
            "gamma": "discount_factor",
            "gae_lambda": "gae_lambda",
            "clip_ratio": "ratio_clip",
            "ent_coef": "entropy_loss_scale",
            "vf_coef": "value_loss_scale",
            "max_grad_norm": "grad_norm_clip",
        },
        derived=ENVIRONMENT
        | SEED
        | NETWORK
        | NORMALIZE
        | {
            "total_timesteps": "timesteps: n_steps for each rollout",
            "batch_size": "mini_batches",
            "anneal.learning_rate.final": "learning_rate_scheduler: LinearLR, which falls to 0",
            "vf_clip_ratio": "value_clip, 0 for none",
            "target_kl": "kl_threshold, 0 for none",
            "network.log_std_init": "the policy's parameter",
        },
        lacks={
            "normalize_advantage": True,
            "anneal.clip_ratio.final": None,
            "network.shared": False,
            **NO_SDE,
        },
        differs="`SyncVectorEnv`; advantages normalised over the rollout instead of the minibatch",
    ),
    "torchrl": Peer(
        title="TorchRL 0.14.1",
        module="run_torchrl",
        packages=(TORCH, GYMNASIUM, "torchrl==0.14.1"),
        compiles=True,
        names={
            "clip_ratio": "clip_epsilon",
            "normalize_advantage": "normalize_advantage",
            "ent_coef": "entropy_coeff",
            "vf_coef": "critic_coeff",
            "vf_clip_ratio": "clip_value",
        },
        derived=ENVIRONMENT
        | SEED
        | NETWORK
        | NORMALIZE
        | {
            "total_timesteps": "total_frames: whole rollouts",
            "n_steps": "frames_per_batch: n_envs x n_steps",
            "batch_size": "TensorDictReplayBuffer: batch_size",
            "n_epochs": "how often its buffer is gone through",
            "learning_rate": "torch.optim.Adam",
            "anneal.learning_rate.final": "LinearLR, which falls to 0",
            "gamma": "GAE: gamma",
            "gae_lambda": "GAE: lmbda",
            "max_grad_norm": "clip_grad_norm_",
            "network.log_std_init": "AddStateIndependentNormalScale",
        },
        lacks={"anneal.clip_ratio.final": None, "target_kl": None, "network.shared": False, **NO_SDE},
        differs="`SyncVectorEnv`; acting and update by `torch.compile`, with a warm cache",
    ),
    "rsl_rl": Peer(
        title="rsl_rl 5.5.1",
        module="run_rsl_rl",
        packages=(TORCH, GYMNASIUM, "rsl-rl-lib==5.5.1"),
        names={
            "n_epochs": "num_learning_epochs",
            "learning_rate": "learning_rate",
            "gamma": "gamma",
            "gae_lambda": "lam",
            "clip_ratio": "clip_param",
            "ent_coef": "entropy_coef",
            "vf_coef": "value_loss_coef",
            "max_grad_norm": "max_grad_norm",
            "normalize_advantage": "normalize_advantage_per_mini_batch",
        },
        derived=ENVIRONMENT
        | SEED
        | NORMALIZE
        | {
            "total_timesteps": "num_learning_iterations: whole rollouts",
            "n_steps": "num_steps_per_env",
            "batch_size": "num_mini_batches",
            "vf_clip_ratio": "use_clipped_value_loss, with clip_param",
            "network.hidden_sizes": "hidden_dims, twice",
            "network.activation": "activation, twice",
            "network.log_std_init": "init_std",
        },
        lacks={
            "anneal.learning_rate.final": None,
            "anneal.clip_ratio.final": None,
            "target_kl": None,
            "network.shared": False,
            "network.ortho_init": False,
            **NO_SDE,
        },
        differs="`SyncVectorEnv`; continuous actions only: LunarLander with `continuous=True`",
    ),
    "sample_factory": Peer(
        title="Sample Factory 2.1.1",
        module="run_sample_factory",
        packages=(
            TORCH,
            GYMNASIUM,
            "numpy==1.26.4",
            "opencv-python-headless==4.11.0.86",
            "huggingface-hub==0.36.2",
            "faster-fifo==1.5.2",
            "signal-slot-mp==1.0.5",
            "colorlog==6.12.0",
            "filelock==4.3.1",
            "psutil==7.2.2",
            "pyglet==2.1.19",
            "tensorboard==2.21.0",
            "tensorboardx==2.6.5",
            "threadpoolctl==3.8.0",
            "wandb==0.31.0",
        ),
        without_dependencies=("sample-factory==2.1.1",),
        names={
            "env.id": "env",
            "seed": "seed",
            "n_envs": "num_envs_per_worker",
            "batch_size": "batch_size",
            "n_epochs": "num_epochs",
            "learning_rate": "learning_rate",
            "gamma": "gamma",
            "gae_lambda": "gae_lambda",
            "clip_ratio": "ppo_clip_ratio",
            "ent_coef": "exploration_loss_coeff",
            "vf_coef": "value_loss_coeff",
            "max_grad_norm": "max_grad_norm",
        },
        derived=NORMALIZE
        | {
            "env.kwargs": "common.make_env",
            "total_timesteps": "train_for_env_steps",
            "n_steps": "num_batches_per_epoch; its own rollouts are no longer than a minibatch",
            "anneal.learning_rate.final": "lr_schedule: linear_decay, which falls to 0",
            "vf_clip_ratio": "ppo_clip_value, very large for none",
            "network.hidden_sizes": "encoder_mlp_layers",
            "network.activation": "nonlinearity",
            "network.shared": "actor_critic_share_weights",
            "network.ortho_init": "policy_initialization",
        },
        lacks={
            "normalize_advantage": True,
            "anneal.clip_ratio.final": None,
            "target_kl": None,
            "network.log_std_init": 0.0,
            **NO_SDE,
        },
        differs="asynchronous: environments, policy and learner are a process each, on more than one core",
    ),
    "sheeprl": Peer(
        title="sheeprl 0.8.4",
        module="run_sheeprl",
        packages=(TORCH, GYMNASIUM, "sheeprl==0.8.4"),
        names={
            "env.id": "env.id",
            "seed": "seed",
            "n_envs": "env.num_envs",
            "n_steps": "algo.rollout_steps",
            "batch_size": "algo.per_rank_batch_size",
            "n_epochs": "algo.update_epochs",
            "learning_rate": "algo.optimizer.lr",
            "gamma": "algo.gamma",
            "gae_lambda": "algo.gae_lambda",
            "clip_ratio": "algo.clip_coef",
            "normalize_advantage": "algo.normalize_advantages",
            "ent_coef": "algo.ent_coef",
            "vf_coef": "algo.vf_coef",
            "max_grad_norm": "algo.max_grad_norm",
        },
        derived={
            "env.kwargs": "env.wrapper",
            "total_timesteps": "algo.total_steps: whole rollouts",
            "anneal.learning_rate.final": "algo.anneal_lr, which falls to 0",
            "anneal.clip_ratio.final": "algo.anneal_clip_coef, which falls to 0",
            "vf_clip_ratio": "algo.clip_vloss, with algo.clip_coef",
            "network.hidden_sizes": "algo.mlp_layers, algo.dense_units, no encoder",
            "network.activation": "algo.dense_act",
            "network.ortho_init": "algo.actor.ortho_init, algo.critic.ortho_init",
        },
        lacks={
            "target_kl": None,
            "network.shared": False,
            "network.log_std_init": 0.0,
            "normalize.observations": False,
            "normalize.rewards": False,
            **NO_SDE,
        },
        differs="`SyncVectorEnv` instead of its default, a process each; writes no logs",
    ),
}
