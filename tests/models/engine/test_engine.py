from __future__ import annotations

import gc
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import torch

from models.engine.engine import Engine
from models.engine.options import DecodingOptions
from models.engine.scheduler import SHORTEST, Priority, Scheduler
from models.engine.settings import EngineSettings
from models.engine.stats import EngineStats
from models.engine.submission import Pending
from models.errors import BadInput, Cancelled, DeadlineExceeded, ModelError, Overloaded, Unavailable
from models.network.cache import Cache, Doubles, Ints
from models.network.marian import Marian
from models.tokenizer import Tokenizer
from tests.models.double import Double

if TYPE_CHECKING:
    from tests.models.conftest import Decode, MakeModel

LONG = DecodingOptions(max_length=40)  # for a source whose translation does not end earlier
POISON = 4  # a token that makes the model compute nan
TIMEOUT = 30.0  # seconds that a test waits for an event

Start = Callable[..., Engine]


class Gate(Double):
    """Stops a model before each step. The test decides when the model goes on, and can wait until it has stopped."""

    def __init__(self, model: Marian) -> None:
        super().__init__(model)
        self._arrived, self._passes = threading.Semaphore(0), threading.Semaphore(0)
        self._is_open = True

    def step(self, cache: Cache, rows: Ints, count: int) -> tuple[Ints, Doubles]:
        if not self._is_open:
            self._arrived.release()
            assert self._passes.acquire(timeout=TIMEOUT)
        return self.original.step(cache, rows, count)

    def shut(self) -> None:
        self._is_open = False

    def reached(self) -> None:
        """Waits until the model has stopped before its next step."""
        assert self._arrived.acquire(timeout=TIMEOUT)

    def let_one_pass(self) -> None:
        self._passes.release()

    def open(self) -> None:
        self._is_open = True
        self._passes.release()


@pytest.fixture
def model(make_model: MakeModel) -> Gate:
    """A model that runs freely, unless the test uses the gate."""
    model = Marian.load(make_model(), dtype=torch.float64)
    model.source_embedding = torch.nn.Embedding.from_pretrained(model.source_embedding.weight.clone())
    model.source_embedding.weight[POISON] = math.nan
    return Gate(model)


@pytest.fixture
def gate(model: Gate) -> Gate:
    model.shut()
    return model


@pytest.fixture
def start(model: Gate) -> Iterator[Start]:
    engines: list[Engine] = []

    def begin(
        lanes: int = 1, *, model: Any = model, scheduler: Scheduler[Any] | None = None, **settings: float
    ) -> Engine:
        engines.append(Engine(model, EngineSettings(lanes=lanes, **settings), scheduler=scheduler))
        engines[-1].start()
        return engines[-1]

    yield begin
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def sources(make_model: MakeModel, sentences: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.load(make_model())
    ids = (tokenizer.encode(sentence) for sentence in sentences[::10])
    return [source for source in ids if len(source) < 60]


@pytest.fixture
def long(model: Gate, sources: list[list[int]], decode: Decode) -> list[int]:
    """A source whose translation takes 40 steps."""
    best = decode(model, sources, LONG)
    return next(s for s, (found, *_) in zip(sources, best, strict=True) if found.finish_reason == "length")


def submit(
    engine: Engine,
    source: list[int],
    options: DecodingOptions = LONG,
    deadline: float = math.inf,
    priority: Priority = "interactive",
    group: str | None = None,
) -> Pending:
    return engine.submit(source, options, deadline=deadline, priority=priority, group=group)


def until_it_refuses(engine: Engine) -> None:
    """Waits until the engine refuses sentences, because it has begun to close."""
    with suppress(Unavailable):
        while True:
            submit(engine, [0], deadline=0.0)


def test_sentences_of_many_threads_get_what_the_search_alone_finds(
    model: Gate, start: Start, sources: list[list[int]], decode: Decode
) -> None:
    engine = start(lanes=2, token_budget=300)
    each = [
        DecodingOptions(max_length=12),
        DecodingOptions(beam=4, nbest=4, max_length=12),
        DecodingOptions(beam=4, max_length=7),
    ]
    work = [(source, options) for source in sources for options in each]
    random.Random(1).shuffle(work)
    with ThreadPoolExecutor(16) as threads:
        pendings = list(threads.map(lambda item: submit(engine, *item), work))
        found = [pending.result(TIMEOUT) for pending in pendings]
    for (source, options), pending, hypotheses in zip(work, pendings, found, strict=True):
        (expected,) = decode(model, [source], options)
        assert [each.tokens for each in hypotheses] == [each.tokens for each in expected]
        assert [each.score for each in hypotheses] == pytest.approx([each.score for each in expected], abs=1e-4)
        assert min(pending.timings.wait, pending.timings.prefill, pending.timings.decode) > 0
    stats = engine.stats()
    assert (stats.waiting, stats.running, stats.finished, stats.failed) == (0, 0, len(work), 0)
    assert stats.steps < sum(len(hypotheses[0].tokens) for hypotheses in found)  # sentences share steps


def test_timings_are_there_before_the_result(start: Start, sources: list[list[int]]) -> None:
    pending = submit(start(), sources[0])
    seen: list[float] = []
    pending.add_done_callback(lambda done: seen.append(pending.timings.decode))
    pending.result(TIMEOUT)
    assert seen == [pending.timings.decode] != [0.0]


@pytest.mark.parametrize("beam", [1, 4])
def test_a_bad_sentence_fails_alone(start: Start, sources: list[list[int]], gate: Gate, beam: int) -> None:
    engine, options = start(), DecodingOptions(beam=beam, max_length=5)
    first = submit(engine, sources[0], options)
    gate.reached()  # the rest will be one batch
    batch = [[*source, POISON] if i in {3, 4, 11} else source for i, source in enumerate(sources)]
    pendings = [submit(engine, source, options) for source in batch]
    gate.open()
    for i, pending in enumerate([*pendings, first]):
        error = pending.exception(TIMEOUT)
        assert type(error) is (ModelError if i in {3, 4, 11} else type(None))
    assert len(submit(engine, sources[0], options).result(TIMEOUT)) == 1
    assert engine.stats().failed == 3


def test_a_step_that_fails_is_tried_in_halves_which_can_be_cancelled_meanwhile(
    start: Start, long: list[int], gate: Gate
) -> None:
    def exhausted(cache: Cache, rows: Ints, count: int) -> tuple[Ints, Doubles]:
        found = gate.step(cache, rows, count)
        if 2 in cache.lengths[rows]:
            raise MemoryError
        return found

    engine = start(model=Double(gate, step=exhausted))
    submit(engine, long, DecodingOptions(max_length=2))
    gate.reached()
    others = [submit(engine, long), submit(engine, long)]
    cancelled = [submit(engine, long, group="a"), submit(engine, [9, 0], group="a")]
    failing = submit(engine, [8, 0])
    gate.let_one_pass()
    gate.reached()
    gate.let_one_pass()  # a step in which all five fail
    gate.reached()
    assert engine.stats().running == 5
    assert engine.cancel("a") == 2
    gate.open()
    assert [type(pending.exception(TIMEOUT)) for pending in cancelled] == [Cancelled, Cancelled]
    assert isinstance(failing.exception(TIMEOUT), ModelError)
    assert [len(pending.result(TIMEOUT)) for pending in others] == [1, 1]


def test_sentences_enter_while_others_are_half_way_and_leave_before_them(
    start: Start, model: Gate, sources: list[list[int]], long: list[int], gate: Gate, decode: Decode
) -> None:
    engine, short = start(), DecodingOptions(beam=2, max_length=3)
    first = submit(engine, long)
    for _ in range(5):
        gate.reached()
        gate.let_one_pass()
    gate.reached()
    second = submit(engine, sources[0], short)
    for _ in range(3):  # it enters after the running step, and has two tokens
        gate.let_one_pass()
        gate.reached()
    assert second.done()
    assert not first.done()
    gate.open()
    for pending, source, options in ((first, long, LONG), (second, sources[0], short)):
        (expected,) = decode(model, [source], options)
        assert [found.tokens for found in pending.result(TIMEOUT)] == [found.tokens for found in expected[:1]]


def test_a_lane_without_work_gives_back_what_a_large_batch_took(
    start: Start, sources: list[list[int]], eventually: Callable[..., None]
) -> None:
    engine = start(rest_after=0.01)
    batch = engine._lanes[0].batch
    cache = batch._cache
    few = [submit(engine, source).result(TIMEOUT) for source in sources[:3]]
    assert batch._cache is cache
    for _ in range(2):
        many = [submit(engine, source, DecodingOptions(beam=4)) for source in sources]
        assert all(pending.result(TIMEOUT) for pending in many)
        eventually(lambda: not batch.is_large)
    assert batch._cache is not cache
    assert [submit(engine, source).result(TIMEOUT) for source in sources[:3]] == few


def test_a_full_queue_refuses_at_once(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(max_waiting=2)
    pendings = [submit(engine, long)]
    gate.reached()
    pendings += [submit(engine, long), submit(engine, long)]
    with pytest.raises(Overloaded):
        submit(engine, long)
    held = EngineStats(waiting=2, running=1, running_tokens=max(len(long), SHORTEST), lanes=1, token_budget=3072)
    assert engine.stats() == held
    gate.open()
    for pending in pendings:
        pending.result(TIMEOUT)


def test_bulk_work_waits_outside_while_much_of_it_waits_inside(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(max_waiting=16)  # of which bulk work takes two places

    def ask(group: str, deadline: float = math.inf) -> Pending:
        return submit(engine, long, deadline=deadline, priority="bulk", group=group)

    with ThreadPoolExecutor() as threads:
        first = ask("first")
        gate.reached()
        inside = [ask("inside"), ask("inside")]
        late = threads.submit(ask, "late", engine.clock() + 0.1).result(TIMEOUT)
        outside = [threads.submit(ask, "outside") for _ in range(3)]
        interactive = submit(engine, long)
        assert not any(each.done() for each in outside)
        assert engine.cancel("inside") == 2
        gate.open()
        for pending in [first, interactive, *(each.result(TIMEOUT) for each in outside)]:
            pending.result(TIMEOUT)
        assert all(isinstance(each.exception(TIMEOUT), Cancelled) for each in inside)
        assert isinstance(late.exception(TIMEOUT), DeadlineExceeded)


def test_closing_ends_the_wait_of_bulk_work(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(max_waiting=8)
    with ThreadPoolExecutor() as threads:
        held = [submit(engine, long, priority="bulk")]
        gate.reached()
        held.append(submit(engine, long, priority="bulk"))
        outside = threads.submit(submit, engine, long, priority="bulk")
        closing = threads.submit(engine.close)
        with pytest.raises(Unavailable):
            outside.result(TIMEOUT)
        gate.open()
        closing.result(TIMEOUT)
    assert all(isinstance(each.exception(TIMEOUT), Unavailable) for each in held)


def test_every_step_is_counted_by_its_batch_and_every_sentence_by_its_tokens(
    start: Start, long: list[int], gate: Gate
) -> None:
    engine = start(token_budget=1000)
    pendings = [submit(engine, long)]  # one step per token; it is alone in the first four
    gate.reached()
    pendings += [
        submit(engine, long, DecodingOptions(beam=2, max_length=3)),
        submit(engine, long, DecodingOptions(max_length=2)),
    ]
    pendings.append(submit(engine, [POISON, 0]))  # it fails at its first step
    gate.open()
    best = [pending.result(TIMEOUT)[0] for pending in pendings[:3]]
    assert isinstance(pendings[3].exception(TIMEOUT), ModelError)
    assert [len(found.tokens) for found in best[::2]] == [39, 1]
    stats = engine.stats()
    assert stats.batches[:3] == (37, 1, 1)
    assert stats.steps == 39
    assert stats.batch_sentences == 37 + 2 + 4
    assert stats.batch_tokens == len(long) * (39 + 2 * 2 + 1) + SHORTEST
    assert stats.source_tokens == 3 * len(long)
    assert stats.target_tokens == sum(len(found.tokens) for found in best)
    assert (stats.finished, stats.failed, stats.running_tokens, stats.occupancy) == (3, 1, 0, 0.0)


def test_occupancy_is_the_share_of_all_lanes_budgets(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(token_budget=4 * len(long), lanes=2)
    pending = submit(engine, long, DecodingOptions(beam=2))
    gate.reached()
    assert engine.stats().occupancy == pytest.approx(2 / (2 * 4))
    gate.open()
    pending.result(TIMEOUT)
    assert EngineStats(running_tokens=20, lanes=1, token_budget=10).occupancy == 1.0


def test_a_deadline_that_passes_in_the_queue(start: Start, long: list[int], gate: Gate) -> None:
    engine = start()
    running = submit(engine, long)
    gate.reached()
    late = submit(engine, long, deadline=time.monotonic())
    gate.let_one_pass()
    assert isinstance(late.exception(TIMEOUT), DeadlineExceeded)
    assert not running.done()
    gate.open()
    running.result(TIMEOUT)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_deadline_that_passes_in_the_middle_of_decoding(start: Start, long: list[int], gate: Gate, beam: int) -> None:
    engine, options = start(), DecodingOptions(beam=beam, max_length=40)
    blocker = submit(engine, long, options)
    gate.reached()
    deadline = time.monotonic() + 0.5
    pendings = [submit(engine, long, options, deadline=d) for d in (math.inf, deadline, math.inf)]
    for _ in range(4):  # they enter together, at the fourth step at the latest
        gate.let_one_pass()
        gate.reached()
    assert engine.stats().running == 4
    assert time.monotonic() < deadline  # otherwise this machine is too slow for this test
    threading.Event().wait(deadline - time.monotonic())
    gate.let_one_pass()
    assert isinstance(pendings[1].exception(TIMEOUT), DeadlineExceeded)
    assert not pendings[0].done()
    gate.reached()
    assert engine.stats().running == 3
    gate.open()
    assert [len(pending.result(TIMEOUT)) for pending in (blocker, pendings[0], pendings[2])] == [1, 1, 1]


def test_cancelling_a_group_ends_what_waits_and_what_runs(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(token_budget=2 * len(long))
    groups = ["a", "b", "a", "b", "a", None]
    blocker = submit(engine, long, DecodingOptions(max_length=1))
    gate.reached()
    pendings = [submit(engine, long, group=group) for group in groups]
    gate.let_one_pass()
    blocker.result(TIMEOUT)
    gate.reached()  # the first two run
    assert engine.cancel("a") == 3
    assert engine.cancel("c") == 0
    gate.open()
    for group, pending in zip(groups, pendings, strict=True):
        assert type(pending.exception(TIMEOUT)) is (Cancelled if group == "a" else type(None))
    assert engine.cancel("a") == 0
    assert submit(engine, long, group="a").result(TIMEOUT)


def test_interactive_work_goes_before_bulk(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(token_budget=len(long))
    done: list[str] = []
    pendings = []
    for name, priority in (("first", "bulk"), ("bulk", "bulk"), ("bulk too", "bulk"), ("interactive", "interactive")):
        pending = submit(engine, long, DecodingOptions(max_length=3), priority=priority)
        pending.add_done_callback(lambda _, name=name: done.append(name))
        pendings.append(pending)
        if name == "first":
            gate.reached()
    gate.open()
    wait(pendings, TIMEOUT)
    assert done == ["first", "interactive", "bulk", "bulk too"]


def test_closing_with_grace_finishes_what_is_held(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(token_budget=len(long))
    pendings = [submit(engine, long), submit(engine, long)]
    gate.reached()
    closer = threading.Thread(target=engine.close, args=(TIMEOUT,))
    closer.start()
    until_it_refuses(engine)
    gate.open()
    assert [len(pending.result(TIMEOUT)) for pending in pendings] == [1, 1]
    closer.join(TIMEOUT)
    assert not closer.is_alive()


def test_closing_without_grace_fails_what_is_held(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(token_budget=2 * len(long))
    pendings = [submit(engine, long) for _ in range(5)]
    gate.reached()
    closer = threading.Thread(target=engine.close)
    closer.start()
    until_it_refuses(engine)
    gate.open()
    closer.join(TIMEOUT)
    assert not closer.is_alive()
    assert {type(pending.exception(TIMEOUT)) for pending in pendings} == {Unavailable}
    engine.close()
    with pytest.raises(Unavailable):
        submit(engine, long)


def test_closing_leaves_a_lane_behind_that_does_not_come_back(start: Start, long: list[int], gate: Gate) -> None:
    engine = start(token_budget=2 * len(long), last_step=0.1)
    pendings = [submit(engine, long) for _ in range(5)]
    gate.reached()
    began = time.monotonic()
    engine.close(grace=0.1)
    assert time.monotonic() - began < TIMEOUT / 2
    assert {type(pending.exception(0)) for pending in pendings} == {Unavailable}
    gate.open()  # now the step ends
    [lane] = engine._lanes
    lane.thread.join(TIMEOUT)
    assert not lane.thread.is_alive()
    stats = engine.stats()
    assert (stats.waiting, stats.running, stats.finished, stats.failed, stats.steps) == (0, 0, 0, 5, 1)
    assert (stats.lanes, stats.occupancy) == (0, 0.0)


def test_it_says_how_long_a_step_has_taken(
    start: Start, long: list[int], gate: Gate, eventually: Callable[..., None]
) -> None:
    engine = start(lanes=2)
    assert engine.stalled() == 0
    pending = submit(engine, long)
    gate.reached()
    eventually(lambda: engine.stalled() > 0.5)
    gate.let_one_pass()
    gate.reached()
    assert engine.stalled() < 0.5
    gate.open()
    pending.result(TIMEOUT)
    eventually(lambda: engine.stalled() == 0)


def test_an_engine_that_does_not_run_takes_no_work(model: Gate, long: list[int]) -> None:
    engine = Engine(model, EngineSettings())
    with pytest.raises(Unavailable):
        submit(engine, long)
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_an_engine_that_has_failed(start: Start, long: list[int], gate: Gate) -> None:
    class Failing(Scheduler[Any]):
        def admit(self, lane: int, now: float) -> list[Any]:
            return super().admit(lane, now) if not broken.is_set() else [1 / 0]

    broken = threading.Event()
    engine = start(scheduler=Failing(3072, 100))
    running = submit(engine, long)
    gate.reached()
    waiting = submit(engine, long)
    broken.set()
    gate.open()
    for pending in (running, waiting):
        assert isinstance(pending.exception(TIMEOUT), Unavailable)
    assert engine.stalled() == math.inf
    with pytest.raises(Unavailable):
        submit(engine, long)


@pytest.mark.parametrize("tokens", [[], [0] * 65, [-1, 0], [152, 0]], ids=["none", "too many", "negative", "unknown"])
def test_what_the_model_cannot_take_is_refused(start: Start, tokens: list[int]) -> None:
    with pytest.raises(BadInput):
        submit(start(), tokens)


def test_every_sentence_has_an_outcome_whatever_happens(start: Start, sources: list[list[int]]) -> None:
    """Eight threads submit random work with deadlines, bad sentences and cancellations while the engine is closed."""
    engine = start(lanes=2, max_waiting=50, token_budget=200)
    pendings: list[Pending] = []

    def close(seed: int) -> None:
        if seed == 0 and len(pendings) > 600:
            engine.close(0.1)

    chaos(engine, sources, pendings, calls=150, after_each=close)
    engine.close()
    outcomes = [type(pending.exception(TIMEOUT)) for pending in pendings]
    assert set(outcomes) <= {type(None), DeadlineExceeded, Cancelled, Unavailable, ModelError}
    stats = engine.stats()
    assert (stats.finished, stats.failed) == (outcomes.count(type(None)), len(outcomes) - outcomes.count(type(None)))


def test_ten_thousand_submissions_leave_nothing_behind(start: Start, sources: list[list[int]]) -> None:
    engine = start(lanes=2, max_waiting=50, token_budget=400)
    held: list[int] = []
    for _ in range(2):
        pendings: list[Pending] = []
        chaos(engine, sources, pendings, calls=625)
        for pending in pendings:
            pending.exception(TIMEOUT)
        del pendings, pending
        gc.collect()
        held.append(sum(isinstance(each, (Pending, DecodingOptions, list)) for each in gc.get_objects()))
        assert (len(engine._scheduler), engine.stats().running) == (0, 0)
        assert [len(lane.batch) for lane in engine._lanes] == [0, 0]
        assert [len(lane.batch._free) for lane in engine._lanes] == [64, 64]
        assert not any(lane.unwanted for lane in engine._lanes)
        assert engine._scheduler._held == engine._scheduler._bulk == [0, 0]
        assert engine._scheduler._running == [{}, {}]
    assert held[1] <= held[0] + 100


def chaos(
    engine: Engine,
    sources: list[list[int]],
    pendings: list[Pending],
    calls: int,
    after_each: Callable[[int], None] = lambda _: None,
) -> None:
    """Eight threads make so many calls each, of which some fail, miss their deadline or are cancelled."""

    def caller(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(calls):
            source = chance.choice(sources) + [POISON] * (chance.random() < 0.02)
            beam = chance.choice([1, 1, 3])
            deadline = time.monotonic() + chance.choice([0.0, 0.01, 0.1, math.inf])
            try:
                options = DecodingOptions(beam=beam, max_length=chance.randint(1, 12))
                priority: Priority = chance.choice(["interactive", "bulk"])
                pendings.append(submit(engine, source, options, deadline, priority, f"group {seed % 4}"))
            except Overloaded:
                pendings[-1].exception(TIMEOUT)
            except Unavailable:
                return
            if chance.random() < 0.02:
                engine.cancel(f"group {seed % 4}")
            after_each(seed)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
