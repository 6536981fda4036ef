"""A worker for tests of the queue: Celery, RabbitMQ and the task are real, the model returns every text as it is.

`celery -A echo --workdir tests/tasks worker` starts it in the repository's environment. The text `#sleep 1.5` takes
1.5 seconds, `#die` kills the worker, `#fail` raises an unexpected error, and `#bad` raises an error about the text.
`#flag` is translated with a flag, and `#unsure` with a low score. `#hang` never returns, nor does `#seize`, which
also keeps the interpreter's lock; both ignore the deadline and the end of the worker.

With ECHO_STEP and ECHO_BATCH, a step takes ECHO_STEP seconds for ECHO_BATCH requests, so that the capacity is known.
ECHO_LOOK is the number of seconds between two checks of models.toml, and ECHO_PATIENCE the number of seconds for which
the worker counts as healthy without its broker.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery.signals import celeryd_after_setup
from celery.utils.log import get_logger

from models.engine.options import DecodingOptions
from models.engine.stats import EngineStats
from models.errors import BadInput, Cancelled, DeadlineExceeded, ModelError, Unavailable, UnknownModel
from models.store.diskcache import Held
from models.translation.call import Call
from tasks.celery import app
from tasks.registry.entry import Entry
from tasks.registry.file import RegistryFile
from tasks.worker import health, metrics, start

logger = get_logger(__name__)

if "ECHO_LOOK" in os.environ:
    app.conf.tolk_models = RegistryFile(app.conf.tolk_models.path, look=float(os.environ["ECHO_LOOK"]))
app.steps["worker"] = {"echo:LoadModels", "tasks.worker.supervision:Supervision"}


@celeryd_after_setup.connect(weak=False)
def say_what_comes(**_: Any) -> None:
    """Logs that a task has arrived, for which tests wait."""
    logging.getLogger("celery.worker.strategy").setLevel(logging.INFO)


@dataclass
class Echo:
    version: str = "echo"
    device: str = "cpu"
    bytes: int = 1000
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    closed: threading.Event = field(default_factory=threading.Event)
    cancelled: set[str | None] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    hung: float | None = None
    step: float = 0.0
    slots: threading.Semaphore = field(default_factory=threading.Semaphore)

    def translate_each(self, calls: Mapping[str, Call]) -> Iterator[tuple[str, Any]]:
        if len(calls) == 1:  # without another thread, so that the time of a message can be measured
            yield from ((key, self.outcome(call)) for key, call in calls.items())
            return
        with ThreadPoolExecutor(len(calls) or 1) as threads:
            begun = {threads.submit(self.outcome, call): key for key, call in calls.items()}
            for each in as_completed(begun):
                yield begun[each], each.result()

    def outcome(self, call: Call) -> SimpleNamespace | Exception:
        try:
            return self.translate_in_steps(call) if self.step else self.translate(call)
        except Exception as error:  # noqa: BLE001 - as LocalTranslator does
            return error

    def translate(self, call: Call) -> SimpleNamespace:
        if "#fail" in call.texts:
            raise RuntimeError(f"a bug that quotes {call.texts}")
        if "#die" in call.texts:
            os.kill(os.getpid(), signal.SIGKILL)
        if "#hang" in call.texts or "#seize" in call.texts:
            self.hung = time.monotonic()
            sleep = time.sleep if "#hang" in call.texts else ctypes.PyDLL(None).sleep
            sleep(600)
        results = [self.translate_one(text, call) for text in call.texts]
        timings = SimpleNamespace(wait=0.25, prefill=0.5, decode=0.75)
        return SimpleNamespace(results=results, timings=timings, tokens=float(sum(map(len, call.texts))))

    def translate_in_steps(self, call: Call) -> SimpleNamespace:
        came = time.monotonic()
        if not self.slots.acquire(timeout=max(0.0, call.deadline - came)):
            raise DeadlineExceeded("too slow")
        began = time.monotonic()
        time.sleep(self.step)
        self.slots.release()
        results = [self.translate_one(text, call) for text in call.texts]
        timings = SimpleNamespace(wait=began - came, prefill=0.0, decode=time.monotonic() - began)
        return SimpleNamespace(results=results, timings=timings, tokens=float(sum(map(len, call.texts))))

    def translate_one(self, text: str, call: Call) -> SimpleNamespace:
        error: ModelError | None = BadInput("a bad text") if text == "#bad" else None
        if text.startswith("#sleep"):
            until = time.monotonic() + float(text.split()[1])
            with self.changed:
                self.changed.wait_for(
                    lambda: call.group in self.cancelled or self.closed.is_set(),
                    min(until, call.deadline) - time.monotonic(),
                )
            if call.group in self.cancelled:
                raise Cancelled("cancelled")
            if self.closed.is_set():
                raise Unavailable("closing")
            if call.deadline < until:
                error = DeadlineExceeded("too slow")
        if error is not None:
            return SimpleNamespace(error=error)
        flags = ("REPETITION",) if text == "#flag" else ()
        score = -3.0 if text == "#unsure" else 0.0
        alternatives = [SimpleNamespace(text=text, score=0.0)] * ((call.options or DecodingOptions()).nbest - 1)
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

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self, grace: float = 0.0) -> None:
        with self.changed:
            self.closed.set()
            self.changed.notify_all()


class EchoLoader:
    """Makes an Echo of an entry, of one kilobyte. The reference may set its size and the way it is loaded:
    `./8000-bytes`, `./3-seconds`, `./broken`, `./hanging`; a precision is its version."""

    def find(self, model: Entry) -> Held:
        return Held(Path(model.reference))

    def estimate(self, model: Entry, held: Held) -> int:
        return told(model.reference, "bytes", 1000)

    def load(self, model: Entry, held: Held) -> Echo:
        logger.info("loading %s", model.name)
        if model.reference.endswith("broken"):
            raise UnknownModel(f"{model.reference} is broken")
        time.sleep(600 if model.reference.endswith("hanging") else told(model.reference, "seconds", 0))
        step, batch = float(os.environ.get("ECHO_STEP", "0")), int(os.environ.get("ECHO_BATCH", "1"))
        return Echo(
            version=model.precision or "echo",
            bytes=self.estimate(model, held),
            step=step,
            slots=threading.Semaphore(batch),
        )


def told(reference: str, what: str, default: int) -> int:
    found = re.search(rf"(\d+)-{what}", reference)
    return int(found[1]) if found else default


class ServeMetrics(metrics.ServeMetrics):
    patience = float(os.environ.get("ECHO_PATIENCE", health.BROKER_PATIENCE))


class LoadModels(start.LoadModels):
    requires = ("celery.worker.components:Pool", "echo:ServeMetrics")

    def loader(self, conf: Any, device: str) -> Any:
        return EchoLoader()
