"""A worker for tests of the queue: Celery, RabbitMQ and the task are real, the model answers without thinking.

`celery -A echo --workdir tests/tasks worker` in the repository's environment. A text `#sleep 1.5` takes that long,
`#die` kills the worker, `#fail` is a bug of the model, `#bad` a text of which it says that it is bad; `#flag` is
translated with a flag, and `#unsure` with a low score. `#hang` never comes back, `#seize` not even with the
interpreter's lock, and neither heeds the deadline or the end.

With ECHO_STEP and ECHO_BATCH a step takes so many seconds and so many requests, so that its capacity is known. With
ECHO_PAUSE a pool starts a worker again after so many seconds, however often.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from celery import bootsteps

from models.errors import BadInput, Cancelled, DeadlineExceeded, ModelError, Unavailable
from tasks import pool
from tasks.celery import app

pool.FIRST = pool.LONGEST = float(os.environ.get("ECHO_PAUSE", "1"))
app.steps["worker"] = {"echo:Engines", "tasks.watchdog:Watchdog", "tasks.pool:Supervision"}


@dataclass
class Echo:
    version: str = "echo"
    device: str = "cpu"
    closed: threading.Event = field(default_factory=threading.Event)
    cancelled: set[str | None] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    hung: float | None = None
    step: float = 0.0
    slots: threading.Semaphore = field(default_factory=threading.Semaphore)

    def translate(
        self, texts: Sequence[str], *, deadline: float, options: Any, group: str | None, **_: Any
    ) -> SimpleNamespace:
        if self.step:
            return self.translate_in_steps(texts, deadline, options, group)
        if "#fail" in texts:
            raise RuntimeError(f"a bug that quotes {texts}")
        if "#die" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        if "#hang" in texts or "#seize" in texts:
            self.hung = time.monotonic()
            sleep = time.sleep if "#hang" in texts else ctypes.PyDLL(None).sleep
            sleep(600)
        results = [self.translate_one(text, deadline, options, group) for text in texts]
        timings = SimpleNamespace(wait=0.25, prefill=0.5, decode=0.75)
        return SimpleNamespace(results=results, timings=timings)

    def translate_in_steps(
        self, texts: Sequence[str], deadline: float, options: Any, group: str | None
    ) -> SimpleNamespace:
        came = time.monotonic()
        if not self.slots.acquire(timeout=max(0.0, deadline - came)):
            raise DeadlineExceeded("too slow")
        began = time.monotonic()
        time.sleep(self.step)
        self.slots.release()
        results = [self.translate_one(text, deadline, options, group) for text in texts]
        timings = SimpleNamespace(wait=began - came, prefill=0.0, decode=time.monotonic() - began)
        return SimpleNamespace(results=results, timings=timings)

    def translate_one(self, text: str, deadline: float, options: Any, group: str | None) -> SimpleNamespace:
        error: ModelError | None = BadInput("a bad text") if text == "#bad" else None
        if text.startswith("#sleep"):
            until = time.monotonic() + float(text.split()[1])
            with self.changed:
                self.changed.wait_for(
                    lambda: group in self.cancelled or self.closed.is_set(), min(until, deadline) - time.monotonic()
                )
            if group in self.cancelled:
                raise Cancelled("cancelled")
            if self.closed.is_set():
                raise Unavailable("closing")
            if deadline < until:
                error = DeadlineExceeded("too slow")
        if error is not None:
            return SimpleNamespace(error=error)
        flags = ("REPETITION",) if text == "#flag" else ()
        score = -3.0 if text == "#unsure" else 0.0
        alternatives = [SimpleNamespace(text=text, score=0.0)] * (options.nbest - 1)
        whole = (0, len(text))
        sentence = SimpleNamespace(source=whole, target=whole, score=score, flags=flags)
        return SimpleNamespace(
            text=text, score=score, alternatives=alternatives, flags=flags, sentences=(sentence,), error=None
        )

    def cancel(self, group: str) -> int:
        with self.changed:
            self.cancelled.add(group)
            self.changed.notify_all()
        return 1

    def stalled(self) -> float:
        return 0.0 if self.hung is None else time.monotonic() - self.hung

    def close(self) -> None:
        with self.changed:
            self.closed.set()
            self.changed.notify_all()


class Engines(bootsteps.StartStopStep):
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        from tasks import worker as _  # noqa: F401 - registers the command `cancel`

        app.decoding = SimpleNamespace
        step = float(os.environ.get("ECHO_STEP", "0"))
        batch = int(os.environ.get("ECHO_BATCH", "1"))
        app.engines = {
            name: Echo(step=step, slots=threading.Semaphore(batch)) for name in app.conf.tolk_models.current().models
        }

    def stop(self, worker: Any) -> None:
        for engine in app.engines.values():
            engine.close()  # type: ignore[attr-defined]
