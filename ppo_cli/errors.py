"""Errors that end a command in one line."""


class RunError(RuntimeError):
    """A run could not go on; the message is one line, with what to do."""


class HookError(RunError):
    """A hook of a user's raised, or gave what can't be taken; the message names it and its method."""
