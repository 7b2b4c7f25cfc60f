"""Errors that end a command in one line."""


class RunError(RuntimeError):
    """A run could not go on; the message is one line, with what to do."""
