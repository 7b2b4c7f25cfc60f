"""Errors that end a command in one line."""


class ConfigError(ValueError):
    """A config can't be run; the message is one line: the key, what was given, what is allowed."""


class EnvError(ValueError):
    """An environment can't be made; the message is one line that says why and what to do."""


class RunError(RuntimeError):
    """A run could not go on; the message is one line, with what to do."""


class UserCodeError(RunError):
    """Code of a user's that a config or a program named raised, or gave what can't be taken.

    The message is one line that names the code; the cause, where there is one, is what it raised.
    """
