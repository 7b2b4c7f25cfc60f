"""Vectors of environments as a run makes them."""

from ppo_cli.envs.choose import make_vector
from ppo_cli.envs.make import env_fn, spaces_of
from ppo_cli.envs.vector import Recipe


def vector(env_id, n, vectorization, kwargs=None):
    """A vector of N environments, and the line that `auto` says."""
    make = env_fn(env_id, kwargs)
    return make_vector(Recipe(env_id, [make] * n, spaces_of(make)), vectorization)
