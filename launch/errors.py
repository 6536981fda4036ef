"""Errors that end a command with a sentence instead of a traceback. Standard library only."""


class SetupError(Exception):
    """The environment cannot be set up. The message says why and what to do."""


class StartError(Exception):
    """The service cannot be started. The message says why and what to do."""
