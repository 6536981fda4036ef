from __future__ import annotations

from collections.abc import ValuesView

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import SHARED
from tasks.registry.entry import Entry, Pair
from tasks.registry.ways import Registry, Way


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
        (None, "es", None, "en-roa"),
        (None, "en", "de-en", "de-en"),
        ("en", "fr", "en-roa", "en-roa"),
    ],
)
def test_a_request_finds_its_model(registry: Registry, source: str | None, target: str, model: str | None, found: str):
    [(entry, pair)] = registry.resolve(source, target, model)
    assert entry.name == found
    assert pair in entry.pairs
    assert pair.target == target


def test_two_models_of_one_direction_are_one_way() -> None:
    models = {name: Entry(name, "x", (Pair("fr", "en"),)) for name in ("first", "second")}
    [leg] = Registry(models).resolve(None, "en", None)
    assert leg.model.name == "first"


@pytest.mark.parametrize(
    ("source", "target", "model", "code", "hint"),
    [
        ("en", "en", None, Code.UNKNOWN_MODEL, "fr-en"),
        ("fr", "xx", None, Code.UNKNOWN_MODEL, "en-fr"),
        ("fr", "en", "nope", Code.UNKNOWN_MODEL, "en-roa"),
        ("fr", "en", "de-en", Code.UNKNOWN_MODEL, "de-en"),
        (None, "en", None, Code.BAD_INPUT, "de (de-en), fr (fr-en), it (customer-1), sv (customer-2)."),
        ("", "en", None, Code.UNKNOWN_MODEL, "fr-en"),
        ("", "es", None, Code.UNKNOWN_MODEL, "en-es"),
        ("fr", "es", "fr-en", Code.UNKNOWN_MODEL, "Pairs: fr-en."),
    ],
)
def test_a_request_without_a_model_is_told_what_there_is(
    registry: Registry, source: str | None, target: str, model: str | None, code: Code, hint: str
) -> None:
    with pytest.raises(TolkError) as caught:
        registry.resolve(source, target, model)
    assert caught.value.code is code
    assert hint in caught.value.message


def offering(*models: str) -> Registry:
    """`a-b` translates from a to b, `a-b+b-c` from b to c too."""
    entries = (Entry(name, name, tuple(Pair(*pair.split("-")) for pair in name.split("+"))) for name in models)
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
        (["fr-en", "en-it", "it-de"], "fr", "de"),  # three legs
        (["fr-en", "de-en"], "fr", "de"),
    ],
)
def test_two_legs_at_most_and_never_back(models: list[str], source: str, target: str) -> None:
    with pytest.raises(TolkError, match=f"No model translates from {source} to {target}.") as caught:
        offering(*models).resolve(source, target, None)
    assert caught.value.code is Code.UNKNOWN_MODEL


def test_without_a_source_direct_ways_count_and_others_are_told() -> None:
    registry = offering("fr-en", "en-de")
    assert [leg.model.name for leg in registry.resolve(None, "de", None)] == ["en-de"]
    with pytest.raises(TolkError, match=r"Set source to one of: en \(en-de\), it \(it-de\)\.$"):
        offering("en-de", "it-de", "de-it").resolve(None, "de", None)
    with pytest.raises(TolkError, match=r"it \(it-de\)\. Through another language: es, fr\.$"):
        offering("en-de", "it-de", "fr-en", "es-it", "en-it").resolve(None, "de", None)


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
        (
            thousand(source="fr{}"),
            (None, "en", None),
            "Set source to one of: fr0 (customer-0), fr1 (customer-1), fr10 (",
        ),
        (thousand(source="fr{}"), (None, "en", None), " and 988 more."),
    ],
)
def test_of_a_thousand_an_error_names_a_dozen_the_closest_first(
    registry: Registry, asked: tuple[str | None, str, str | None], says: str
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
        assert registry.resolve(None, "en", "customer-8")[0].pair.source == "8"
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
