"""A loaded model that translates texts. Notebooks, the command line and the workers use it.

with LocalTranslator.load("fr-en") as translator:
    for translation in translator.translate(["Je vais dormir.", "Il pleut."]).results:
        print(translation.text)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, TypeVar
from uuid import uuid4

import regex
import torch

from models.checkpoint.files import quote, read_json
from models.engine.engine import Engine
from models.engine.options import DecodingOptions
from models.engine.scheduler import SHORTEST, Priority
from models.engine.settings import EngineSettings
from models.engine.stats import EngineStats
from models.engine.submission import Pending
from models.errors import BadInput, Cancelled, UnknownModel
from models.loading.background import in_background
from models.loading.footprint import footprint
from models.network.interface import Network
from models.network.precision import load
from models.store.diskcache import Held
from models.store.store import Store
from models.tokenizer import Tokenizer
from models.translation.call import Call
from models.translation.draft import Draft, Tokens, draft
from models.translation.ongoing import Ongoing, finished
from models.translation.repairs import second_tries
from models.translation.results import Translated
from models.translation.runaways import Decoding
from models.translation.turns import Turns, in_turns
from text.holds import Profile
from text.languages import nearest

K = TypeVar("K", bound=Hashable)

_LANGUAGE = regex.compile(r"[\w.@+-]{0,40}")
_SMALLEST_LIMIT = 8  # tokens of a sentence; with fewer, some words would not fit
_WARM_UP = 8  # target tokens
_LATE = 0.1  # seconds that a call waits beyond its deadline, for the results of the step that is running then


class LocalTranslator:
    """A model in memory with its running engine. Thread-safe: the sentences of concurrent calls share batches."""

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
        """`longest`: the most source tokens of a sentence, including its end token; longer sentences are translated in
        parts. `held`: the model's directory, which is released by `close`. `bytes`: the memory that the model takes
        (models.loading.footprint)."""
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
        self._turns = Turns(engine.clock)
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
        targets: Iterable[str] = (),
    ) -> LocalTranslator:
        """Fetches the model if necessary, loads it, and starts its engine.

        `reference`: the name of an embedded model, a directory, or a remote model (docs/models.md).
        `precision`: float32, bfloat16, float16, int8, or auto (models.network.precision).
        `target_tokens`: by language, its target token if that is not `>>language<<`.
        `decoding`: the options of calls that pass none; by default the beam of the model's generation_config.json.
        `store`: keeps fetched models, by default in the user's cache directory.
        `checksum`: the checksum that the model must have.
        `held`: the model's directory, if the caller has fetched it already.
        `targets`: languages that the model must be able to translate into.

        Raises UnknownModel for a reference that names no model, or a model with an invalid file (the message names
        both); BadInput for a target token that the model lacks, a target language without one, or a precision that the
        device lacks; Unavailable for a device that does not exist; and what Store.fetch raises.
        """
        with ExitStack() as failing:
            held = failing.enter_context(held or (store or Store()).fetch(reference, checksum))
            translator = in_background(
                lambda: cls._read(
                    reference, held, device, precision, target_tokens or {}, decoding, settings or EngineSettings()
                )
            )
            for target in targets:
                if translator.target_tokens and not translator._nearest_tokens(target):
                    raise BadInput(
                        f"{reference} has no target token for {target!r}: name one of "
                        f"{_list(translator.tokenizer.target_tokens)} as token of the pair in models.toml."
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
        """The part of loading that takes long. It may change the settings of the thread that it runs in."""
        torch.set_num_threads(1)  # on busy cores, several threads would wait for one another
        tokenizer = Tokenizer.load(held.directory)
        if missing := set(target_tokens.values()) - tokenizer.target_tokens:
            raise BadInput(
                f"{reference} has no target token {_list(missing)}. It has: {_list(tokenizer.target_tokens)}."
            )
        path = held.directory / "tokenizer_config.json"
        config = read_json(path, required=False)
        longest = config.get("model_max_length")
        longest = math.inf if longest is None else longest  # "no limit" is null, or a number such as 1e30
        if type(longest) not in (int, float) or not longest >= _SMALLEST_LIMIT:
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
            longest=int(min(longest, tokenizer.max_length)),
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
        caller: str = "",
        group: str | None = None,
        unwanted: Callable[[], bool] = lambda: False,
        joined: bool = False,
        profile: Profile = Profile.AUTO,
        preserve: Sequence[str] = (),
    ) -> Translated:
        """Translates the texts. Returns a translation per text, in order; each carries its own error if it failed.

        `source` and `target` are tags of languages (text.languages), by default the model's own; a multilingual model
        needs `target`. `deadline`, a time.monotonic(): texts that are not complete by then fail with DeadlineExceeded,
        even if the model hangs. `caller`: whose call it is; callers share the engine equally. `group`: the name under
        which `cancel` ends the call. `unwanted` says whether the group has been cancelled already. `joined`: whether
        the lines of a paragraph are joined, as in hard-wrapped text. `profile` and `preserve` say what of the texts has
        to come through as it is (text.holds.find).

        Raises BadInput for a target language that the model does not have. Raises Overloaded, Unavailable or Cancelled
        if the call as a whole fails, after cancelling the sentences of `group` that are left.
        """
        call = Call(
            texts, source, target, options, deadline, priority, caller, group, unwanted, joined, profile, preserve
        )
        [(_, outcome)] = self.translate_each({None: call})
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def translate_each(self, calls: Mapping[K, Call]) -> Iterator[tuple[K, Translated | Exception]]:
        """Begins all calls at once, and yields the key and the outcome of each as soon as that is there: what
        `translate` returns or raises."""
        ready: SimpleQueue[K] = SimpleQueue()
        ongoing: dict[K, Ongoing] = {}
        refused: dict[K, Exception] = {}
        for key, call in in_turns(calls):
            try:
                ongoing[key] = self._begin(call, partial(ready.put, key))
            except Exception as error:  # noqa: BLE001 - one call's error must not end the others
                refused[key] = error
        try:
            yield from refused.items()
            yield from finished(ongoing, ready, self._engine.clock)
        finally:  # who stops listening ends the calls that are left
            for each in ongoing.values():
                each.cancel()

    def _begin(self, call: Call, ready: Callable[[], object]) -> Ongoing:
        """Submits the sentences of a call; `ready` is called when they are decoded (models.translation.runaways)."""
        source, target = call.source or self.source, call.target or self.target
        token = self._target_token(call.target, target)
        options, group = call.options or self.decoding, call.group or uuid4().hex
        queue = partial(self._engine.submit, deadline=call.deadline, priority=call.priority, caller=call.caller)
        take_apart = partial(
            draft,
            source=source,
            target_token=token,
            longest=self.longest,
            joined=call.joined,
            profile=call.profile,
            preserve=call.preserve,
        )
        with self._turns.turn(call) as turn:
            drafts = [take_apart(text, self.tokenizer, pause=turn.pause) for text in call.texts]
        sentences = dict.fromkeys(tokens for each in drafts if isinstance(each, Draft) for tokens in each.tokens)
        preparation = turn.tokens / max(1, len(sentences))

        size = options.no_repeat_ngram_of(self.model.config.generation)

        def submit(tokens: Tokens, no_repeat_ngram: int = size) -> Pending:
            limit = min(options.max_length or math.inf, self.tokenizer.max_length, 3 * len(tokens) + 20)
            stricter = min(no_repeat_ngram, size) or no_repeat_ngram
            bounded = replace(options, max_length=int(limit), no_repeat_ngram=stricter)
            pending = queue(tokens, bounded, group=group, preparation=preparation)
            if call.unwanted():  # the group was cancelled before its sentences were in the engine
                raise Cancelled("The translation was cancelled.")
            return pending

        cancel = partial(self._engine.cancel, group)
        others = partial(second_tries, drafts, tokenizer=self.tokenizer, source=source, target=target)
        with ExitStack() as failing:
            failing.callback(cancel)
            decoding = Decoding(sentences, submit, ready, others)
            failing.pop_all()
        cost = turn.tokens + options.beam * sum(max(len(tokens), SHORTEST) for tokens in sentences)
        return Ongoing(drafts, decoding, self.tokenizer, source, target, call.deadline + _LATE, cancel, cost)

    @property
    def device(self) -> str:
        """The device that the model computes on: cpu, cuda:0, …"""
        return str(self.model.device)

    @property
    def precision(self) -> str:
        """The precision that the model computes in (models.network.precision.Precision)."""
        return self.model.precision

    def warm_up(self, example: str | None = None) -> None:
        """Runs the model once, so that compiling, and errors of the first use, do not hit a user. Raises ModelError.

        `example` is a text to translate; a multilingual model translates it into one of its target languages.
        """
        if example is None:
            tokens = [self.tokenizer.unknown_id, self.tokenizer.eos_id]  # every vocabulary has these two
            self._engine.submit(tokens, replace(self.decoding, max_length=_WARM_UP)).result()
            return
        [translation] = self.translate([example], target=next(iter(self.target_tokens), None)).results
        if translation.error is not None:
            raise translation.error
        if not translation.sentences:
            raise BadInput(f"The example {quote(repr(example))} has no sentence that the model can translate.")

    def stalled(self) -> float:
        """Seconds that the model has been busy with one step; infinite if a lane of the engine has died."""
        return self._engine.stalled()

    def cancel(self, group: str) -> int:
        """Ends the waiting and running sentences of `group`; returns their number."""
        return self._engine.cancel(group)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self, grace: float = 0.0) -> None:
        """Stops the engine, which has `grace` seconds to finish its sentences. Then the store may remove the model."""
        self._engine.close(grace)
        self._held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _target_token(self, asked: str | None, target: str) -> str | None:
        """The token of the language `target`, which the caller has `asked` for or which is the model's own; None if the
        model has no tokens. Raises BadInput if it has none for the language."""
        if not self.target_tokens:
            return None
        if tokens := self._nearest_tokens(target):
            return tokens[0]
        named = "target: none is given" if asked is None else f"target: {asked!r} is not"
        raise BadInput(f"{named}; name one of this model's languages: {_list(self.target_tokens)}.")

    def _nearest_tokens(self, target: str) -> list[str]:
        """The tokens that may stand for a language, the nearest first. Without a language, the only one there is."""
        tokens = self.target_tokens
        if target in tokens:
            return [tokens[target]]
        only = list(dict.fromkeys(tokens.values()))
        return [tokens[each] for each in nearest(target, tokens)] if target else only[: len(only) == 1]


def _language(config: Mapping[str, Any], name: str, path: Path) -> str:
    code = config.get(name) or ""
    if not isinstance(code, str) or not _LANGUAGE.fullmatch(code):
        raise UnknownModel(f"{path}: {name} is {quote(code)}; a language code was expected.")
    return code


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
