"""A lane of an engine: a thread that decodes a batch of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from models.engine.batch import Batch
from models.engine.submission import Submission


@dataclass(eq=False, slots=True)
class Lane:
    """A thread with a batch of its own. `running`, an ordered set, are the sentences in the batch, `unwanted` the
    cancelled ones among them. `since` is when the running call of the model began, None if none is running.
    """

    number: int
    batch: Batch[Submission]
    running: dict[Submission, None] = field(default_factory=dict)
    unwanted: set[Submission] = field(default_factory=set)
    since: float | None = None
    thread: threading.Thread = field(init=False)
