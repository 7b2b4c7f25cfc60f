"""PPO experiments from the command line: fast, exact and easy to trust."""

__version__ = "0.1.0"
