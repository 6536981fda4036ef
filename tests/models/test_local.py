"""Translates texts with the embedded model and with tiny models, in a real engine."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.engine.batch import Hypothesis
from models.engine.engine import Engine
from models.engine.options import DecodingOptions
from models.engine.settings import EngineSettings
from models.engine.submission import Pending
from models.errors import BadInput, Cancelled, DeadlineExceeded, ModelError, Overloaded, Unavailable, UnknownModel
from models.local import LocalTranslator
from models.network.cache import Cache, Doubles, Ints
from models.network.interface import Network
from models.store.diskcache import Held
from models.store.reference import locate
from models.translation.call import Call
from models.translation.results import Translated, Translation
from models.translation.runaways import runs_away
from tests.models.double import Double

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

TIMEOUT = 30  # seconds; no test comes near it


@pytest.fixture(scope="module")
def translator(one_thread: None) -> Iterator[LocalTranslator]:
    with LocalTranslator.load("fr-en", decoding=DecodingOptions()) as loaded:
        yield loaded


@pytest.fixture
def multilingual(make_model: MakeModel) -> Iterator[LocalTranslator]:
    """A model with random weights, 64 positions, and the target tokens >>fra<< and >>eng<<."""
    with LocalTranslator.load(str(make_model()), precision="float32") as loaded:
        yield loaded


@contextmanager
def around(
    translator: LocalTranslator,
    *,
    model: Any = None,
    tokenizer: Any = None,
    settings: EngineSettings | None = None,
    clock: Callable[[], float] = time.monotonic,
    submit: Callable[..., Any] | None = None,
) -> Iterator[LocalTranslator]:
    """The same model in a new engine, with some parts replaced by those of the test. `submit` gets the engine's own
    `submit` as its first argument."""
    model = model or translator.model
    engine = Engine(model, settings or EngineSettings(), clock=clock)
    engine.start()
    with LocalTranslator(
        tokenizer or translator.tokenizer,
        model,
        cast("Engine", engine if submit is None else Double(engine, submit=partial(submit, engine.submit))),
        held=Held(translator.directory),
        bytes=translator.bytes,
        decoding=translator.decoding,
        source=translator.source,
        target=translator.target,
        longest=translator.longest,
        target_tokens=translator.target_tokens,
    ) as made:
        yield made


class Gate(Double):
    """Holds a network before a decoding step until it is opened."""

    def __init__(self, model: Network) -> None:
        super().__init__(model)
        self.reached = threading.Event()
        self._opened = threading.Event()

    def step(self, cache: Cache, rows: Ints, count: int) -> tuple[Ints, Doubles]:
        self.reached.set()
        assert self._opened.wait(TIMEOUT)
        return self.original.step(cache, rows, count)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate(translator: LocalTranslator) -> Gate:
    return Gate(translator.model)


@pytest.fixture
def gated(translator: LocalTranslator, gate: Gate) -> Iterator[LocalTranslator]:
    """The embedded model behind the gate."""
    with around(translator, model=gate) as made:
        yield made
        gate.open()


def decoded(model: Network, tokens: list[int]) -> Hypothesis:
    """The text that an engine decodes for a sentence, by greedy search."""
    engine = Engine(model, EngineSettings(lanes=1))
    engine.start()
    try:
        return engine.submit(tokens, DecodingOptions()).result(TIMEOUT)[0]
    finally:
        engine.close()


def one(translator: LocalTranslator, text: str, **how: Any) -> Translation:
    [translation] = translator.translate([text], **how).results
    return translation


def test_a_sentence(translator: LocalTranslator) -> None:
    translation = one(translator, "Je vais dormir.")
    assert translation.text == "I'm going to sleep."
    assert translation.score is not None
    assert -2 < translation.score < 0
    assert (translation.alternatives, translation.flags, translation.error) == ((), (), None)


def test_layout_stays(translator: LocalTranslator) -> None:
    text = "Bonjour !\r\n\r\n  - Il pleut.\t\n\t1) Je vais dormir.  Tu viens ?\n> > Merci.\u2028\n12\n😀 Merci ! 😀"
    translation = one(translator, text)
    hello, raining, sleep, coming, thanks, more = (
        one(translator, each).text
        for each in ("Bonjour !", "Il pleut.", "Je vais dormir.", "Tu viens ?", "Merci.", "Merci !")
    )
    assert translation.text == (
        f"{hello}\r\n\r\n  - {raining}\t\n\t1) {sleep}  {coming}\n> > {thanks}\u2028\n12\n😀 {more} 😀"
    )


def test_addresses_stay(translator: LocalTranslator) -> None:
    text = one(translator, "Écrivez à a.b@exemple.fr, ou voyez https://www.exemple.fr/x?y=Z#t.").text or ""
    assert "a.b@exemple.fr, " in text
    assert text.endswith(" https://www.exemple.fr/x?y=Z#t.")


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("NE PAS MARCHER", "DON'T WALK"),
        ("Deux ans plus tard", "Two years later"),
        ("Deux ans plus tard.", "Two years later."),
    ],
)
def test_the_surface_stays(translator: LocalTranslator, text: str, translation: str) -> None:
    assert (one(translator, text).text or "").startswith(translation)
    assert (one(translator, text).text or "").endswith(".") == text.endswith(".")


@pytest.mark.parametrize("text", ["", "\n\n\t", "12", "-5 °C", "---", "😀👍🏽", "?!", "a@b.fr", "\u200b", "\u202e1"])
def test_what_has_no_word_comes_back_as_it_is(translator: LocalTranslator, text: str) -> None:
    assert one(translator, text) == Translation(text=text)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("Il fait beau ☀ aujourd'hui.", ("UNKNOWN_TOKENS",)),
        ("Le mot « спасибо » veut dire merci.", ("UNKNOWN_TOKENS",)),
        ("\u202eIl dort.\u202c\u200f", ("UNKNOWN_TOKENS",)),
        ("Il\x07 dort\x1b[31m.", ()),
        ("x" * 20_000, ("SPLIT",)),
        ("n'importe " * 2000, ("SPLIT",)),
        ("שלום", ("UNKNOWN_TOKENS",)),
        ("\U0001d4d1\U0001d4f8", ()),
        ("Oui. " * 5000, ()),
        ("\ufdfa \u0e33 \u1e9b\u0323", ("UNKNOWN_TOKENS",)),
        ("\ue000\uffff\U0010ffff ami", ("UNKNOWN_TOKENS",)),
        (">>eng<< Il dort.", ()),
        ("<unk></s><pad>▁", ()),
    ],
)
def test_hostile_text_has_an_answer(translator: LocalTranslator, text: str, flags: tuple[str, ...]) -> None:
    translation = one(translator, text)
    assert translation.error is None
    assert translation.text
    assert set(flags) <= set(translation.flags)
    assert not {c for c in translation.text if not c.isprintable()} - set(text)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.text(st.characters(), max_size=20) | st.sampled_from(["Il dort. ", "été ", "\u202e", "\n"])).map(
        "".join
    )
)
def test_any_text_has_an_answer_or_a_clear_error(translator: LocalTranslator, text: str) -> None:
    translation = one(translator, text)
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        assert type(translation.error) is BadInput
    else:
        assert translation.text is not None
        assert len(translation.text.splitlines()) == len(text.splitlines())
        assert not set("\u202e\u200b\u200f\ufeff\x07") & set(translation.text) - set(text)


def test_words_of_which_the_model_has_no_piece_come_back(translator: LocalTranslator) -> None:
    translation = one(translator, "Il pleut. спасибо большое! Il pleut.")
    assert translation.text == "It's raining. спасибо большое! It's raining."
    assert translation.flags == ("UNKNOWN_TOKENS",)


@pytest.mark.parametrize(
    ("text", "message"), [("a\x00b", "Character 2 .* NUL"), ("\ud800", "Character 1 .* half of a surrogate pair")]
)
def test_a_bad_text_spoils_no_other(translator: LocalTranslator, text: str, message: str) -> None:
    good, bad, blank = translator.translate(["Il pleut.", text, " "]).results
    assert good.text == "It's raining."
    assert blank.text == " "
    assert (bad.text, bad.score) == (None, None)
    with pytest.raises(BadInput, match=message):
        raise bad.error or AssertionError


def test_a_sentence_that_the_model_fails_on_spoils_no_other_text(translator: LocalTranslator) -> None:
    sick = translator.tokenizer.encode("Je suis malade.")
    prefill = translator.model.prefill

    def fails(cache: Cache, rows: list[int], sources: list[tuple[int, ...]]) -> None:
        if tuple(sick) in sources:
            raise RuntimeError("of the model")
        prefill(cache, rows, sources)

    with around(translator, model=Double(translator.model, prefill=fails)) as failing:
        bad, good = failing.translate(["Il pleut. Je suis malade.", "Il pleut."]).results
    assert good.text == "It's raining."
    assert bad.text is None
    assert type(bad.error) is ModelError


def test_a_sentence_over_the_limit_is_translated_in_parts(translator: LocalTranslator) -> None:
    """Every word of it reaches the model, in sentences within the limit."""
    seen: list[list[int]] = []

    def spy(submit: Callable[..., Any], tokens: tuple[int, ...], *how: Any, **more: Any) -> Any:
        seen.append(list(tokens))
        return submit(tokens, *how, **more)

    text = (
        "Le facteur monte au sixième étage, " * 12
        + "mais la lettre n'est pas pour Marie ; elle dort et le chien aboie."
    )
    with around(translator, submit=spy) as spied:
        translation = one(spied, text)
    assert "SPLIT" in translation.flags
    assert max(map(len, seen)) <= translator.longest
    words = " ".join(translator.tokenizer.decode(tokens) for tokens in seen).split()
    assert set(words) == set(text.split())


def test_the_limit_is_the_smaller_of_the_model_and_its_tokenizer(make_model: MakeModel, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(make_model(), directory)
    for limit, longest in ((10, 10), (10**30, 64)):
        (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
        with LocalTranslator.load(str(directory)) as translator:
            assert translator.longest == longest
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": "10"}))
    with pytest.raises(UnknownModel, match="model_max_length"):
        LocalTranslator.load(str(directory))


def test_each_sentence_says_where_it_stands_and_how_sure_the_model_is(translator: LocalTranslator) -> None:
    text = "😀 Merci !\n  - Je vais dormir.  Łþ dort.\n12"
    translation = one(translator, text)
    assert translation.text is not None
    assert [text[slice(*sentence.source)] for sentence in translation.sentences] == [
        "Merci !",
        "Je vais dormir.",
        "Łþ dort.",
    ]
    said = [translation.text[slice(*sentence.target)] for sentence in translation.sentences]
    assert said[:2] == [one(translator, "Merci !").text, "I'm going to sleep."]
    assert translation.text == f"😀 {said[0]}\n  - {said[1]}  {said[2]}\n12"
    assert [sentence.flags for sentence in translation.sentences] == [(), (), ("UNKNOWN_TOKENS",)]
    assert translation.sentences[1].score == pytest.approx(one(translator, "Je vais dormir.").score, abs=1e-4)


def test_the_parts_of_a_long_sentence_are_flagged_and_no_others(translator: LocalTranslator) -> None:
    translation = one(translator, "Je dors. " + "Le facteur monte au sixième étage, " * 16 + "et dort. Merci !")
    assert len(translation.sentences) > 3
    assert [sentence.flags for sentence in translation.sentences] == [
        (),
        *[("SPLIT",)] * (len(translation.sentences) - 2),
        (),
    ]


@pytest.fixture(scope="module")
def runaway(translator: LocalTranslator) -> str:
    """A text of odd words with which the embedded model repeats itself, whichever model that is."""
    random = Random(1)
    words = ("zzz", "krak", "Ploc", "Boum", "Tic-tac", "blabla", "xyz", "kiwi", "Zlatko", "patatras", "hurluberlu")
    texts = [f"{' '.join(random.choices(words, k=8)).capitalize()}." for _ in range(300)]
    results = translator.translate(texts).results
    flagged = [text for text, each in zip(texts, results, strict=True) if each.flags == ("REPETITION",)]
    tokens = {text: translator.tokenizer.encode(text) for text in flagged}
    return next(
        text for text in flagged if runs_away(decoded(translator.model, tokens[text]).tokens, tokens[text], ended=True)
    )


def test_a_runaway_is_tried_again_without_repetition(translator: LocalTranslator, runaway: str) -> None:
    tokens = translator.tokenizer.encode(runaway)
    raw = decoded(translator.model, tokens)
    before = translator.stats().finished
    translation = one(translator, runaway)
    assert translation.flags == ("REPETITION",)
    assert translator.stats().finished == before + 2
    assert translation.text != translator.tokenizer.decode(raw.tokens)
    assert not runs_away(translator.tokenizer.encode(translation.text or ""), tokens, ended=True)


def test_a_runaway_that_does_not_stop_is_cut_and_shortened(multilingual: LocalTranslator) -> None:
    """A model that repeats one token for ever, and any others when that is forbidden."""
    multilingual.model.final_logits_bias[0, 50] = 1e6  # type: ignore[attr-defined]
    translation = one(multilingual, "Il dort.", target="eng", options=DecodingOptions())
    assert set(translation.flags) >= {"REPETITION", "TRUNCATED"}
    assert len(multilingual.tokenizer.encode(translation.text or "")) < 5


@pytest.mark.parametrize(
    "text", ["Non, non, non, non.", "Tic tac, tic tac, tic tac.", "Oui oui oui, j'arrive, j'arrive."]
)
def test_a_refrain_is_no_runaway(translator: LocalTranslator, text: str) -> None:
    before = translator.stats().finished
    assert "REPETITION" not in one(translator, text).flags
    assert translator.stats().finished == before + 1


def test_hidden_characters_of_the_model_do_not_come_out(translator: LocalTranslator) -> None:
    tokenizer = Double(translator.tokenizer, decode=lambda tokens: "a\u202eb\x07\nc\u200b")
    with around(translator, tokenizer=tokenizer) as hiding:
        assert one(hiding, "Il pleut.").text == "ab c"
        assert one(hiding, "Il \u202epleut.").text == "a\u202eb c"


def test_copy_symbols_that_nobody_wrote_do_not_come_out(translator: LocalTranslator) -> None:
    symbol = translator.tokenizer.symbols.holds[0]
    tokenizer = Double(translator.tokenizer, decode=lambda tokens: f"It {symbol}rains.")
    with around(translator, tokenizer=tokenizer) as inventing:
        assert one(inventing, "Il pleut.").text == "It rains."
        assert one(inventing, f"Il {symbol} pleut.").text == f"It {symbol}rains."


def test_a_sentence_of_which_the_model_makes_nothing_stays(translator: LocalTranslator) -> None:
    with around(translator, tokenizer=Double(translator.tokenizer, decode=lambda tokens: "")) as silent:
        assert one(silent, "Il pleut.\n\n- Je dors.").text == "Il pleut.\n\n- Je dors."


def test_equal_sentences_are_translated_once(translator: LocalTranslator) -> None:
    before = translator.stats().finished
    results = translator.translate(["Il pleut. Il pleut.", "Il pleut.", "Tu viens ?"]).results
    assert translator.stats().finished == before + 2
    coming = one(translator, "Tu viens ?").text
    assert [result.text for result in results] == ["It's raining. It's raining.", "It's raining.", coming]


def test_the_score_weighs_sentences_by_their_tokens(translator: LocalTranslator) -> None:
    texts = ["Il pleut.", "Je me lève tous les jours à six heures."]
    total = length = 0.0
    for text in texts:
        best = decoded(translator.model, translator.tokenizer.encode(text))
        total += best.score * (len(best.tokens) + 1)
        length += len(best.tokens) + 1
    assert one(translator, " ".join(texts)).score == pytest.approx(total / length, abs=1e-4)


def test_alternatives_of_a_sentence_are_its_other_hypotheses(translator: LocalTranslator) -> None:
    translation = one(translator, "Je vais dormir.", options=DecodingOptions(beam=4, nbest=4))
    texts = [translation.text, *(other.text for other in translation.alternatives)]
    assert texts[0] == "I'm going to sleep."
    assert len(set(texts)) == 4


def test_alternatives_of_a_text_differ_in_one_sentence_the_likeliest_first(translator: LocalTranslator) -> None:
    translation = one(translator, "Il pleut.\nJe vais dormir.", options=DecodingOptions(beam=3, nbest=3))
    best = (translation.text or "").split("\n")
    assert len(translation.alternatives) == 2
    scores = [translation.score or 0, *(other.score for other in translation.alternatives)]
    assert scores == sorted(scores, reverse=True)
    for other in translation.alternatives:
        assert [a == b for a, b in zip(best, other.text.split("\n"), strict=True)].count(False) == 1


def test_a_multilingual_model_wants_to_know_the_target(multilingual: LocalTranslator, make_model: MakeModel) -> None:
    assert multilingual.target_tokens == {"fra": ">>fra<<", "eng": ">>eng<<"}
    assert one(multilingual, "Il dort.", target="eng").text != one(multilingual, "Il dort.", target="fra").text
    for target in (None, "de", ">>eng<<"):
        with pytest.raises(BadInput, match="eng, fra"):
            one(multilingual, "Il dort.", target=target)
    with LocalTranslator.load(str(make_model()), precision="float32", target_tokens={"en": ">>eng<<"}) as translator:
        assert one(translator, "Il dort.", target="en") == one(multilingual, "Il dort.", target="eng")
    for target in ("en", "en-US", "EN_gb"):
        assert one(multilingual, "Il dort.", target=target) == one(multilingual, "Il dort.", target="eng")
    with pytest.raises(BadInput, match=r">>deu<<.*>>eng<<, >>fra<<"):
        LocalTranslator.load(str(make_model()), target_tokens={"de": ">>deu<<"})


def test_languages_that_are_offered_must_have_a_token(make_model: MakeModel) -> None:
    with pytest.raises(BadInput, match=r"no target token for 'de': name one of >>eng<<, >>fra<< as token of the pair"):
        LocalTranslator.load(str(make_model()), targets=["en", "de"])


def test_the_languages_of_the_tokenizer_are_those_of_a_call_that_names_none(
    directory: Path, multilingual: LocalTranslator
) -> None:
    expected = one(multilingual, "Il dort.", target="fra")
    for config in ({"target_lang": "fra"}, {"target_lang": "fr", "model_max_length": 1e30}):
        (directory / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": False, **config}))
        with LocalTranslator.load(str(directory), precision="float32") as translator:
            assert one(translator, "Il dort.") == expected


@pytest.mark.parametrize("limit", [None, 1e30, 10**30, 512.0])
def test_a_tokenizer_without_a_limit_leaves_that_of_the_positions(directory: Path, limit: object) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    with LocalTranslator.load(str(directory), precision="float32") as translator:
        assert translator.longest == 64


@pytest.mark.parametrize("text", ["\ufdfa" * 20_000, "a. " * 6_000, "mot " * 5_000, "a\n" * 10_000])
def test_taking_texts_apart_ends_when_nobody_wants_them(
    translator: LocalTranslator, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    encoded = 0

    def encode(*arguments: Any) -> list[int]:
        nonlocal encoded
        encoded += 1
        return whole(*arguments)

    whole = translator.tokenizer.encode
    monkeypatch.setattr(translator.tokenizer, "encode", encode)
    answers = chain([False, False], repeat(True))
    texts = [text, *(f"{text} {number}" for number in range(20))]
    with pytest.raises(Cancelled):
        translator.translate(texts, unwanted=lambda: next(answers))
    begun, encoded = encoded, 0
    with pytest.raises(DeadlineExceeded):
        translator.translate(texts, deadline=time.monotonic() + 0.02)
    assert max(begun, encoded) < 5_000  # of more than 20,000
    assert translator.stats().waiting == 0


def test_a_call_says_what_it_took(translator: LocalTranslator) -> None:
    few, many = (translator.translate([text]).tokens for text in ("Il pleut.", "Il pleut. Je dors. Tu viens ?"))
    assert 0 < few < many
    assert translator.translate(["\ufdfa" * 5_000]).tokens > 0  # no sentence, and yet work


def test_a_deadline_fails_the_texts_that_are_not_complete(gated: LocalTranslator, gate: Gate) -> None:
    with ThreadPoolExecutor() as pool:
        first = pool.submit(gated.translate, ["Il pleut."])
        assert gate.reached.wait(TIMEOUT)
        late = pool.submit(gated.translate, ["Je dors.", "12", "Tu viens ?"], deadline=time.monotonic())
        gate.open()
        assert first.result(TIMEOUT).results[0].text == "It's raining."
        dead, number, too = late.result(TIMEOUT).results
    assert number == Translation(text="12")
    assert type(dead.error) is type(too.error) is DeadlineExceeded
    assert dead.text is None


def test_a_model_that_hangs_holds_nobody_beyond_the_deadline(gated: LocalTranslator, gate: Gate) -> None:
    texts = ["Je dors.", "12", "Il pleut. Tu viens ?"]
    dead, number, too = gated.translate(texts, deadline=time.monotonic() + 0.2).results
    assert type(dead.error) is type(too.error) is DeadlineExceeded
    assert number.text == "12"
    assert gated.stalled() > 0
    gate.open()
    assert one(gated, "Il pleut.").text == "It's raining."


def test_a_text_that_is_complete_keeps_its_translation_when_the_deadline_passes(translator: LocalTranslator) -> None:
    now = 0.0

    def steps(cache: Cache, rows: Ints, count: int) -> tuple[Ints, Doubles]:
        nonlocal now
        if clocked.stats().finished:  # the short sentence
            now = 2.0 * TIMEOUT
        return translator.model.step(cache, rows, count)

    with around(translator, model=Double(translator.model, step=steps), clock=lambda: now) as clocked:
        texts = ["Oui.", "Je me lève tous les jours à six heures."]
        short, long = clocked.translate(texts, deadline=TIMEOUT).results
    assert short.text == "Yes."
    assert type(long.error) is DeadlineExceeded


def test_a_deadline_that_ends_the_second_try_leaves_the_first(translator: LocalTranslator, runaway: str) -> None:
    def late(submit: Callable[..., Any], tokens: Any, options: DecodingOptions, **how: Any) -> Any:
        return submit(tokens, options, **how | ({"deadline": time.monotonic()} if options.no_repeat_ngram else {}))

    with around(translator, submit=late) as interrupted:
        translation = one(interrupted, runaway)
    assert translation.flags == ("REPETITION",)
    assert translation.text != one(translator, runaway).text


def test_cancelling_ends_the_call_and_all_its_sentences(translator: LocalTranslator, gate: Gate) -> None:
    submitted = threading.Semaphore(0)

    def counted(submit: Callable[..., Any], *what: Any, **how: Any) -> Any:
        pending = submit(*what, **how)
        submitted.release()
        return pending

    with around(translator, model=gate, submit=counted) as gated, ThreadPoolExecutor() as pool:
        unwanted = pool.submit(gated.translate, ["Il pleut.", "Je dors. Tu viens ?"], group="task")
        wanted = pool.submit(gated.translate, ["Je vais dormir."])
        assert all(submitted.acquire(timeout=TIMEOUT) for _ in range(4))
        assert gated.cancel("task") == 3
        gate.open()
        with pytest.raises(Cancelled):
            unwanted.result(TIMEOUT)
        assert wanted.result(TIMEOUT).results[0].text == "I'm going to sleep."
        assert gated.cancel("task") == 0


def test_what_was_cancelled_before_it_reached_the_engine_does_not_stay_there(
    gated: LocalTranslator, gate: Gate
) -> None:
    answers = iter([False, True])
    with pytest.raises(Cancelled):
        gated.translate(["Il pleut. Je dors."], group="task", unwanted=lambda: next(answers))
    assert gated.cancel("task") == 0
    gate.open()


def test_an_overloaded_call_leaves_no_work_behind(translator: LocalTranslator, gate: Gate) -> None:
    with around(translator, model=gate, settings=EngineSettings(max_waiting=2)) as gated, ThreadPoolExecutor() as pool:
        running = pool.submit(gated.translate, ["Il pleut."])
        assert gate.reached.wait(TIMEOUT)
        with pytest.raises(Overloaded):
            gated.translate(["Je dors.", "Tu viens ?", "Il dort."])
        assert gated.stats().waiting == 0
        gate.open()
        assert running.result(TIMEOUT).results[0].text == "It's raining."


def test_of_several_calls_each_has_its_outcome_as_soon_as_it_is_there(
    translator: LocalTranslator, runaway: str
) -> None:
    def held(submit: Callable[..., Any], tokens: Any, options: DecodingOptions, **how: Any) -> Any:
        return second if options.no_repeat_ngram else submit(tokens, options, **how)

    second = Pending()  # a second try that does not end yet
    with around(translator, submit=held) as made:
        calls = {"runaway": Call([runaway]), "good": Call(["Il pleut."]), "bad": Call(["a\0"]), "blank": Call([" "])}
        outcomes = made.translate_each(calls)
        others = dict(next(outcomes) for _ in range(3))
        assert others.keys() == {"good", "bad", "blank"}
        assert isinstance(good := others["good"], Translated)
        assert good.results[0].text == "It's raining."
        second.set_exception(DeadlineExceeded("late"))
        [(key, shortened)] = outcomes
        assert key == "runaway"
        assert isinstance(shortened, Translated)
        assert shortened.results[0].flags == ("REPETITION",)


def test_a_call_that_fails_leaves_the_others_alone(gated: LocalTranslator, gate: Gate) -> None:
    calls = {
        "unwanted": Call(["Je dors."], unwanted=lambda: True),
        "late": Call(["Tu viens ?"], deadline=time.monotonic() + 0.2),
        "cancelled": Call(["Il dort."], group="cancelled"),
        "good": Call(["Il pleut."]),
    }
    coming = gated.translate_each(calls)
    outcomes = dict([next(coming), next(coming)])
    assert list(outcomes) == ["unwanted", "late"]
    gated.cancel("cancelled")
    gate.open()
    outcomes |= coming
    assert isinstance(outcomes["unwanted"], Cancelled)
    assert isinstance(outcomes["cancelled"], Cancelled)
    late, good = outcomes["late"], outcomes["good"]
    assert isinstance(late, Translated)
    assert isinstance(late.results[0].error, DeadlineExceeded)
    assert isinstance(good, Translated)
    assert good.results[0].text == "It's raining."


def test_who_stops_listening_leaves_no_work_behind(gated: LocalTranslator, gate: Gate) -> None:
    outcomes = gated.translate_each({number: Call([f"Il pleut {number} fois."]) for number in range(3)} | {3: Call([])})
    assert next(outcomes)[0] == 3
    outcomes.close()
    gate.open()
    assert one(gated, "Il pleut.").text == "It's raining."
    assert gated.stats().finished == 1


def test_a_closed_translator_is_unavailable(make_model: MakeModel) -> None:
    translator = LocalTranslator.load(str(make_model()))
    translator.close()
    with pytest.raises(Unavailable):
        translator.translate(["Il dort."], target="eng")


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_closed_translator_is_gone_with_its_memory(make_model: MakeModel, precision: str) -> None:
    """No memory waits for the garbage collector, which may run late and skips frozen objects."""
    LocalTranslator.load(str(make_model()), precision=precision).close()  # imports leave garbage
    gc.disable()
    try:
        translator = LocalTranslator.load(str(make_model()), precision=precision)
        translator.translate(["Il dort.", "Il pleut."], target="eng")
        parts = [translator, translator.model, translator.tokenizer, translator._engine._lanes[0].batch._cache]
        left = [weakref.ref(part) for part in parts]
        translator.close()
        del translator, parts
        assert [part() for part in left] == [None] * 4
    finally:
        gc.enable()


def test_warming_up_runs_the_model(multilingual: LocalTranslator) -> None:
    multilingual.warm_up()
    assert multilingual.stats().finished == 1
    multilingual.warm_up("Il dort. Elle dort.")
    assert multilingual.stats().finished >= 3


@pytest.mark.parametrize(
    ("example", "sentence"), [("", "The example '' has no sentence"), ("a\0", "Character 2 of the text is NUL")]
)
def test_an_example_that_the_model_cannot_translate_is_an_error(
    translator: LocalTranslator, example: str, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        translator.warm_up(example)


def test_threads_share_a_translator(translator: LocalTranslator) -> None:
    texts = ["Il pleut.", "Je vais dormir.", "Tu viens ?", "J'ai faim."] * 8
    expected = [one(translator, text).text for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert [result.text for result in pool.map(lambda text: one(translator, text), texts)] == expected


def test_the_version_is_that_of_the_weights(translator: LocalTranslator) -> None:
    weights = (locate("fr-en") / "model.safetensors").read_bytes()
    assert translator.version == hashlib.sha256(weights).hexdigest()[:12]


def test_the_model_says_its_beam(one_thread: None) -> None:
    with LocalTranslator.load("fr-en") as translator:
        assert translator.decoding == DecodingOptions(beam=4)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "nope",
        "..",
        "../fr-en",
        "fr-en/../../etc",
        "a b",
        "fr.en",
        "/nope",
        "fr-en\x00",
        "~nobody/x",
        "~",
        "fr-en\n",
        "fr-en\ud800",
        "a" * 10_000,
        "./" + "a" * 10_000,
        "~nobody-of-this-name/x",
    ],
)
def test_a_reference_that_leads_nowhere(reference: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        LocalTranslator.load(reference)
    assert len(str(caught.value)) < 500


def test_a_reference_is_a_name_or_a_path(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = make_model()
    assert locate(str(directory)) == directory
    (tmp_path / "nope").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("./nope") == Path("nope")
    with pytest.raises(UnknownModel, match=r"\./directory"):
        locate("nope")


def test_a_device_that_is_not_there(make_model: MakeModel) -> None:
    with pytest.raises(Unavailable, match="device 'nowhere'"):
        LocalTranslator.load(str(make_model()), device="nowhere")


def test_a_model_that_memory_has_no_room_for(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("models.network.marian.read_weights", fails)
    with pytest.raises(Unavailable, match="device 'cpu': no memory is left"):
        LocalTranslator.load(str(make_model()))


def test_a_notebook_that_forgets_to_close_ends() -> None:
    code = (
        "from models.local import LocalTranslator as T; print(T.load('fr-en').translate(['Il pleut.']).results[0].text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "It's raining.\n"


def test_a_notebook_whose_model_hangs_ends() -> None:
    code = (
        "import time; from models.local import LocalTranslator as T; from models.engine.settings import EngineSettings;"
        "t = T.load('fr-en', settings=EngineSettings(last_step=0.1)); t.model.step = lambda *_: time.sleep(600);"
        "print(t.translate(['Il pleut.'], deadline=time.monotonic() + 0.1).results[0].error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "The deadline passed before the translation was complete.\n"
