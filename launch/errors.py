"""What ends a command with a sentence instead of a traceback. Standard library only."""


class SetupError(Exception):
    """The machine lacks something; the message says what, and what to do."""


class StartError(Exception):
    """The service cannot be started here; the message says why and what to do."""
