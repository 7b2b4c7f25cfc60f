"""What steps the environments, where there are vectors of them alone."""

from dataclasses import replace

from ppo_cli.config.checks import check_backend
from ppo_cli.config.schema import Config
from ppo_cli.envs.named import is_lent, maker_of
from ppo_cli.errors import EnvError


def decide_vectorization(config: Config, env_id: str) -> tuple[Config, str | None]:
    """The config with ``vectorization=auto`` decided where there are vectors alone, and a line on it.

    Raises:
        EnvError: it names a backend that steps single environments.
        ConfigError: something is asked for that vectors can't do.
    """
    if is_lent(env_id) and config.eval.every:
        raise EnvError(
            f"eval.every={config.eval.every}: it would reset the vector that is trained in, which was given "
            "as it is; give what makes it, or set eval.every=0"
        )
    if config.vectorization == "entry_point" or maker_of(env_id) is None:
        return config, None
    alone = f"of {env_id} there are vectors alone"
    if config.vectorization != "auto":
        raise EnvError(f"vectorization={config.vectorization}: {alone}; leave it out, or use entry_point")
    config = replace(config, vectorization="entry_point")
    check_backend(config, f"leave it out: {alone}")
    return config, f"vectorization=auto: entry_point ({alone})"
