"""What crosses the queue: the request, the reply, the names and the codes. Standard library only.

Both tiers import this package and the registry, and nothing else of each other. A message is a frozen dataclass that
encodes itself into JSON-ready builtins and decodes itself from them; whatever does not fit raises TolkError(BAD_INPUT).
Unknown fields of a message of the same version are ignored, so that old and new run side by side while a release rolls
out.
"""
