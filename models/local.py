"""A loaded model that translates texts: what a notebook, the command line and a worker use.

with LocalTranslator.load("fr-en") as translator:
    for translation in translator.translate(["Je vais dormir.", "Il pleut."]).results:
        print(translation.text)
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeGuard, get_args
from uuid import uuid4

import regex
import torch

from models.checkpoint.files import quote, read_json
from models.engine.batch import Hypothesis
from models.engine.engine import Engine, EngineSettings, Pending, SentenceTimings
from models.engine.options import DecodingOptions
from models.engine.scheduler import Priority
from models.engine.stats import EngineStats
from models.errors import BadInput, Cancelled, DeadlineExceeded, ModelError, Overloaded, Unavailable, UnknownModel
from models.loading.background import in_background
from models.loading.footprint import footprint
from models.network.interface import Network
from models.network.precision import load
from models.store.diskcache import Held
from models.store.store import Store
from models.tokenizer import Tokenizer
from models.translation.runaways import runs_away, shorten
from text.characters import clean, refusal
from text.segment import Segmentation, fit, join, spans, split
from text.surface import restore, soften

Tokens = tuple[int, ...]
Flag = Literal["REPETITION", "UNKNOWN_TOKENS", "SPLIT", "TRUNCATED"]

_LANGUAGE = regex.compile(r"[\w.@+-]{0,40}")
_WORD = regex.compile(r"\p{L}+")
_SMALLEST_LIMIT = 8  # tokens of a sentence; no word would fit into fewer
_NO_LIMIT = 10**30  # as transformers writes it
_WARM_UP = 8  # target tokens
_LATE = 0.1  # seconds that a call waits beyond its deadline for what the step under way brings
_NO_REPEAT = 3  # tokens; the second try of a runaway says no run of so many twice


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another translation of the same text, with its score."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Sentence:
    """What the model saw of a text and made of it: two spans (start, end) of characters, here and in the translation.

    `score` is the mean log-probability per target token.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    score: float
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, slots=True)
class Translation:
    """A text's outcome: a text, or an error.

    `score` is the mean log-probability per target token of all its sentences, None where there was none to translate.
    Every alternative differs in one sentence, the likeliest first. `flags` are explained in docs/models.md. What no
    sentence covers is layout and stays as it was.
    """

    text: str | None = None
    score: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    flags: tuple[Flag, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    error: ModelError | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """A translation per text, in order.

    `timings` are the longest of any sentence, not sums, because sentences share batches; a second try adds its own.
    """

    results: tuple[Translation, ...]
    timings: SentenceTimings


class _Draft(NamedTuple):
    """A text taken apart, with the token ids of every sentence; `unknown` if the model has no piece for some of it."""

    text: str
    segmentation: Segmentation
    tokens: list[Tokens]
    unknown: bool


class _Decoded(NamedTuple):
    """What the model made of a sentence, the best first; `repeated` if its first try ran away."""

    hypotheses: list[Hypothesis]
    repeated: bool = False

    @property
    def best(self) -> Hypothesis:
        return self.hypotheses[0]


_Outcome = _Decoded | ModelError


class LocalTranslator:
    """A model in memory, its engine running. Thread-safe: the sentences of concurrent calls share batches."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: Network,
        engine: Engine,
        *,
        held: Held,
        bytes: int,
        decoding: DecodingOptions,
        source: str,
        target: str,
        longest: int,
        target_tokens: Mapping[str, str],
    ) -> None:
        """`longest`: a source sentence of more tokens, its end included, is translated in parts. `held` is where the
        model lies, until `close`; `bytes` is its models.loading.footprint."""
        self.tokenizer = tokenizer
        self.model = model
        self.directory, self.checksum, self.version = held.directory, str(held.checksum), held.checksum.version
        self.decoding = decoding
        self.source = source
        self.target = target
        self.longest = longest
        self.target_tokens = target_tokens
        self.bytes = bytes
        self._engine = engine
        self._held = held

    @classmethod
    def load(
        cls,
        reference: str,
        *,
        device: str = "cpu",
        precision: str = "auto",
        target_tokens: Mapping[str, str] | None = None,
        decoding: DecodingOptions | None = None,
        settings: EngineSettings | None = None,
        store: Store | None = None,
        checksum: str | None = None,
        held: Held | None = None,
    ) -> LocalTranslator:
        """The model of an embedded name, of a directory, or from elsewhere (docs/models.md), with its engine started.

        `precision` is float32, bfloat16, float16, int8, or auto (models.network.precision).
        `target_tokens` says the target token of a language where that is not `>>language<<`; `decoding` holds for calls
        that bring no options, and is by default the beam of the model's generation_config.json. `store` keeps what is
        fetched, by default in the user's cache; `checksum` is what the model has to have. `held` is a model that was
        fetched already.
        Raises UnknownModel for a reference that leads nowhere, or to a file that is not what it should be (the message
        names both), BadInput for a target token the model does not have or a precision the device does not, Unavailable
        for a device that is not there, and as Store.fetch does.
        """
        with ExitStack() as failing:
            held = failing.enter_context(held or (store or Store()).fetch(reference, checksum))
            translator = in_background(
                lambda: cls._read(
                    reference, held, device, precision, target_tokens or {}, decoding, settings or EngineSettings()
                )
            )
            translator._engine.start()
            failing.pop_all()
            return translator

    @classmethod
    def _read(
        cls,
        reference: str,
        held: Held,
        device: str,
        precision: str,
        target_tokens: Mapping[str, str],
        decoding: DecodingOptions | None,
        settings: EngineSettings,
    ) -> Self:
        """All of loading that takes long. It has the thread for itself."""
        torch.set_num_threads(1)  # where cores are busy, several would wait for one another
        tokenizer = Tokenizer.load(held.directory)
        if missing := set(target_tokens.values()) - tokenizer.target_tokens:
            raise BadInput(
                f"{reference} has no target token {_list(missing)}. It has: {_list(tokenizer.target_tokens)}."
            )
        path = held.directory / "tokenizer_config.json"
        config = read_json(path, required=False)
        longest = config.get("model_max_length", _NO_LIMIT)
        if type(longest) is not int or longest < _SMALLEST_LIMIT:
            raise UnknownModel(f"{path}: model_max_length is {quote(longest)}; {_SMALLEST_LIMIT} or more was expected.")
        source, target = (_language(config, name, path) for name in ("source_lang", "target_lang"))
        model = load(held.directory, device=device, precision=precision)
        return cls(
            tokenizer,
            model,
            Engine(model, settings),
            held=held,
            bytes=footprint(held.directory, device=device, precision=model.precision, settings=settings),
            decoding=decoding or DecodingOptions(beam=model.config.num_beams),
            source=source,
            target=target,
            longest=min(longest, tokenizer.max_length),
            target_tokens={token.strip("<>"): token for token in tokenizer.target_tokens} | dict(target_tokens),
        )

    def translate(
        self,
        texts: Sequence[str],
        *,
        source: str | None = None,
        target: str | None = None,
        options: DecodingOptions | None = None,
        deadline: float = math.inf,
        priority: Priority = "interactive",
        group: str | None = None,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Translated:
        """A translation per text, in order; a text that fails does not spoil another.

        `source` and `target` are language codes, by default the model's own; a multilingual model needs `target`.
        `deadline` is a time.monotonic(): texts that are not complete by then fail with DeadlineExceeded, though the
        model hang.
        Raises BadInput for a target the model does not have; Overloaded, Unavailable or Cancelled for the call as a
        whole, after cancelling what is left of `group`. `unwanted` says whether somebody has cancelled `group` already.
        """
        token = self._target_token(target)
        source, target = source or self.source, target or self.target
        options, group = options or self.decoding, group or uuid4().hex

        def submit(tokens: Tokens, no_repeat_ngram: int = options.no_repeat_ngram) -> Pending:
            limit = min(options.max_length or math.inf, self.tokenizer.max_length, 3 * len(tokens) + 20)
            bounded = replace(options, max_length=int(limit), no_repeat_ngram=no_repeat_ngram)
            pending = self._engine.submit(tokens, bounded, deadline=deadline, priority=priority, group=group)
            if unwanted():  # cancelled when there was nothing in the engine to cancel
                raise Cancelled("The translation was cancelled.")
            return pending

        drafts = [self._draft(text, source, token) for text in texts]
        try:
            sentences = [tokens for draft in drafts if isinstance(draft, _Draft) for tokens in draft.tokens]
            outcomes, timings = _decode(sentences, submit, deadline + _LATE)
        except BaseException:
            self._engine.cancel(group)
            raise
        results = (
            self._finish(draft, [outcomes[tokens] for tokens in draft.tokens], source, target)
            if isinstance(draft, _Draft)
            else Translation(error=draft)
            for draft in drafts
        )
        return Translated(tuple(results), timings)

    @property
    def device(self) -> str:
        return str(self.model.device)

    @property
    def precision(self) -> str:
        return self.model.precision

    def warm_up(self, example: str | None = None) -> None:
        """Runs the model once: what only fails, or takes its time, at first use does so now. Raises ModelError.

        `example` is a text to translate, into any of several target languages.
        """
        if example is None:
            tokens = [self.tokenizer.unknown_id, self.tokenizer.eos_id]  # in a vocabulary of any language
            self._engine.submit(tokens, replace(self.decoding, max_length=_WARM_UP)).result()
            return
        [translation] = self.translate([example], target=next(iter(self.target_tokens), None)).results
        if translation.error is not None:
            raise translation.error
        if not translation.sentences:
            raise BadInput(f"The example {quote(repr(example))} holds no sentence that the model knows.")

    def stalled(self) -> float:
        """Seconds that the model has been busy with one step; infinite where the engine has lost a lane."""
        return self._engine.stalled()

    def cancel(self, group: str) -> int:
        """Ends what waits or runs under `group`; returns how many sentences that were."""
        return self._engine.cancel(group)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self, grace: float = 0.0) -> None:
        """Stops the engine; what it has accepted gets `grace` seconds. Then the store may remove the model."""
        self._engine.close(grace)
        self._held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _target_token(self, target: str | None) -> str | None:
        if self.target_tokens and target not in self.target_tokens:
            raise BadInput(f"target: {target!r} is none of this model's languages: {_list(self.target_tokens)}.")
        return self.target_tokens.get(target or "")

    def _draft(self, text: str, source: str, target_token: str | None) -> _Draft | BadInput:
        unknown, encoded = self.tokenizer.unknown_id, dict[str, Tokens]()

        def encode(sentence: str) -> Tokens:
            if sentence not in encoded:
                encoded[sentence] = tuple(self.tokenizer.encode(soften(sentence), target_token))
            return encoded[sentence]

        def fits(sentence: str) -> bool:
            return len(encode(sentence)) <= self.longest

        def knows(sentence: str) -> bool:
            return unknown not in encode(sentence) or any(
                unknown not in encode(word) for word in _WORD.findall(sentence)
            )

        if (reason := refusal(text)) is not None:
            return BadInput(reason)
        segmentation = split(text, source, fits, knows)
        tokens = [encode(sentence) for sentence in segmentation.sentences]
        return _Draft(text, segmentation, tokens, any(unknown in tokens for tokens in encoded.values()))

    def _finish(self, draft: _Draft, outcomes: list[_Outcome], source: str, target: str) -> Translation:
        decoded = []
        for outcome in outcomes:
            if isinstance(outcome, ModelError):
                return Translation(error=outcome)
            decoded.append(outcome)
        best = [sentence.best for sentence in decoded]
        texts = [self._text(draft, i, hypothesis) for i, hypothesis in enumerate(best)]
        gaps = fit(draft.segmentation.gaps, source, target)
        text = join(gaps, texts)
        sentences = self._sentences(draft, decoded, spans(gaps, texts))
        raised = {flag for sentence in sentences for flag in sentence.flags}
        if draft.unknown:  # in what was left as it is, too
            raised.add("UNKNOWN_TOKENS")
        alternatives: dict[str, float] = {}
        for score, i, hypothesis in _swaps(decoded):
            swapped = [*texts[:i], self._text(draft, i, hypothesis), *texts[i + 1 :]]
            alternatives.setdefault(join(gaps, swapped), score)
        alternatives.pop(text, None)
        return Translation(
            text=text,
            score=_score(best) if best else None,
            alternatives=tuple(Alternative(*item) for item in alternatives.items()),
            flags=tuple(flag for flag in get_args(Flag) if flag in raised),
            sentences=sentences,
        )

    def _sentences(
        self, draft: _Draft, decoded: list[_Decoded], targets: list[tuple[int, int]]
    ) -> tuple[Sentence, ...]:
        sources = spans(draft.segmentation.gaps, draft.segmentation.sentences)
        found = []
        for i, (source, target, outcome) in enumerate(zip(sources, targets, decoded, strict=True)):
            flags: dict[Flag, bool] = {
                "REPETITION": outcome.repeated,
                "UNKNOWN_TOKENS": self.tokenizer.unknown_id in draft.tokens[i],
                "SPLIT": i in draft.segmentation.parts,
                "TRUNCATED": outcome.best.finish_reason == "length",
            }
            raised = tuple(flag for flag, is_raised in flags.items() if is_raised)
            found.append(Sentence(source, target, outcome.best.score, raised))
        return tuple(found)

    def _text(self, draft: _Draft, i: int, hypothesis: Hypothesis) -> str:
        translation = clean(self.tokenizer.decode(hypothesis.tokens), draft.text)
        return restore(translation, draft.segmentation.sentences[i])


def _decode(
    sentences: Iterable[Tokens], submit: Callable[..., Pending], until: float
) -> tuple[dict[Tokens, _Outcome], SentenceTimings]:
    """All sentences through the engine at once, equal ones once; then those that ran away again, without repetition."""
    pendings = {tokens: submit(tokens) for tokens in dict.fromkeys(sentences)}
    outcomes = {tokens: _wait(pending, until) for tokens, pending in pendings.items()}
    runaways = {tokens: first for tokens, first in outcomes.items() if _runs_away(first, tokens)}
    retries: dict[Tokens, Pending] = {}
    with suppress(Overloaded):  # then the first try is shortened, as where the deadline ends the second
        for tokens in runaways:
            retries[tokens] = submit(tokens, no_repeat_ngram=_NO_REPEAT)
    for tokens, first in runaways.items():
        second = _wait(retries[tokens], until) if tokens in retries else first
        if isinstance(second, ModelError) or second.best.finish_reason == "length" or _runs_away(second, tokens):
            second = _Decoded([replace(found, tokens=shorten(found.tokens)) for found in first.hypotheses])
        outcomes[tokens] = second._replace(repeated=True)
    return outcomes, _longest(pendings.values(), retries.values())


def _runs_away(outcome: _Outcome, source: Tokens) -> TypeGuard[_Decoded]:
    return isinstance(outcome, _Decoded) and runs_away(
        outcome.best.tokens, source, ended=outcome.best.finish_reason == "eos"
    )


def _longest(*rounds: Collection[Pending]) -> SentenceTimings:
    """Per round the longest that a sentence took; the rounds follow one another."""
    timings = [[pending.timings for pending in pendings] for pendings in rounds if pendings]
    return SentenceTimings(
        wait=sum(max(timing.wait for timing in taken) for taken in timings),
        prefill=sum(max(timing.prefill for timing in taken) for taken in timings),
        decode=sum(max(timing.decode for timing in taken) for taken in timings),
    )


def _wait(pending: Pending, until: float) -> _Outcome:
    """What became of a sentence; trouble that is the whole call's is raised. The engine may hang: it has `until` then.

    The clock is time.monotonic().
    """
    try:
        return _Decoded(pending.result(None if until == math.inf else max(0.0, until - time.monotonic())))
    except TimeoutError:
        return DeadlineExceeded("The deadline passed before the translation was complete.")
    except (Overloaded, Unavailable, Cancelled):
        raise
    except ModelError as error:
        return error


def _score(hypotheses: Iterable[Hypothesis]) -> float:
    """The mean log-probability per token, with the end of each, which `tokens` leave out."""
    total, length = 0.0, 0
    for found in hypotheses:
        total += found.score * (len(found.tokens) + 1)
        length += len(found.tokens) + 1
    return total / length


def _swaps(decoded: list[_Decoded]) -> Iterator[tuple[float, int, Hypothesis]]:
    """The next best texts, each with one sentence `i` said another way: (score of the text, i, hypothesis).

    As many as a sentence has other hypotheses; those of one sentence stay in its order.
    """
    best = [sentence.best for sentence in decoded]

    def others(i: int) -> Iterator[tuple[float, int, Hypothesis]]:
        for found in decoded[i].hypotheses[1:]:
            yield _score([*best[:i], found, *best[i + 1 :]]), i, found

    ranked = heapq.merge(*map(others, range(len(best))), key=lambda swap: -swap[0])
    return islice(ranked, max((len(sentence.hypotheses) - 1 for sentence in decoded), default=0))


def _language(config: Mapping[str, Any], name: str, path: Path) -> str:
    code = config.get(name) or ""
    if not isinstance(code, str) or not _LANGUAGE.fullmatch(code):
        raise UnknownModel(f"{path}: {name} is {quote(code)}; a language's code was expected.")
    return code


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
