"""One thread that owns a loaded model and runs schedule → step → finish, for sentences from any thread."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from models.decoding import Hypothesis, Options, search
from models.errors import BadInput, Cancelled, DeadlineExceeded, ModelError, Unavailable
from models.marian import Marian
from models.scheduler import Priority, Scheduler

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`token_budget`: padded source tokens x hypotheses in a batch. `max_waiting`: sentences in the queue, at most.
    `threads`: of torch, within a step; on a CPU that serves others too, one is the fastest.
    """

    token_budget: int = 4096
    max_waiting: int = 20_000
    threads: int = 1


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Sentences that wait and that are being decoded now; sentences finished, failed, and batches begun so far."""

    waiting: int
    running: int
    finished: int
    failed: int
    batches: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a sentence waited for its batch, and those of its batch's encoding and decoding until it was done."""

    wait: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


class Pending(Future[list[Hypothesis]]):
    """The hypotheses to come, best first; `timings` is set before they are."""

    timings = Timings()


@dataclass(eq=False, slots=True)
class _Sentence:
    tokens: Sequence[int]
    options: Options
    deadline: float
    priority: Priority
    group: str | None
    submitted: float
    pending: Pending

    @property
    def beam(self) -> int:
        return self.options.beam


class Engine:
    """Batches the sentences of all callers. Between `start()` and `close()` no Pending is left without an outcome."""

    def __init__(self, model: Marian, settings: EngineSettings) -> None:
        self._model = model
        self._settings = settings
        self._scheduler: Scheduler[_Sentence] = Scheduler(settings.token_budget, settings.max_waiting)
        self._running: dict[int, _Sentence] = {}  # by place in the batch, which is run in the engine's thread only
        self._unwanted: set[str] = set()  # groups of running sentences that were cancelled
        self._changed = threading.Condition()  # guards all of the above, and what follows
        self._closes_at: float | None = None  # monotonic; None while open
        self._finished = self._failed = self._batches = 0
        self._thread = threading.Thread(target=self._run, name="engine")

    def start(self) -> None:
        self._thread.start()

    def submit(
        self,
        tokens: Sequence[int],
        options: Options,
        *,
        deadline: float = math.inf,
        priority: Priority = "interactive",
        group: str | None = None,
    ) -> Pending:
        """Queues a sentence: source ids with the end. `deadline` is a time.monotonic(); `group` is what `cancel` names.

        Raises Overloaded when the queue is full, Unavailable when the engine is closing, BadInput for a sentence that
        is empty or longer than the model's positions. The Pending fails with DeadlineExceeded, Cancelled, Unavailable,
        or ModelError where the model itself failed.
        """
        limit = self._model.config.max_position_embeddings
        if not 1 <= len(tokens) <= limit:
            raise BadInput(f"A sentence has 1 to {limit} tokens, not {len(tokens)}.")
        sentence = _Sentence(tokens, options, deadline, priority, group, time.monotonic(), Pending())
        sentence.pending.set_running_or_notify_cancel()  # it ends by `cancel(group)`, not by Future.cancel()
        with self._changed:
            if self._closes_at is not None or not self._thread.is_alive():
                raise Unavailable("The engine is not running. Try again.")
            self._scheduler.add(sentence)
            self._changed.notify_all()
        return sentence.pending

    def cancel(self, group: str) -> int:
        """Ends what waits or runs under `group`, at the next step; says how many sentences that were."""
        with self._changed:
            waiting = self._scheduler.remove(lambda sentence: sentence.group == group)
            running = sum(sentence.group == group for sentence in self._running.values())
            if running:
                self._unwanted.add(group)
        self._fail(waiting, Cancelled, "The translation was cancelled.")
        return len(waiting) + running

    def stats(self) -> EngineStats:
        with self._changed:
            waiting, running = len(self._scheduler), len(self._running)
            return EngineStats(waiting, running, self._finished, self._failed, self._batches)

    def close(self, grace: float = 0.0) -> None:
        """Takes no more work; what it holds is finished within `grace` seconds or fails with Unavailable."""
        with self._changed:
            self._closes_at = time.monotonic() + grace
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._settings.threads)
        with torch.inference_mode():
            while batch := self._next_batch():
                self._translate(batch)

    def _next_batch(self) -> list[_Sentence]:
        """Waits for work; empty when the engine is closed and nothing is left."""
        while True:
            self._sweep()
            with self._changed:
                if batch := self._scheduler.next_batch():
                    return batch
                if self._closes_at is not None:
                    return []
                self._changed.wait()

    def _translate(self, batch: list[_Sentence]) -> None:
        """Every sentence of the batch gets its outcome. Where the model fails, the halves are tried by themselves."""
        began = time.monotonic()
        with self._changed:
            self._running = dict(enumerate(batch))
            self._batches += 1
        try:
            decoding = search(self._model, [s.tokens for s in batch], [s.options for s in batch])
            encoded = time.monotonic()
            while decoding.sentences:
                decoding.drop(self._sweep())
                if not decoding.sentences:
                    break
                finished = decoding.step()
                for place, hypotheses in finished.items():
                    pending = self._take([place])[0].pending
                    waited = began - batch[place].submitted
                    pending.timings = Timings(waited, encoded - began, time.monotonic() - encoded)
                    pending.set_result(hypotheses)
                with self._changed:
                    self._finished += len(finished)
        except Exception as error:  # noqa: BLE001 - whatever a sentence does to the model, the others and the engine go on
            self._bisect(error)

    def _bisect(self, error: Exception) -> None:
        rest = self._take(list(self._running))
        if len(rest) > 1:
            logger.warning("a batch of %d sentences failed, trying its halves: %s", len(rest), type(error).__name__)
            self._translate(rest[: len(rest) // 2])
            self._translate(rest[len(rest) // 2 :])
        elif rest:
            logger.error("the model failed on a sentence of %d tokens", len(rest[0].tokens), exc_info=error)
            self._fail(rest, ModelError, "The model failed on a sentence of this text.")

    def _sweep(self) -> list[int]:
        """Ends what is not wanted any more, waiting or running; returns the places in the batch that are free now."""
        now = time.monotonic()
        with self._changed:
            closed = self._closes_at is not None and now >= self._closes_at
            expired = self._scheduler.expire(now)
            refused = self._scheduler.remove(lambda _: True) if closed else []
            late = [place for place, sentence in self._running.items() if sentence.deadline <= now]
            unwanted = [place for place, sentence in self._running.items() if sentence.group in self._unwanted]
            self._unwanted.clear()
        cancelled = self._take([place for place in unwanted if place not in late])
        expired += self._take(late)
        left = list(self._running) if closed else []
        refused += self._take(left)
        self._fail(expired, DeadlineExceeded, "The deadline passed before the translation was complete.")
        self._fail(cancelled, Cancelled, "The translation was cancelled.")
        self._fail(refused, Unavailable, "The engine is closing. Try again.")
        return [*late, *unwanted, *left]

    def _take(self, places: Sequence[int]) -> list[_Sentence]:
        with self._changed:
            return [self._running.pop(place) for place in places]

    def _fail(self, sentences: Sequence[_Sentence], error: type[ModelError], message: str) -> None:
        for sentence in sentences:
            sentence.pending.set_exception(error(message))
        with self._changed:
            self._failed += len(sentences)
