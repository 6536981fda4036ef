"""The contract between the web tier and the workers: request, reply, names and error codes. Standard library only.

The web tier imports this package, the registry, the queues and the environment, and nothing else of `tasks`. A message
is a frozen dataclass that encodes itself into JSON-ready builtins and decodes itself from them. A field that does not
fit raises TolkError(BAD_INPUT). Unknown fields of a message of the same version are ignored, so that an old and a new
release run side by side while a release rolls out.
"""
