from __future__ import annotations

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import environment
from tasks.contract.request import RequestOptions
from tasks.registry import file as registry_file
from tasks.registry.entry import Pair, RegistryError
from tasks.registry.file import RegistryFile, load_registry
from tasks.registry.ways import Registry
from tests.tasks.registry.conftest import MODELS


def test_what_the_file_says(registry: Registry, path: Path) -> None:
    assert list(registry.models) == ["fr-en", "en-roa", "de-en", "customer-1", "customer-2"]
    assert registry.models["fr-en"].reference == "fr-en"
    assert registry.models["fr-en"].decoding == RequestOptions(beam=4, unset=("length_penalty",))
    assert registry.models["en-roa"].reference == str(path.parent / "roa")
    assert registry.models["en-roa"].pairs == (Pair("en", "fr", ">>fra<<"), Pair("en", "es", ">>spa<<"))
    assert registry.models["de-en"].reference == "/srv/de-en"
    assert registry.models["de-en"].decoding == RequestOptions(unset=("beam", "length_penalty"))
    fr_en, de_en = registry.models["fr-en"], registry.models["de-en"]
    assert (fr_en.precision, fr_en.checksum, fr_en.example) == ("float32", "sha256:" + "0a" * 32, "Bonjour.")
    assert (de_en.precision, de_en.checksum, de_en.example, de_en.warm) == (None, None, None, True)
    assert registry.models["customer-1"].reference == "hf:Helsinki-NLP/opus-mt-it-en@2024-01"
    assert registry.models["customer-2"].reference == "s3://models/sv-en.tar.gz"


def test_languages_have_one_spelling_whichever_the_file_has(path: Path) -> None:
    path.write_text(
        '[models.x]\nreference = "x"\n'
        'pairs = [{ source = "eng_Latn", target = "fra" }, { source = "l33t", target = "pt_br" }]'
    )
    assert load_registry(path).models["x"].pairs == (Pair("en", "fr"), Pair("l33t", "pt-BR"))


def test_the_models_of_the_repository_can_be_read() -> None:
    assert "fr-en" in load_registry(environment.MODELS).models


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ("", "models is missing"),
        ("models = 1", "has no [models.NAME] entry"),
        ("[models]", "has no [models.NAME] entry"),
        ("[models.x", "is not TOML"),
        ("[models.x]\npairs = []", "reference is missing"),
        ("other = 1\n" + MODELS, "other is unknown"),
        ('[models."a.b"]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "a model's name may have only"),
        ('[models.on-demand]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "choose another name"),
        ('[models."a b"]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "a model's name may have only"),
        ('[models.""]\nreference = "x"\npairs = [{ source = "a", target = "b" }]', "a model's name may have only"),
        ('[models.x]\nreference = ""\npairs = [{ source = "a", target = "b" }]', "reference has to be"),
        ('[models.x]\nreference = "./a\\u0000"\npairs = [{ source = "a", target = "b" }]', "cannot be resolved"),
        ('[models.x]\nreference = 1\npairs = [{ source = "a", target = "b" }]', "reference has to be"),
        ('[models.x]\nreference = "x"\npairs = []', "pairs has to be a list"),
        ('[models.x]\nreference = "x"\npairs = "fr-en"', "pairs has to be a list"),
        ('[models.x]\nreference = "x"\npairs = ["fr-en"]', "a table was expected"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a" }]', "target is missing"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "" }]', "have to be strings"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b", tokn = "c" }]', "tokn is unknown"),
        ('[models.x]\nreference = "x"\nbeam = 4\npairs = [{ source = "a", target = "b" }]', "beam is unknown"),
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
            "nbest is unknown",
        ),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nprecision = "int4"',
            "precision has to be one of auto, float32",
        ),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nwarm = "no"',
            "warm has to be true",
        ),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nwarm = 1', "warm has to be true"),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nchecksum = "12"',
            "checksum has to be",
        ),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nchecksum = 12', "checksum has to be"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nexample = " "', "example has to be a"),
        ('[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nexample = 1', "example has to be a"),
        (
            '[models.x]\nreference = "x"\npairs = [{ source = "a", target = "b" }]\nnote = ""',
            "note has to be a sentence",
        ),
        (
            '[models.x]\nreference = "ftp://host/model"\npairs = [{ source = "a", target = "b" }]',
            "neither an embedded model",
        ),
        (
            '[models.x]\nreference = "hf:opus-mt-fr-en"\npairs = [{ source = "a", target = "b" }]',
            "neither an embedded model",
        ),
        ('[models.x]\nreference = "https://"\npairs = [{ source = "a", target = "b" }]', "neither an embedded model"),
        (
            '[models.x]\nreference = "https://host"\npairs = [{ source = "a", target = "b" }]',
            "neither an embedded model",
        ),
        (
            '[models.x]\nreference = "s3:bucket/model"\npairs = [{ source = "a", target = "b" }]',
            "neither an embedded model",
        ),
        (
            '[models.x]\nreference = "https://me:secret@h/x"\npairs = [{ source = "a", target = "b" }]',
            "reference 'https:…'",
        ),
        ('[models.x]\nreference = "s3://bucket/x?key=1"\npairs = [{ source = "a", target = "b" }]', "reference 's3:…'"),
        ('[models.x]\nreference = "fr en"\npairs = [{ source = "a", target = "b" }]', "neither an embedded model"),
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
    path.write_text(MODELS, encoding="utf-16")
    with pytest.raises(RegistryError, match=r"is not TOML, .*\. Save it as UTF-8\."):
        load_registry(path)


def test_a_byte_order_mark_and_lines_of_windows_change_nothing(path: Path, registry: Registry) -> None:
    path.write_bytes(MODELS.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load_registry(path) == registry


def test_a_file_that_changes_is_read_again(path: Path) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path, look=0.0)
    before = file.current()
    assert file.current() is before
    path.write_text(MODELS.replace("models.de-en", "models.de-en-2"))
    assert "de-en-2" in file.current().models
    aside = path.with_suffix(".new")
    aside.write_text(MODELS)
    aside.rename(path)
    assert file.current() == before


def test_what_a_file_said_last_holds_while_it_is_wrong(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path, look=0.0)
    before = file.current()
    path.write_text("[models.x]")
    assert file.current() is before
    assert file.current() is before
    [record] = caplog.records  # one line, not one for each check
    assert "reference is missing" in record.message or "pairs" in record.message
    path.unlink()
    assert file.current() is before
    path.write_text(MODELS.replace("models.de-en", "models.de-en-2"))
    assert "de-en-2" in file.current().models


def test_a_reason_that_passes_is_not_the_last_word(path: Path) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path, look=0.0)
    path.write_text(MODELS.replace("[models.fr-en]", "[models.fr-en-2]"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # no file can be opened
    try:
        assert "fr-en" in file.current().models
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "fr-en-2" in file.current().models


def test_while_one_reads_a_changed_file_others_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(MODELS)
    file = RegistryFile(path, look=0.0)
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
