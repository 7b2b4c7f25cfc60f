"""The typed config: every knob with its type, range, choices and roles, and what follows from their values.

`conf/config.yaml` has the default of every knob and says what it means; this module has the rest, in a line.
Nothing here builds anything: `ppo_cli.runs.build` turns a checked `Config` into objects.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union, get_args

from ppo_cli import schedules
from ppo_cli.config.knob import (
    Boolean,
    Duration,
    Integer,
    Knob,
    Range,
    annealed_section,
    is_section,
    knob,
    section,
    section_of,
    walk,
)
from ppo_cli.envs.backends import BACKENDS, backend

CHECKPOINT_STEPS = 50_000  # environment steps between checkpoints, about, for checkpoint.every=auto
COMPILE_REPAYS = 5_000  # minibatch steps from which compiling (about 25 s, once) saves time in all
COUNT = Range(1, 10**9)  # of what nobody would see the end above
WIDTH = Range(1, 2**14)
SEED = Range(0, 2**32 - 1)
SHAPES = get_args(schedules.Shape)  # of annealing
WARMUP = Range(0, 1, open_high=True)
KL = "kl"  # in place of a shape: the learning rate that steers itself by the divergence of its steps


@dataclass
class EnvConfig:
    """What is trained on."""

    id: str = knob(fixed=True)
    kwargs: dict[str, Any] = knob(fixed=True, entries="a new argument of the environment")
    wrappers: list[dict[str, Any]] = knob(fixed=True)
    reset_options: dict[str, Any] = knob(fixed=True, entries="an option of its resets")
    seed_below: Optional[Integer] = knob(low=1, high=2**32, fixed=True)  # noqa: UP045 - for OmegaConf on 3.10
    action_mask: Union[bool, str] = knob(fixed=True)  # noqa: UP007
    timeout: float = knob(above=0, high=math.inf, learned=False)
    on_error: str = knob(choices=("stop", "restart"))


@dataclass
class AnnealConfig:
    """How one knob changes over the run."""

    final: Optional[float] = knob()  # noqa: UP045
    shape: str = knob(choices=(*SHAPES, KL))
    warmup: float = knob(WARMUP, default=0.0)


@dataclass
class ActorConfig:
    """What the policy sees."""

    observations: Optional[list[str]] = knob()  # noqa: UP045


@dataclass
class CriticConfig:
    """What the value sees, and by what."""

    observations: Optional[list[str]] = knob()  # noqa: UP045
    hidden_sizes: Optional[list[Integer]] = knob(WIDTH)  # noqa: UP045
    encoders: dict[str, Any] = knob(entries="an encoder of the critic's own")


@dataclass
class NetworkConfig:
    """The actor-critic network."""

    hidden_sizes: list[Integer] = knob(WIDTH)
    activation: str = knob(choices=("tanh", "relu", "leaky_relu", "elu", "gelu", "silu"))
    layer_norm: Boolean = knob()
    trunk: str = knob(choices=("mlp", "simba"))
    shared: Boolean = knob()
    ortho_init: Boolean = knob()
    log_std: str = knob(choices=("free", "state", "softplus"))
    log_std_init: float = knob(low=-20, high=20)
    log_std_min: Optional[float] = knob(low=-20, high=20)  # noqa: UP045
    log_std_max: Optional[float] = knob(low=-20, high=20)  # noqa: UP045
    image_encoder: str = knob(choices=("auto", "nature_cnn", "impala_cnn", "minatar_cnn", "flatten"))
    encoders: dict[str, Any] = knob(entries="an observation's encoder")
    memory: str = knob(choices=("none", "lstm", "gru"))
    memory_size: Integer = knob(WIDTH)
    sequence_length: Integer = knob(COUNT)
    actor: ActorConfig = section(ActorConfig)
    critic: CriticConfig = section(CriticConfig)


@dataclass
class NormalizeConfig:
    """Running normalisation."""

    observations: Boolean = knob()
    rewards: Boolean = knob()
    values: Boolean = knob()
    clip: float = knob(above=0)


@dataclass
class EvalConfig:
    """The final evaluation, and those on the way."""

    every: Integer = knob(low=0, high=10**9)
    episodes: Integer = knob(low=0, high=10**6)
    deterministic: Boolean = knob()
    max_steps: Integer = knob(COUNT)
    seed: Integer = knob(SEED)


@dataclass
class CheckpointConfig:
    """What is kept of a run while it goes on."""

    every: Union[Integer, str] = knob(COUNT)  # noqa: UP007
    keep: Integer = knob(COUNT)
    exact: Boolean = knob(fixed=True)


if TYPE_CHECKING:

    class StopConfig:
        """What ends a run before its budget is used up; ``return`` is read with `getattr`."""

        window: int
        time: Duration
        patience: int | None

else:
    StopConfig = section_of(
        "StopConfig",
        __name__,
        {
            "return": (Optional[float], knob(low=-1e38, high=1e38)),  # noqa: UP045
            "window": (Integer, knob(low=1, high=10**6)),
            "time": (Duration, knob()),
            "patience": (Optional[Integer], knob(COUNT)),  # noqa: UP045
        },
    )


@dataclass
class LogConfig:
    """What is logged beside what every run logs."""

    info_keys: Any = knob()
    diagnostics: Boolean = knob()


@dataclass
class TrainingConfig:
    """The environment, the budget and the update."""

    env: EnvConfig = section(EnvConfig, searched=False)
    seed: Integer = knob(SEED, fixed=True, learned=False)
    total_timesteps: Integer = knob(low=1, high=10**15, searched=False)
    n_envs: Integer = knob(low=1, high=2**16, fixed=True)
    n_steps: Integer = knob(COUNT, fixed=True)
    vectorization: str = knob(choices=("auto", *BACKENDS))
    shards: Integer = knob(low=1, high=2**12, fixed=True)
    batch_size: Integer = knob(COUNT)
    n_epochs: Integer = knob(low=1, high=10**6)
    learning_rate: float = knob(above=0, annealed=True)
    gamma: float = knob(low=0, high=1, annealed=True)
    gae_lambda: float = knob(low=0, high=1, annealed=True)
    value_lambda: Optional[float] = knob(low=0, high=1, annealed=True)  # noqa: UP045
    clip_ratio: float = knob(above=0, annealed=True)
    vf_clip_ratio: Optional[float] = knob(above=0, annealed=True)  # noqa: UP045
    normalize_advantage: Boolean = knob()
    ent_coef: float = knob(low=0, annealed=True)
    vf_coef: float = knob(low=0, annealed=True)
    max_grad_norm: float = knob(above=0, high=math.inf, annealed=True)
    target_kl: Optional[float] = knob(above=0, annealed=True)  # noqa: UP045
    objective: str = knob()
    objective_kwargs: dict[str, Any] = knob(entries="an option of the objective")
    value_loss: str = knob(fixed=True)  # the value head is made for it
    value_loss_kwargs: dict[str, Any] = knob(entries="an option of the value loss")
    extra_losses: list[dict[str, Any]] = knob()
    optimizer: str = knob(fixed=True)  # what checkpoints hold is its own
    optimizer_kwargs: dict[str, Any] = knob(entries="an option of the optimizer")
    desired_kl: float = knob(above=0)
    learning_rate_min: float = knob(above=0)
    learning_rate_max: float = knob(above=0)
    box_policy: str = knob(choices=("gaussian", "beta", "categorical"), fixed=True)
    action_bins: Integer = knob(low=2, high=10**4, fixed=True)
    squash_actions: Boolean = knob(fixed=True)
    use_sde: Boolean = knob(fixed=True)
    sde_sample_freq: Integer = knob(low=-1, high=10**9)
    intrinsic: str = knob(fixed=True)
    intrinsic_kwargs: dict[str, Any] = knob(fixed=True, entries="an option of the intrinsic reward")
    intrinsic_coef: float = knob(low=0, annealed=True)
    intrinsic_gamma: float = knob(low=0, high=1, annealed=True)
    init_from: Optional[str] = knob(fixed=True)  # noqa: UP045
    init_from_partial: Boolean = knob(fixed=True)
    init_parts: str = knob(choices=("all", "policy", "value", "encoder"), fixed=True)
    freeze: list[str] = knob(fixed=True)  # the optimizer's state has none of them


if TYPE_CHECKING:

    class AnnealsConfig:
        """How each annealed knob changes over the run."""

        def __getattr__(self, knob: str) -> AnnealConfig:
            """The section of one knob."""

else:
    AnnealsConfig = annealed_section("AnnealsConfig", TrainingConfig, AnnealConfig, __name__)


@dataclass
class Config(TrainingConfig):
    """Every knob; `conf/config.yaml` says what each means."""

    anneal: AnnealsConfig = section(AnnealsConfig)
    network: NetworkConfig = section(NetworkConfig, fixed=True)
    normalize: NormalizeConfig = section(NormalizeConfig, fixed=True)
    processes: Union[Integer, str] = knob(low=1, high=2**12, learned=False, searched=False)  # noqa: UP007
    device: str = knob(learned=False, searched=False)
    threads: Union[Integer, str] = knob(low=1, high=1024, learned=False)  # noqa: UP007
    compile: Union[bool, str] = knob(learned=False)  # noqa: UP007
    eval: EvalConfig = section(EvalConfig, learned=False, searched=False)
    stop: StopConfig = section(StopConfig, searched=False)
    checkpoint: CheckpointConfig = section(CheckpointConfig, learned=False, searched=False)
    log: LogConfig = section(LogConfig, learned=False)
    hooks: list[dict[str, Any]] = knob(searched=False)

    @property
    def rollout_rows(self) -> int:
        """Rows of a rollout: environment steps of one iteration, but for a backend's filler rows."""
        return self.n_envs * self.n_steps

    @property
    def shard_envs(self) -> int:
        """Environments of a shard."""
        return self.n_envs // self.shards

    @property
    def iterations(self) -> int:
        """Whole iterations until at least ``total_timesteps``."""
        return schedules.iterations(self.total_timesteps, self.n_envs, self.n_steps)

    @property
    def minibatches(self) -> int:
        """Minibatches of one pass over a rollout."""
        return -(-self.rollout_rows // self.batch_size)

    @property
    def trained_steps(self) -> int:
        """Environment steps of the whole run; no more than what is asked where a backend fills rows."""
        is_filled = backend(self.vectorization).fills
        return schedules.trained_steps(self.total_timesteps, self.n_envs, self.n_steps, is_filled)

    @property
    def has_intrinsic(self) -> bool:
        """Whether there are intrinsic rewards."""
        return self.intrinsic != "none"

    @property
    def sequence_length(self) -> int:
        """Steps that a memory is trained through at a time; 1 without one."""
        return 1 if self.network.memory == "none" else min(self.network.sequence_length, self.n_steps)

    @property
    def adapts_learning_rate(self) -> bool:
        """Whether the learning rate is steered by the divergence of its steps."""
        return self.anneal.learning_rate.shape == KL

    @property
    def checkpoint_interval(self) -> int:
        """Iterations between two checkpoints."""
        if self.checkpoint.every != "auto":
            return int(self.checkpoint.every)
        return -(-CHECKPOINT_STEPS // self.rollout_rows)

    @property
    def device_name(self) -> str:
        """PyTorch's name of the device."""
        return resolve_device(self.device)

    @property
    def cpu_threads(self) -> int:
        """PyTorch's threads; ``auto`` is the same on all machines, and so are the bits."""
        return 1 if self.threads == "auto" else int(self.threads)

    @property
    def wants_compile(self) -> bool:
        """Whether to compile the update, if there is a compiler; by the config alone, so that runs repeat."""
        if self.compile == "auto":
            return self.iterations * self.n_epochs * self.minibatches >= COMPILE_REPAYS
        return bool(self.compile)


SCHEMA = dict(walk(Config))  # every knob and section, by dotted name
KNOBS = {name: known for name, known in SCHEMA.items() if not is_section(known)}


def find_knob(name: str) -> Knob:
    """What is known of a dotted name: an entry is its knob's, and an unknown one its section's."""
    while name not in SCHEMA:
        if not name:
            return Knob()
        name = name.rpartition(".")[0]
    return SCHEMA[name]


def is_entry(name: str) -> bool:
    """Whether a dotted name is a user's own in a knob that takes any, such as ``env.kwargs.gravity``."""
    return name not in SCHEMA and bool(find_knob(name).entries)


def resolve_device(device: str) -> str:
    """The name of a device, ``auto`` being the CPU."""
    return "cpu" if device == "auto" else device


def conf_dir() -> Path:
    """The folder of the YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"
