"""One thread that owns a loaded model and runs schedule → step → finish, for sentences from any thread."""

from __future__ import annotations

import atexit
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
    max_waiting: int = 50_000
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
        # A daemon with an exit handler: a process that forgets to close it ends all the same, and not in mid-step.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        atexit.register(self.close)
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
        is empty, longer than the model's positions, or not of its vocabulary. The Pending fails with DeadlineExceeded,
        Cancelled, Unavailable, or ModelError where the model itself failed.
        """
        config = self._model.config
        if not 1 <= len(tokens) <= config.max_position_embeddings:
            raise BadInput(f"A sentence has 1 to {config.max_position_embeddings} tokens, not {len(tokens)}.")
        if min(tokens) < 0 or max(tokens) >= config.vocab_size:  # on a GPU it would end the process's use of it
            raise BadInput(f"A token is outside the vocabulary of {config.vocab_size}.")
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
        atexit.unregister(self.close)

    def _run(self) -> None:
        torch.set_num_threads(self._settings.threads)
        try:
            with torch.inference_mode():
                while batch := self._next_batch():
                    self._translate(batch)
        finally:  # where the engine itself fails, too, nobody shall wait for it
            with self._changed:
                self._closes_at = -math.inf
            self._sweep()

    def _next_batch(self) -> list[_Sentence]:
        """Waits for work; empty when the engine is closed and nothing is left."""
        while True:
            self._sweep()
            with self._changed:
                if batch := self._scheduler.next_batch():
                    self._running = dict(enumerate(batch))
                    self._batches += 1
                    return batch
                if self._closes_at is not None:
                    return []
                self._changed.wait()

    def _translate(self, batch: list[_Sentence]) -> None:
        """Every sentence of the batch gets its outcome. Where the model fails, the halves are tried by themselves."""
        attempts = [list(self._running)]
        while attempts:
            places = self._still_running(attempts.pop())
            try:
                self._decode(places)
            except Exception as error:
                rest = self._still_running(places)
                half = len(rest) // 2
                if half:
                    logger.warning("%d sentences failed, trying the halves: %s", len(rest), type(error).__name__)
                    attempts += [rest[half:], rest[:half]]
                elif rest:
                    logger.error("the model failed on %d tokens", len(batch[rest[0]].tokens), exc_info=error)
                    self._fail(self._take(rest), ModelError, "The model failed on a sentence of this text.")

    def _decode(self, places: list[int]) -> None:
        """Decodes the sentences at these places of the batch together, until each has its outcome."""
        if not places:
            return
        sentences = [self._running[place] for place in places]
        began = time.monotonic()
        decoding = search(self._model, [s.tokens for s in sentences], [s.options for s in sentences])
        encoded = time.monotonic()
        while wanted := set(self._still_running([places[i] for i in decoding.sentences])):
            decoding.drop([i for i in decoding.sentences if places[i] not in wanted])
            for i, hypotheses in decoding.step().items():
                with self._changed:
                    del self._running[places[i]]
                    self._finished += 1
                pending = sentences[i].pending
                pending.timings = Timings(began - sentences[i].submitted, encoded - began, time.monotonic() - encoded)
                pending.set_result(hypotheses)

    def _still_running(self, places: Sequence[int]) -> list[int]:
        """Those of the places whose sentences are wanted still."""
        self._sweep()
        return [place for place in places if place in self._running]

    def _sweep(self) -> None:
        """Ends what is not wanted any more, waiting or running."""
        now = time.monotonic()
        with self._changed:
            running = dict(self._running)
            closed = self._closes_at is not None and now >= self._closes_at
            expired = self._scheduler.expire(now)
            refused = self._scheduler.remove(lambda _: True) if closed else []
            unwanted, self._unwanted = self._unwanted, set()
        late = [place for place, sentence in running.items() if sentence.deadline <= now]
        expired += self._take(late)
        cancelled = self._take([place for place, sentence in running.items() if sentence.group in unwanted])
        refused += self._take(list(running) if closed else [])
        self._fail(expired, DeadlineExceeded, "The deadline passed before the translation was complete.")
        self._fail(cancelled, Cancelled, "The translation was cancelled.")
        self._fail(refused, Unavailable, "The engine is closing. Try again.")

    def _take(self, places: Sequence[int]) -> list[_Sentence]:
        """Takes sentences out of the running batch, if they are in it."""
        with self._changed:
            return [self._running.pop(place) for place in places if place in self._running]

    def _fail(self, sentences: Sequence[_Sentence], error: type[ModelError], message: str) -> None:
        with self._changed:
            self._failed += len(sentences)
        for sentence in sentences:
            sentence.pending.set_exception(error(message))
