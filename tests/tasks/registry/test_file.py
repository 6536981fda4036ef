from __future__ import annotations

import threading
from collections.abc import ValuesView
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import SHARED
from tasks.contract.request import RequestOptions
from tasks.registry import file as registry_file
from tasks.registry.entry import Entry, Pair, RegistryError
from tasks.registry.file import RegistryFile, load_registry
from tasks.registry.ways import Registry, Way

MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
decoding = { beam = 4 }
precision = "float32"
checksum = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
example = "Bonjour."

[models.en-roa]
reference = "./roa"
pairs = [{ source = "en", target = "fr", token = ">>fra<<" }, { source = "en", target = "es", token = ">>spa<<" }]

[models.de-en]
reference = "/srv/de-en"
pairs = [{ source = "de", target = "en" }]

[models.customer-1]
reference = "hf:Helsinki-NLP/opus-mt-it-en@2024-01"
pairs = [{ source = "it", target = "en" }]
warm = false

[models.customer-2]
reference = "s3://models/sv-en.tar.gz"
pairs = [{ source = "sv", target = "en" }]
warm = false
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


@pytest.fixture
def registry(path: Path) -> Registry:
    path.write_text(MODELS)
    return load_registry(path)


def test_what_the_file_says(registry: Registry, path: Path) -> None:
    assert list(registry.models) == ["fr-en", "en-roa", "de-en", "customer-1", "customer-2"]
    assert registry.models["fr-en"].reference == "fr-en"
    assert registry.models["fr-en"].decoding == RequestOptions(beam=4)
    assert registry.models["en-roa"].reference == str(path.parent / "roa")
    assert registry.models["en-roa"].pairs == (Pair("en", "fr", ">>fra<<"), Pair("en", "es", ">>spa<<"))
    assert registry.models["de-en"].reference == "/srv/de-en"
    assert registry.models["de-en"].decoding == RequestOptions()
    fr_en, de_en = registry.models["fr-en"], registry.models["de-en"]
    assert (fr_en.precision, fr_en.checksum, fr_en.example) == ("float32", "sha256:" + "0a" * 32, "Bonjour.")
    assert (de_en.precision, de_en.checksum, de_en.example, de_en.warm) == (None, None, None, True)
    assert registry.models["customer-1"].reference == "hf:Helsinki-NLP/opus-mt-it-en@2024-01"
    assert registry.models["customer-2"].reference == "s3://models/sv-en.tar.gz"


def test_warm_models_have_routes_of_their_own_and_those_on_demand_share_some(registry: Registry) -> None:
    assert registry.models["fr-en"].route == "fr-en"
    assert registry.models["customer-1"].route in SHARED
    assert registry.routes == ("fr-en", "en-roa", "de-en", *SHARED)
    warm = Registry({name: model for name, model in registry.models.items() if model.warm})
    assert warm.routes == ("fr-en", "en-roa", "de-en")


def test_the_models_of_the_repository_can_be_read() -> None:
    assert "fr-en" in load_registry(Path(__file__).parents[3] / "models.toml").models


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
        (["fr-it", "it-de", "en-de", "fr-en"], "fr", "de", ["fr-en", "en-de"]),  # English before others
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
    with pytest.raises(TolkError, match=r"say which source: en \(en-de\), it \(it-de\)\.$"):
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
    """A thousand models, whose languages may hold their number."""
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
        (thousand(source="fr{}"), (None, "en", None), "say which source: fr0 (customer-0), fr1 (customer-1), fr10 ("),
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
    """Models that count how often somebody goes through all of them."""

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


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ("", "models is missing"),
        ("models = 1", "has no [models.NAME] entry"),
        ("[models]", "has no [models.NAME] entry"),
        ("[models.x", "is not TOML"),
        ("[models.x]\npairs = []", "reference is missing"),
        ("other = 1\n" + MODELS, "other is not known"),
        ('[models."a.b"]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "a name holds"),
        ('[models.on-demand]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "choose another name"),
        ('[models."a b"]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "a name holds"),
        ('[models.""]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "a name holds"),
        ('[models.x]\nreference = ""\npairs = [{ source = "a", target = "b" }]', "reference is"),
        ('[models.x]\nreference = "./a\\u0000"\npairs = [{ source = "a", target = "b" }]', "cannot be followed"),
        ('[models.x]\nreference = 1\npairs = [{ source = "a", target = "b" }]', "reference is"),
        ('[models.x]\nreference = "x"\npairs = []', "pairs is a list"),
        ('[models.x]\nreference = "x"\npairs = "fr-en"', "pairs is a list"),
        ('[models.x]\nreference = "x"\npairs = ["fr-en"]', "a table was expected"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a" }]', "target is missing"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "" }]', "are strings"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b", tokn = "c" }]', "tokn is not known"),
        ('[models.x]\nreference = "x"\nbeam = 4\npairs = [{ source = "a", target = "b" }]', "beam is not known"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\ndecoding = 4', "a table was expected"),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\ndecoding = { beam = "4" }',
            "decoding: beam: int was expected",
        ),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\ndecoding = { beam = 0 }',
            "decoding: options",
        ),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\ndecoding = { nbest = 1 }',
            "nbest is not known",
        ),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nprecision = "int4"',
            "precision is one of auto, float32",
        ),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nwarm = "no"',
            "warm is true, or false",
        ),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nwarm = 1', "warm is true, or false"),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nchecksum = "12"',
            "checksum is sha256:",
        ),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nchecksum = 12', "checksum is sha256:"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nexample = " "', "example is a text"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nexample = 1', "example is a text"),
        (
            '[models.x]\nreference = "ftp://host/model"\npairs = [{ source = "a", target = "b" }]',
            "is no embedded model's name",
        ),
        (
            '[models.x]\nreference = "hf:opus-mt-fr-en"\npairs = [{ source = "a", target = "b" }]',
            "is no embedded model's name",
        ),
        ('[models.x]\nreference = "https://"\npairs = [{ source = "a", target = "b" }]', "is no embedded model's name"),
        (
            '[models.x]\nreference = "https://host"\npairs = [{ source = "a", target = "b" }]',
            "is no embedded model's name",
        ),
        (
            '[models.x]\nreference = "s3:bucket/model"\npairs = [{ source = "a", target = "b" }]',
            "is no embedded model's name",
        ),
        (
            '[models.x]\nreference = "https://me:secret@h/x"\npairs = [{ source = "a", target = "b" }]',
            "reference 'https:…'",
        ),
        ('[models.x]\nreference = "s3://bucket/x?key=1"\npairs = [{ source = "a", target = "b" }]', "reference 's3:…'"),
        ('[models.x]\nreference = "fr en"\npairs = [{ source = "a", target = "b" }]', "is no embedded model's name"),
        ("models.x = 1", "a table was expected"),
    ],
)
def test_a_file_that_does_not_fit_says_where(path: Path, document: str, hint: str) -> None:
    path.write_text(document)
    with pytest.raises(RegistryError) as caught:
        load_registry(path)
    assert str(path) in str(caught.value)
    assert hint in str(caught.value)


def test_a_file_that_cannot_be_read_says_so(path: Path) -> None:
    for wrong in (path, path.parent):
        with pytest.raises(RegistryError, match="cannot be read"):
            load_registry(wrong)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RegistryError, match="is not TOML"):
        load_registry(path)


@pytest.fixture
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_file, "LOOK", 0.0)


@pytest.mark.usefixtures("always_look")
def test_a_file_that_changes_is_read_again(path: Path) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path)
    before = file.current()
    assert file.current() is before
    path.write_text(MODELS.replace("models.de-en", "models.de-en-2"))
    assert "de-en-2" in file.current().models
    aside = path.with_suffix(".new")
    aside.write_text(MODELS)
    aside.rename(path)
    assert file.current() == before


@pytest.mark.usefixtures("always_look")
def test_what_a_file_said_last_holds_while_it_is_wrong(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path)
    before = file.current()
    path.write_text("[models.x]")
    assert file.current() is before
    assert file.current() is before
    [record] = caplog.records  # once, not at every look
    assert "reference is missing" in record.message or "pairs" in record.message
    path.unlink()
    assert file.current() is before
    path.write_text(MODELS.replace("models.de-en", "models.de-en-2"))
    assert "de-en-2" in file.current().models


@pytest.mark.usefixtures("always_look")
def test_while_one_reads_a_changed_file_others_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path)
    before, load = file.current(), registry_file.load_registry
    reading, may = threading.Event(), threading.Event()

    def load_slowly(path: Path) -> Registry:
        reading.set()
        assert may.wait(10)
        return load(path)

    monkeypatch.setattr(registry_file, "load_registry", load_slowly)
    path.write_text(MODELS.replace("models.de-en", "models.de-en-2"))
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(file.current)
        assert reading.wait(10)
        assert file.current() is before
        may.set()
        assert "de-en-2" in reader.result().models


def test_a_file_is_not_looked_at_all_the_time(path: Path) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path)
    path.write_text("[models.x]")
    assert "fr-en" in file.current().models
    with pytest.raises(RegistryError):
        RegistryFile(path)


@given(document=st.text() | st.text("[]{}=.\"'models x1\n"))
def test_any_text_is_a_registry_or_a_registry_error(tmp_path_factory: pytest.TempPathFactory, document: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(document, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RegistryError):
        load_registry(path)
