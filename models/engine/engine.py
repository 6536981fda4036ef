"""The engine decodes sentences from any thread in batches that they enter and leave between any two steps.

This is continuous batching, as in servers of language models (Yu et al. 2022, Orca,
https://www.usenix.org/conference/osdi22). At every step a lane sweeps (late and cancelled sentences leave), admits
(waiting sentences enter if there is room and the scheduler lets them), and runs the model once. A lane is one thread
with one batch. On a CPU there is a lane for each core; all lanes use the same weights.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence

import torch

from models.engine.batch import Batch
from models.engine.lane import Lane
from models.engine.options import DecodingOptions
from models.engine.scheduler import SHORTEST, Priority, Scheduler, cost
from models.engine.settings import EngineSettings
from models.engine.stats import EngineCounts, EngineStats
from models.engine.submission import Pending, SentenceTimings, Submission
from models.errors import BadInput, Cancelled, DeadlineExceeded, ModelError, Unavailable
from models.network.generation import LARGEST_BEAM
from models.network.interface import Network

logger = logging.getLogger(__name__)

_PACE = 4  # steps between entries, because encoding sentences one by one takes twice as long as together
_FAILED = "The model failed on a sentence of this text."
_CLOSING = "The engine is closing. Try again."


class Engine:
    """Batches the sentences of all callers. Every Pending gets an outcome, at the latest when the engine is closed."""

    def __init__(
        self,
        model: Network,
        settings: EngineSettings,
        *,
        scheduler: Scheduler[Submission] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`scheduler` chooses the sentences that enter; it has as many lanes as settings.lanes_on(the model's device).
        Deadlines are times of the `clock`."""
        lanes = settings.lanes_on(model.device)
        self.clock = clock
        self._model, self._settings = model, settings
        if scheduler is None:
            sizes, share = (settings.token_budget, settings.max_waiting), settings.caller_share_on(model.device)
            portion = settings.portion_on(model.device)
            scheduler = Scheduler(*sizes, lanes=lanes, pace=_PACE, caller_share=share, portion=portion)
        self._scheduler = scheduler
        self._changed = threading.Condition()  # guards the scheduler, the lanes' running sentences, and the next fields
        self._closes_at: float | None = None  # a time of the clock; None while the engine is open
        self._broken = False  # whether a lane has died without the engine being closed
        self._counts = EngineCounts()
        rows = max(settings.token_budget // SHORTEST, LARGEST_BEAM)
        self._lanes = [Lane(number, Batch(model, rows)) for number in range(lanes)]
        for lane in self._lanes:
            # Daemon threads with an exit handler: a process that forgets to close still ends, but not amid a step.
            lane.thread = threading.Thread(target=self._run, args=(lane,), name=f"lane-{lane.number}", daemon=True)

    def start(self) -> None:
        """Starts the lanes' threads. `close` ends them; so does the end of the process."""
        atexit.register(self.close)
        for lane in self._lanes:
            lane.thread.start()

    def submit(
        self,
        tokens: Sequence[int],
        options: DecodingOptions,
        *,
        deadline: float = math.inf,
        priority: Priority = "interactive",
        caller: str = "",
        group: str | None = None,
        preparation: float = 0.0,
    ) -> Pending:
        """Queues a sentence, given as source token ids including the end token. Returns the hypotheses to come.

        `deadline` is a time of the clock. `cancel(group)` ends the sentence. Callers share the engine, and so do the
        groups of a caller (models.engine.scheduler). `preparation`: what making the sentence took, in tokens.

        A bulk sentence waits here, until the deadline at most, while many others wait in the queue.

        Raises Overloaded if the queue is full, Unavailable if the engine is not running, BadInput for a sentence that
        is empty, has more tokens than the model has positions, or has tokens outside its vocabulary. The Pending fails
        with DeadlineExceeded, Cancelled, Unavailable, or, if the model itself failed, ModelError.
        """
        config = self._model.config
        if not 1 <= len(tokens) <= config.max_position_embeddings:
            raise BadInput(f"A sentence has 1 to {config.max_position_embeddings} tokens, not {len(tokens)}.")
        if min(tokens) < 0 or max(tokens) >= config.vocab_size:  # on a GPU, CUDA would stop working in this process
            raise BadInput(f"A token is outside the vocabulary of {config.vocab_size}.")
        sentence = Submission(tokens, options, deadline, priority, caller, group, preparation, self.clock(), Pending())
        sentence.pending.set_running_or_notify_cancel()  # Future.cancel() has no effect from now on
        with self._changed:
            while priority == "bulk" and self._scheduler.is_full_of_bulk and self._runs() and self.clock() < deadline:
                self._changed.wait(min(deadline - self.clock(), threading.TIMEOUT_MAX))
            if not self._runs():
                raise Unavailable("The engine is not running. Try again.")
            self._scheduler.add(sentence)
            self._changed.notify_all()
        return sentence.pending

    def cancel(self, group: str) -> int:
        """Ends the waiting sentences of `group` now, and the running ones at the next step; returns their number."""
        with self._changed:
            waiting = self._scheduler.remove(lambda sentence: sentence.group == group)
            self._changed.notify_all()
            running = 0
            for lane in self._lanes:
                unwanted = [sentence for sentence in lane.running if sentence.group == group]
                running += len(unwanted)
                lane.unwanted.update(unwanted)
        self._fail(waiting, Cancelled, "The translation was cancelled.")
        return len(waiting) + running

    def _runs(self) -> bool:
        return self._closes_at is None and all(lane.thread.is_alive() for lane in self._lanes)

    def stats(self) -> EngineStats:
        with self._changed:
            running = [sentence for lane in self._lanes for sentence in lane.running]
            return self._counts.stats(
                waiting=len(self._scheduler),
                running=len(running),
                running_tokens=sum(map(cost, running)),
                lanes=len(self._lanes) if self._closes_at is None else 0,
                token_budget=self._settings.token_budget,
            )

    def stalled(self) -> float:
        """Seconds that the model has been busy with one step, the most of all lanes; infinite if a lane has died.

        It takes no lock, because an engine that hangs might hold the lock.
        """
        now = self.clock()
        begun = [since for lane in self._lanes if (since := lane.since) is not None]
        return math.inf if self._broken else max((now - since for since in begun), default=0.0)

    def close(self, grace: float = 0.0) -> None:
        """Stops taking sentences. Those it has are finished within `grace` seconds, or fail with Unavailable.

        If a step does not end within `last_step` seconds after that, its lane is abandoned: `close` does not wait for
        it, and what it computes is discarded.
        """
        until, last_step = self.clock() + grace, self._settings.last_step
        with self._changed:
            self._closes_at = until
            self._changed.notify_all()
        for lane in self._lanes:
            if lane.thread.is_alive():
                lane.thread.join(max(0.0, until + last_step - self.clock()))
        if lost := sum(lane.thread.is_alive() for lane in self._lanes):
            logger.error("%d lanes did not finish a step within %.0f s and were abandoned", lost, grace + last_step)
            self._abandon()
        atexit.unregister(self.close)

    def _run(self, lane: Lane) -> None:
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                while self._turn(lane):
                    pass
        except BaseException:
            self._broken = True
            raise
        finally:  # even if the lane has died of an error, no caller may wait for ever
            with self._changed:
                self._closes_at = -math.inf
                self._changed.notify_all()
            self._sweep(lane)

    def _turn(self, lane: Lane) -> bool:
        """Sweeps, admits, and runs a step. Returns False if the engine is closing and no sentence is left."""
        self._sweep(lane)
        entering = self._admit(lane)
        if not lane.running:
            if self._closes_at is not None:
                return False
            lane.batch.rest()
            return True
        self._each_or_halves(lane, entering, self._enter)
        self._each_or_halves(lane, self._scheduler.stepping(lane.number, lane.running), self._step)
        return True

    def _sweep(self, lane: Lane) -> None:
        """Ends late and cancelled sentences, and, once the time to close has come, all sentences."""
        now = self.clock()
        with self._changed:
            closed = self._closes_at is not None and now >= self._closes_at
            refused = self._scheduler.remove(lambda _: True) if closed else []
            if expired := self._scheduler.expire(now):
                self._changed.notify_all()
            cancelled, lane.unwanted = self._release(lane, lane.unwanted), set()
            expired += self._release(lane, [sentence for sentence in lane.running if sentence.deadline <= now])
            refused += self._release(lane, list(lane.running) if closed else [])
        self._fail(expired, DeadlineExceeded, "The deadline passed before the translation was complete.")
        self._fail(cancelled, Cancelled, "The translation was cancelled.")
        self._fail(refused, Unavailable, _CLOSING)

    def _abandon(self) -> None:
        """Fails all sentences, without waiting for the lanes that compute them."""
        with self._changed:
            held = self._scheduler.remove(lambda _: True)
            for lane in self._lanes:
                held += lane.running
                lane.running.clear()
        self._fail(held, Unavailable, _CLOSING)

    def _admit(self, lane: Lane) -> list[Submission]:
        """The sentences that enter the lane's batch now. If the lane is empty, it waits for a sentence, or for the
        engine to close; if its batch has taken much memory, it waits `rest_after` seconds at most."""
        with self._changed:
            while not (entering := self._scheduler.admit(lane.number, self.clock())):
                if lane.running or self._closes_at is not None:
                    break
                if not self._changed.wait(self._settings.rest_after if lane.batch.is_large else None):
                    break
            now = self.clock()
            for sentence in entering:
                sentence.began = now
                lane.running[sentence] = None
            if any(sentence.priority == "bulk" for sentence in entering):
                self._changed.notify_all()  # others wait to be submitted
        return entering

    def _enter(self, lane: Lane, sentences: Sequence[Submission]) -> None:
        lane.batch.enter({sentence: (sentence.tokens, sentence.options) for sentence in sentences})
        now = self.clock()
        for sentence in sentences:
            sentence.encoded = now

    def _step(self, lane: Lane, sentences: Sequence[Submission]) -> None:
        outcomes = lane.batch.step(None if len(sentences) == len(lane.running) else sentences)
        now = self.clock()
        with self._changed:
            self._counts.add_step(len(sentences), self._scheduler.held(lane.number))
            wanted = self._release(lane, outcomes)
            for sentence in wanted:
                if isinstance(outcome := outcomes[sentence], list):
                    self._counts.add_finished(len(sentence.tokens), len(outcome[0].tokens))
        for sentence in wanted:
            outcome = outcomes[sentence]
            if isinstance(outcome, ModelError):
                logger.error("the model failed on %d tokens", len(sentence.tokens), exc_info=outcome)
                self._fail([sentence], ModelError, _FAILED)
            else:
                began, encoded = sentence.began, sentence.encoded
                sentence.pending.timings = SentenceTimings(began - sentence.submitted, encoded - began, now - encoded)
                sentence.pending.set_result(outcome)

    def _each_or_halves(
        self, lane: Lane, sentences: Sequence[Submission], do: Callable[[Lane, Sequence[Submission]], None]
    ) -> None:
        """Calls `do` with all sentences. If the model fails, calls it with each half, and so on; a sentence with which
        the model fails alone gets the error."""
        attempts = [sentences]
        while attempts:
            if not (wanted := [sentence for sentence in attempts.pop() if sentence in lane.running]):
                continue
            try:
                lane.since = self.clock()
                do(lane, wanted)
            except Exception as error:
                self._sweep(lane)
                half = len(wanted) // 2
                if half:
                    logger.warning("%d sentences failed, trying each half: %s", len(wanted), type(error).__name__)
                    attempts += [wanted[half:], wanted[:half]]
                elif self._release(lane, wanted):
                    logger.error("the model failed on %d tokens", len(wanted[0].tokens), exc_info=error)
                    self._fail(wanted, ModelError, _FAILED)
            finally:
                lane.since = None

    def _release(self, lane: Lane, sentences: Iterable[Submission]) -> list[Submission]:
        """Takes sentences out of a lane; returns those that were running there. Only the lane's own thread calls it."""
        with self._changed:
            released = [sentence for sentence in sentences if sentence in lane.running]
            for sentence in released:
                del lane.running[sentence]
                self._scheduler.leave(lane.number, sentence)
        lane.batch.leave(released)
        return released

    def _fail(self, sentences: Collection[Submission], error: type[ModelError], message: str) -> None:
        with self._changed:
            self._counts.failed += len(sentences)
        for sentence in sentences:
            sentence.pending.set_exception(error(message))
