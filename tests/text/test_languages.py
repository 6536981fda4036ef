from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.languages import base, canonical, capitalize, distance, has_spaces, lower, nearest, script, upper


@pytest.mark.parametrize(
    ("tag", "spelled"),
    [
        ("FR", "fr"),
        ("fra", "fr"),
        ("fre", "fr"),
        ("fr_FR", "fr-FR"),
        ("fr_FR.UTF-8", "fr-FR"),
        (" fr\n", "fr"),
        ("pt_br", "pt-BR"),
        ("zh-hant-hk", "zh-Hant-HK"),
        ("iw", "he"),
        ("en-UK", "en-GB"),
        ("sh", "sr-Latn"),
        ("en-x-simple", "en-x-simple"),
        ("x-elvish", "x-elvish"),
    ],
)
def test_a_tag_has_one_spelling(tag: str, spelled: str) -> None:
    assert canonical(tag) == canonical(spelled) == spelled


@pytest.mark.parametrize("tag", ["", "f", "french", "fr--", "fr-FR-FR", "fr\x00", "日本", "x" * 100, "-", "7"])
def test_what_is_no_tag_stands_for_itself_alone(tag: str) -> None:
    assert canonical(tag) == tag
    assert nearest(tag, ["fr", tag, "en"]) == [tag]
    assert not nearest(tag, ["fr", "en"])
    assert not nearest("de", [tag])
    assert has_spaces(tag)
    assert upper("i", tag) == "I"


@pytest.mark.parametrize(
    ("wanted", "offered", "found"),
    [
        ("fr", ["en", "fr"], ["fr"]),
        ("fr-FR", ["fr-CA", "fr"], ["fr", "fr-CA"]),
        ("fr", ["fr-CA", "fr-FR"], ["fr-FR", "fr-CA"]),
        ("zh", ["zh-Hant", "zh-Hans"], ["zh-Hans"]),
        ("zh", ["zh-Hant"], ["zh-Hant"]),
        ("zh-HK", ["zh-Hans", "zh-Hant"], ["zh-Hant"]),
        ("zh-Hans", ["zh-Hant"], []),
        ("de-x-formal", ["de", "de-x-formal"], ["de-x-formal", "de"]),
        ("de", ["de-x-formal", "de"], ["de", "de-x-formal"]),
        ("eng", ["fra", "eng_Latn", "deu"], ["eng_Latn"]),
        ("zh", [">>", "cmn_Hans", "cmn_Hant"], ["cmn_Hans"]),
        ("uz-Latn", ["uz-Cyrl"], []),
        ("uz", ["uz-Cyrl"], ["uz-Cyrl"]),
    ],
)
def test_the_nearest_language_on_offer_is_meant(wanted: str, offered: list[str], found: list[str]) -> None:
    assert [*nearest(wanted, offered)] == found


@given(tag=st.text(max_size=12), other=st.text("abcdefrzhnHANTst-_01", max_size=12))
def test_any_text_may_be_asked_for(tag: str, other: str) -> None:
    for each in (tag, other):
        assert nearest(each, [each, "fr"])[:1] in ([each], ["fr"])
        assert isinstance(base(each), str)
        assert isinstance(script(each), str)
        assert isinstance(has_spaces(each), bool)
        assert distance(each, each) == 0


@pytest.mark.parametrize(
    ("tag", "found"),
    [("fr-CA", "fr"), ("deu", "de"), ("cmn_Hant", "zh"), ("zh_Hant", "zh"), ("DE", "de"), ("tlh", "tlh"), ("7_a", "7")],
)
def test_the_base_of_a_language_is_without_script_and_region(tag: str, found: str) -> None:
    assert base(tag) == found


@pytest.mark.parametrize(
    ("tag", "spaces"),
    [("zh", False), ("yue", False), ("jpn", False), ("tha", False), ("lo", False), ("ko", True), ("zh-Latn", True)],
)
def test_spaces_are_a_matter_of_the_script(tag: str, spaces: bool) -> None:
    assert has_spaces(tag) is spaces


@pytest.mark.parametrize(
    ("text", "language", "capitals"),
    [
        ("istanbul ışık", "tr", "İSTANBUL IŞIK"),
        ("istanbul", "tur", "İSTANBUL"),
        ("istanbul", "tr-TR", "İSTANBUL"),
        ("bir", "az", "BİR"),
        ("istanbul", "en", "ISTANBUL"),
        ("Άνθρωπος, προϊόντα", "el", "ΑΝΘΡΩΠΟΣ, ΠΡΟΪΟΝΤΑ"),
        ("straße", "de", "STRASSE"),
        ("été", "fr-CA", "ÉTÉ"),
    ],
)
def test_capitals_are_those_of_the_language(text: str, language: str, capitals: str) -> None:
    assert upper(text, language) == capitals


@pytest.mark.parametrize(
    ("capitals", "language", "text"),
    [
        ("IŞIK İSTANBUL", "tr", "Işık istanbul"),
        ("İYİ AKŞAMLAR", "tr", "İyi akşamlar"),
        ("IJS EN IS", "nl", "IJs en is"),
        ("IJS", "en", "Ijs"),
        ("ÉTÉ", "fr", "Été"),
        ("", "tr", ""),
    ],
)
def test_an_initial_capital_is_that_of_the_language(capitals: str, language: str, text: str) -> None:
    assert capitalize(capitals, language) == text


def test_lower_case_is_that_of_the_language() -> None:
    assert lower("ISI İSİ", "tr") == "ısı isi"
    assert lower("ISI", "en") == "isi"
