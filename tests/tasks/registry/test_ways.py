from __future__ import annotations

from collections.abc import ValuesView

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import SHARED
from tasks.registry.entry import Entry, Pair
from tasks.registry.ways import Registry, Way
from text.languages import canonical


def test_warm_models_have_routes_of_their_own_and_those_on_demand_share_some(registry: Registry) -> None:
    assert registry.models["fr-en"].route == "fr-en"
    assert registry.models["customer-1"].route in SHARED
    assert registry.routes == ("fr-en", "en-roa", "de-en", *SHARED)
    warm = Registry({name: model for name, model in registry.models.items() if model.warm})
    assert warm.routes == ("fr-en", "en-roa", "de-en")


@pytest.mark.parametrize(
    ("source", "target", "model", "found"),
    [
        ("fr", "en", None, "fr-en"),
        ("de", "en", None, "de-en"),
        ("en", "fr", "en-roa", "en-roa"),
    ],
)
def test_a_request_finds_its_model(registry: Registry, source: str, target: str, model: str | None, found: str):
    [(entry, pair)] = registry.resolve(source, target, model)
    assert entry.name == found
    assert pair in entry.pairs
    assert pair.target == target


def test_two_models_of_one_direction_are_one_way() -> None:
    models = {name: Entry(name, "x", (Pair("fr", "en"),)) for name in ("first", "second")}
    [leg] = Registry(models).resolve("fr", "en", None)
    assert leg.model.name == "first"


@pytest.mark.parametrize(
    ("source", "target", "model", "code", "hint"),
    [
        ("en", "en", None, Code.UNKNOWN_MODEL, "fr-en"),
        ("fr", "xx", None, Code.UNKNOWN_MODEL, "en-fr"),
        ("fr", "en", "nope", Code.UNKNOWN_MODEL, "en-roa"),
        ("fr", "en", "de-en", Code.UNKNOWN_MODEL, "de-en"),
        ("", "en", None, Code.UNKNOWN_MODEL, "fr-en"),
        ("", "es", None, Code.UNKNOWN_MODEL, "en-es"),
        ("fr", "es", "fr-en", Code.UNKNOWN_MODEL, "Pairs: fr-en."),
    ],
)
def test_a_request_without_a_model_is_told_what_there_is(
    registry: Registry, source: str, target: str, model: str | None, code: Code, hint: str
) -> None:
    with pytest.raises(TolkError) as caught:
        registry.resolve(source, target, model)
    assert caught.value.code is code
    assert hint in caught.value.message


def offering(*models: str) -> Registry:
    """`a-b` translates from a to b, `a-b+b-c` from b to c too. `pt_BR` is one language."""
    pairs = {name: [pair.split("-") for pair in name.split("+")] for name in models}
    entries = (
        Entry(name, name, tuple(Pair(canonical(start), canonical(end)) for start, end in pairs[name]))
        for name in models
    )
    return Registry({model.name: model for model in entries})


@pytest.mark.parametrize(
    ("models", "source", "target", "found"),
    [
        (["fr-en", "en-de"], "fr", "de", ["fr-en", "en-de"]),
        (["fr-en", "en-de", "fr-de"], "fr", "de", ["fr-de"]),  # a direct one always wins
        (["fr-it", "it-de", "en-de", "fr-en"], "fr", "de", ["fr-en", "en-de"]),  # English is the first pivot
        (["en-de", "es-de", "fr-it", "it-de", "fr-es"], "fr", "de", ["fr-it", "it-de"]),  # then as the file has it
        (["fr-it", "fr-es", "es-de"], "fr", "de", ["fr-es", "es-de"]),
        (["fr-en", "en-de", "en-de+en-fi"], "fr", "de", ["fr-en", "en-de"]),
        (["fr-en+en-de"], "fr", "de", ["fr-en+en-de", "fr-en+en-de"]),
        (["fr-en", "en-fr"], "en", "fr", ["en-fr"]),
    ],
)
def test_what_no_model_translates_goes_through_another_language(
    models: list[str], source: str, target: str, found: list[str]
) -> None:
    legs = offering(*models).resolve(source, target, None)
    assert [leg.model.name for leg in legs] == found
    assert (legs[0].pair.source, legs[-1].pair.target) == (source, target)
    assert [leg.pair.target for leg in legs[:-1]] == [leg.pair.source for leg in legs[1:]]


@pytest.mark.parametrize(
    ("models", "source", "target"),
    [
        (["fr-en", "en-fr"], "en", "en"),  # there and back
        (["fr-en", "en-fr_CA"], "fr", "FRA"),  # the same, though fr-CA could be had
        (["fr-en", "en-it", "it-de"], "fr", "de"),  # three legs
        (["fr-en", "de-en"], "fr", "de"),
    ],
)
def test_two_legs_at_most_and_never_back(models: list[str], source: str, target: str) -> None:
    with pytest.raises(TolkError, match=f"No model translates from {source} to {target}.") as caught:
        offering(*models).resolve(source, target, None)
    assert caught.value.code is Code.UNKNOWN_MODEL


@pytest.mark.parametrize(
    ("models", "target", "model", "sources", "indirect"),
    [
        (["fr-en"], "en", None, ["fr"], []),
        (["fr-en", "en-de"], "de", None, ["en"], ["fr"]),
        (["fr-en", "en-de"], "de", "en-de", ["en"], []),  # a named model translates by itself
        (["en-de", "it-de", "de-it"], "de", None, ["en", "it"], []),
        (["en-pt_BR", "fr-pt_PT"], "pt", None, ["en", "fr"], []),
        (["en-zh_Hans", "fr-zh_Hant"], "zh-TW", None, ["fr"], []),
        (["fr_CA-en", "en-de", "en-de_AT"], "de-DE", None, ["en"], ["fr-CA"]),
    ],
)
def test_the_sources_of_a_target_are_direct_ones_and_those_through_another_language(
    models: list[str], target: str, model: str | None, sources: list[str], indirect: list[str]
) -> None:
    assert [*offering(*models).sources(target, model)] == [tuple(sources), tuple(indirect)]


@pytest.mark.parametrize(
    ("target", "model", "says"),
    [
        ("de", None, "No model translates to de. Pairs: fr-en."),
        ("de", "fr-en", "Model 'fr-en' does not translate to de. Pairs: fr-en."),
        ("en", "nope", "There is no model 'nope'. Models: fr-en."),
    ],
)
def test_a_target_without_sources_is_unknown(target: str, model: str | None, says: str) -> None:
    with pytest.raises(TolkError) as caught:
        offering("fr-en").sources(target, model)
    assert caught.value.code is Code.UNKNOWN_MODEL
    assert caught.value.message == says


@pytest.mark.parametrize(
    ("models", "source", "target", "found"),
    [
        (["fr-en"], "FR", "EN", "fr-en"),
        (["fr-en"], "fr_FR", "en-US", "fr-en"),
        (["fr-en"], "fra", "eng", "fr-en"),
        (["fr-en"], "fr-CA", "en_GB.UTF-8", "fr-en"),
        (["fr_CA-en_GB"], "fr", "en", "fr-CA-en-GB"),  # and the other way round
        (["en-pt_PT", "en-pt_BR"], "en", "pt", "en-pt-BR"),  # most Portuguese is Brazilian
        (["en-pt_PT", "en-pt_BR"], "en", "pt-AO", "en-pt-PT"),
        (["en-zh_Hant", "en-zh_Hans"], "en", "zh", "en-zh-Hans"),
        (["en-zh_Hant", "en-zh_Hans"], "en", "zh-CN", "en-zh-Hans"),
        (["en-zh_Hans", "en-zh_Hant"], "en", "zh_TW", "en-zh-Hant"),
        (["en-zh_Hant"], "en", "zh", "en-zh-Hant"),  # there is no other Chinese
        (["en-zh_Hant", "en-de", "de-zh_Hans"], "en", "zh", "en-de+de-zh-Hans"),
        (["sr_Latn-en", "sr_Cyrl-en"], "sr-Cyrl-RS", "en", "sr-Cyrl-en"),
        (["sr_Latn-en", "sr_Cyrl-en"], "sr-Latn", "en", "sr-Latn-en"),
        (["en-nb"], "en", "no", "en-nb"),
        (["cmn-en"], "zh", "en", "cmn-en"),
        (["en-es", "en-es_MX"], "en", "es-AR", "en-es-MX"),
        (["iw-en"], "he", "en", "he-en"),
        (["en-fr", "en-fr_CA"], "en-GB", "fr-CA", "en-fr-CA"),
        (["fr-en", "en-de"], "fr-FR", "de-AT", "fr-en+en-de"),  # also through another language
        (["fr_CA-de", "fr-en", "en-de"], "fr", "de", "fr-CA-de"),  # a direct way counts more
    ],
)
def test_a_language_is_found_whichever_way_its_tag_is_spelled(
    models: list[str], source: str, target: str, found: str
) -> None:
    legs = offering(*models).resolve(source, target, None)
    assert "+".join(f"{leg.pair.source}-{leg.pair.target}" for leg in legs) == found


@pytest.mark.parametrize(
    ("models", "source", "target"),
    [
        (["en-zh_Hans"], "en", "zh-Hant"),
        (["en-zh_Hans"], "en", "zh-TW"),
        (["en-nb"], "en", "nn"),
        (["en-es"], "en", "ca"),
        (["en-de"], "en", "gsw"),
        (["en-uz"], "en", "uz-Cyrl"),
        (["fr-en"], "french", "en"),
        (["fr-en"], "frp", "en"),
    ],
)
def test_another_language_or_script_never_stands_for_one(models: list[str], source: str, target: str) -> None:
    with pytest.raises(TolkError, match=f"No model translates from {source} to {target}. Pairs: ") as caught:
        offering(*models).resolve(source, target, None)
    assert caught.value.code is Code.UNKNOWN_MODEL


def test_a_language_in_another_spelling_is_looked_up_once() -> None:
    registry = thousand()
    assert registry.resolve("fra", "eng", None) is registry.resolve("fra", "eng", None)


def test_the_ways_are_the_direct_ones_and_those_through_another_language() -> None:
    assert list(offering("fr-it", "it-de", "fr-en", "en-de", "en-de+de-en").ways) == [
        Way("fr", "it", ("fr-it",)),
        Way("it", "de", ("it-de",)),
        Way("fr", "en", ("fr-en",)),
        Way("en", "de", ("en-de", "en-de+de-en")),
        Way("de", "en", ("en-de+de-en",)),
        Way("fr", "de", ("fr-en", "en-de"), ("en",)),
        Way("it", "en", ("it-de", "en-de+de-en"), ("de",)),
    ]


def thousand(source: str = "fr", target: str = "en") -> Registry:
    """A thousand models; the names of their languages may contain the model's number."""
    numbers = range(1000)
    pairs = {n: Pair(source.format(n), target.format(n)) for n in numbers}
    return Registry({f"customer-{n}": Entry(f"customer-{n}", "x", (pairs[n],), warm=False) for n in numbers})


@pytest.mark.parametrize(
    ("registry", "asked", "says"),
    [
        (
            thousand(),
            ("fr", "en", "customer-99x"),
            "There is no model 'customer-99x'. Models: customer-99, customer-990, customer-991, customer-992, ",
        ),
        (
            thousand(target="en{}"),
            ("de", "en7", None),
            "No model translates from de to en7. Pairs: fr-en7, fr-en0, fr-en1,",
        ),
        (thousand(target="en{}"), ("de", "en7", None), " and 988 more."),
    ],
)
def test_of_a_thousand_an_error_names_a_dozen_the_closest_first(
    registry: Registry, asked: tuple[str, str, str | None], says: str
) -> None:
    with pytest.raises(TolkError) as caught:
        registry.resolve(*asked)
    assert says in caught.value.message
    assert len(caught.value.message) < 400


class Counted(dict[str, Entry]):
    """A mapping of models that counts the iterations over all of them."""

    walks = 0

    def values(self) -> ValuesView[Entry]:
        self.walks += 1
        return super().values()


def test_a_thousand_models_are_gone_through_once() -> None:
    models = Counted(thousand("{}").models)
    registry = Registry(models)
    for _ in range(3):
        assert registry.resolve("7", "en", None)[0].model.name == "customer-7"
        assert registry.sources("en", "customer-8").direct == ("8",)
        assert len(registry.ways) == 1000
    assert models.walks == 1


LANGUAGES = st.sampled_from(["en", "fr", "de", "it", "es"])


@given(pairs=st.lists(st.tuples(LANGUAGES, LANGUAGES), max_size=8), source=LANGUAGES, target=LANGUAGES)
def test_every_way_is_found_and_no_other(pairs: list[tuple[str, str]], source: str, target: str) -> None:
    models = [Entry(f"{number}", "x", (Pair(*pair),)) for number, pair in enumerate(pairs)]
    registry = Registry({model.name: model for model in models})
    ways = [way for way in registry.ways if (way.source, way.target) == (source, target)]
    try:
        legs = registry.resolve(source, target, None)
    except TolkError:
        assert ways == []
    else:
        [way] = ways
        assert way.via == tuple(leg.pair.target for leg in legs[:-1])
        assert [leg.model.name for leg in legs] == [*way.models[: len(legs)]]
