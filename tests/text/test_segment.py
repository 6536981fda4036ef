from __future__ import annotations

from pathlib import Path

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from text.segment import fit, join, spans, split

# Pieces whose combinations splitting could get wrong, mixed with arbitrary characters.
PIECES = st.sampled_from([
    "\n", "\r\n", "\r", "\u2028", "\x85", "\t", "  ", "\u00a0", "- ", "* ", "1. ", "a) ", "[ ] ", "> ", ">>", "— ",
    "« ", " »", '"', "(", ")", "M. ", "Dr. ", "Il dort. ", "Oui ! ", "été", ",", "; ", "…", "...", "A.B", "www.Ex.fr",
    "🇫🇷", "👍🏽", "👨‍👩‍👧", "e\u0301\u0301", "你好。", "12", "3,5", "\x00", "\u200b", "\u202e",
])  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)


@given(TEXTS, st.sampled_from(["fr", "en", "ja", "xx", ""]), st.integers(1, 40))
@example("« Viens. Pars. » Puis\r\n\r\n  - [ ] M. A.\u2028", "fr", 8)
def test_identity_translation_gives_the_text_back(text: str, language: str, limit: int) -> None:
    segmentation = split(text, language, lambda sentence: len(sentence) <= limit)
    gaps = fit(segmentation.gaps, language, language)
    assert join(gaps, segmentation.sentences) == text
    assert [text[slice(*span)] for span in spans(gaps, segmentation.sentences)] == list(segmentation.sentences)
    assert len(segmentation.gaps) == len(segmentation.sentences) + 1
    for sentence in segmentation.sentences:
        assert not regex.search(r"^\s|\s$", sentence)
        assert regex.search(r"\p{L}\p{M}*\p{L}|\p{Lo}", sentence)
        assert len(sentence) <= limit
        assert len(sentence.splitlines()) == 1


def whole(_: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ()),
        (" \n\t\n", ()),
        ("Il dort. Elle mange.", ("Il dort.", "Elle mange.")),
        ("Il dort.Elle mange.", ("Il dort.", "Elle mange.")),
        ("M. Dupont dort. Mme Girard et le Dr. Roux non.", ("M. Dupont dort.", "Mme Girard et le Dr. Roux non.")),
        ("J. R. R. Tolkien écrit. Fin.", ("J. R. R. Tolkien écrit.", "Fin.")),
        ("R.S.V.P. avant lundi.", ("R.S.V.P. avant lundi.",)),
        ("Voir http://A.B/C.D?E=F.G ici.", ("Voir", "ici.")),
        ("Écrivez à Jean.Dupont@exemple.org, vite. Merci.", ("Écrivez à", "vite.", "Merci.")),
        ("(www.exemple.org/a_b/) et ftp://x.y.", ("et",)),
        ("De : Paul <p.m@exemple.org> [http://a.b]", ("De : Paul",)),
        ("A_B, A/B.C et X@Y", ("A_B, A/B.C et X@Y",)),
        ("« Viens ! » dit-elle. Puis rien.", ("« Viens ! » dit-elle.", "Puis rien.")),
        ("Il dit : « Viens. Pars. » Puis rien.", ("Il dit : « Viens.", "Pars. »", "Puis rien.")),
        ('Un " perdu. Deux. Trois.', ('Un " perdu.', "Deux.", "Trois.")),
        ("Le prix est de 3.50 euros. Bien.", ("Le prix est de 3.50 euros.", "Bien.")),
        ("Le prof. de maths lit l'art. 12. Bien.", ("Le prof. de maths lit l'art. 12.", "Bien.")),
        ("Euh... je... non.", ("Euh... je... non.",)),
        ("Un\nDeux\r\nTrois\rQuatre\u2028Cinq", ("Un", "Deux", "Trois", "Quatre", "Cinq")),
        ("12\n50 %\n-5 °C\n12 h 30\nB.\n---\n😀\n?!", ()),
        ("Bravo ! 🎉🎉 Encore 👍🏽", ("Bravo !", "Encore")),
    ],
)
def test_sentences(text: str, sentences: tuple[str, ...]) -> None:
    assert split(text, "fr", whole).sentences == sentences


@pytest.mark.parametrize(
    "lead", ["- ", "* ", "+ ", "• ", "– ", "— ", "[ ] ", "- [x] ", "> ", ">> > ", "  ", "\t", "## "]
)
@pytest.mark.parametrize("number", ["", "1. ", "12.3. ", "1) ", "(1) ", "a) ", "iv) "])
def test_what_leads_a_line_is_layout(lead: str, number: str) -> None:
    assert split(f"Titre\n{lead}{number}Il dort.  \n", "fr", whole).gaps == ("", f"\n{lead}{number}", "  \n")


@pytest.mark.parametrize("text", ["-5 degrés", "M. Dupont", "3 chats", "*gras*"])
def test_what_only_looks_like_a_bullet_is_part_of_the_sentence(text: str) -> None:
    assert split(text, "fr", whole).gaps[0] == ""


@pytest.mark.parametrize(
    ("text", "limit", "sentences"),
    [
        ("aaa bbb ccc; ddd, eee fff", 20, ("aaa bbb ccc;", "ddd, eee fff")),
        ("aaa bbb, ccc ddd eee fff", 20, ("aaa bbb,", "ccc ddd eee fff")),
        ("aaa bbb ccc ddd", 8, ("aaa bbb", "ccc ddd")),
        ("a, bbb ccc ddd eee fff ggg", 15, ("a, bbb ccc", "ddd eee fff ggg")),
        ("aaaaaaaa", 4, ("aaaa", "aaaa")),
        ("e\u0301" * 8, 5, ("e\u0301" * 2,) * 4),
        ("ab3,14159265 aaa", 12, ("ab3,14159265", "aaa")),
        ("あ" + "\u0301" * 7, 4, ("あ\u0301\u0301\u0301",)),
    ],
)
def test_a_long_sentence_comes_apart_at_the_best_place(text: str, limit: int, sentences: tuple[str, ...]) -> None:
    segmentation = split(text, "fr", lambda sentence: len(sentence) <= limit)
    assert segmentation.parts == set(range(len(sentences)))
    assert segmentation.sentences == sentences


@pytest.mark.parametrize(
    "piece",
    [
        "x",
        "a.",
        "a@",
        "www.",
        "> ",
        "M. ",
        "« a. ",
        "(",
        "\u0301",
        "👍 a",
        "1.",
        "a: ",
        ";",
        " ",
        ", ",
        "A.",
        "http://",
    ],
)
@pytest.mark.timeout(60)  # a quadratic algorithm would take minutes
def test_no_text_takes_long(piece: str) -> None:
    text = "a" + piece * (20_000 // len(piece)) + "b"
    segmentation = split(text, "fr", lambda sentence: len(sentence) <= 100)
    assert join(segmentation.gaps, segmentation.sentences) == text


@pytest.mark.parametrize("language", ["fr", "fr-CA", "FR_ca"])
def test_abbreviations_are_those_of_the_language(language: str) -> None:
    assert split("Voir chap. Trois.", language, whole).sentences == ("Voir chap. Trois.",)
    assert split("Voir chap. Trois.", "en", whole).sentences == ("Voir chap.", "Trois.")


def test_white_space_follows_the_target_language() -> None:
    french = split("Il dort. Elle mange.\nFin.  Oui.", "fr", whole)
    assert join(fit(french.gaps, "fr", "zh_Hans"), ("一。", "二。", "三。", "四。")) == "一。二。\n三。四。"
    chinese = split("你好。我是。\n好。", "zh", whole)
    assert join(fit(chinese.gaps, "zh", "en"), ("Hello.", "I am.", "Good.")) == "Hello. I am.\nGood."


def test_sentences_stay_whole() -> None:
    lines = (Path(__file__).parents[1] / "data" / "sentences.fr").read_text(encoding="utf-8").splitlines()
    apart = [line for line in lines if len(split(line, "fr", whole).sentences) > 1]
    assert len(lines) == 300
    assert apart == [
        "« Où étais-tu ? » demanda-t-il. « Je t'ai cherché partout. »",
        "« Jamais ! Jamais ! Jamais ! » hurlait la foule.",
        "Consultez www.exemple.org avant de partir.",
        "Mon adresse est jean.dupont+test@courrier.exemple.com, réponds vite !",
        "Bonjour,je voudrais savoir si vous êtes ouverts dimanche.Merci.",
    ]


@pytest.mark.parametrize("language", ["de", "deu", "ger", "DE", "de-AT", "de_DE", "deu_Latn"])
def test_the_dates_of_a_language_are_known_whichever_way_its_tag_is_spelled(language: str) -> None:
    text = "Am 3. Oktober feiern wir. Es regnet."
    assert split(text, language, lambda _: True).sentences == ("Am 3. Oktober feiern wir.", "Es regnet.")


@pytest.mark.parametrize(("source", "target"), [("fra", "jpn"), ("fr-CA", "zh_TW"), ("eng_Latn", "tha_Thai")])
def test_the_spaces_of_a_language_are_known_whichever_way_its_tag_is_spelled(source: str, target: str) -> None:
    assert fit(["", " ", ""], source, target) == ["", "", ""]
    assert fit(["", "", ""], target, source) == ["", " ", ""]


LONG = 3_000  # characters


class Enough(Exception):
    """The work has to end."""


@pytest.mark.parametrize("language", ["fr", "da", "ca", "ja", "xx"])
@pytest.mark.parametrize("piece", ["\ufdfa", "a. ", "Dr. ", "漢。", "Oui! ", "mot ", "a", "(a. ", "\n", "a\n", "www."])
def test_the_work_for_any_text_is_in_many_pieces_and_ends_between_any_two(piece: str, language: str) -> None:
    text, pauses = (piece * LONG)[:LONG], 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        if pauses == until:
            raise Enough

    until = -1
    split(text, language, lambda sentence: len(sentence) <= 200, pause=pause)
    marks = len(regex.findall(r"[.!。]", text))
    assert pauses >= 1 + marks // 25
    for until in (1, pauses):
        pauses = 0
        with pytest.raises(Enough):
            split(text, language, lambda sentence: len(sentence) <= 200, pause=pause)
        assert pauses == until


@pytest.mark.parametrize("language", ["fr", "en", "de", "da", "ru", "xx"])
def test_many_sentences_of_a_line_are_those_of_few(language: str) -> None:
    sentences = tuple(f"Voici la phrase {number}, qui dort." for number in range(1000))
    assert split(" ".join(sentences), language, whole).sentences == sentences


@settings(max_examples=20, deadline=None)
@given(st.lists(PIECES, min_size=200, max_size=400).map("".join))
def test_a_line_of_any_length_comes_back(text: str) -> None:
    line = " ".join((text * 20).split())
    found = split(line, "fr", lambda sentence: len(sentence) <= 200)
    assert join(found.gaps, found.sentences) == line
