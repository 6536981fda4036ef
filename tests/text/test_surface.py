from __future__ import annotations

import pytest

from text.surface import restore, soften


@pytest.mark.parametrize(
    ("sentence", "softened"),
    [
        ("ÉTEIGNEZ VOS TÉLÉPHONES.", "Éteignez vos téléphones."),
        ("Éteignez vos TÉLÉPHONES.", "Éteignez vos TÉLÉPHONES."),
        ("SNCF", "SNCF"),
        ("J. R. R.", "J. R. R."),
        ("你好", "你好"),
    ],
)
def test_only_shouting_is_softened(sentence: str, softened: str) -> None:
    assert soften(sentence, "en") == softened


def test_capitals_are_those_of_the_language() -> None:
    assert soften("IŞIKLARI SÖNDÜRÜN", "tr") == "Işıkları söndürün"
    assert restore("Işıkları söndürün", "TURN OFF THE LIGHTS", "tur") == "IŞIKLARI SÖNDÜRÜN"
    assert restore("istanbul'a hoş geldiniz", "WELCOME TO ISTANBUL", "tr-TR") == "İSTANBUL'A HOŞ GELDİNİZ"


@pytest.mark.parametrize(
    ("translation", "sentence", "restored"),
    [
        ("Turn off your phone.", "ÉTEIGNEZ VOS TÉLÉPHONES.", "TURN OFF YOUR PHONE."),
        ("The SNCF.", "SNCF", "The SNCF"),
        ("The milk.", "Le lait", "The milk"),
        ("The milk.", "Le lait.", "The milk."),
        ("Hello.", "Bonjour,", "Hello,"),
        ("Here it is.", "Voici :", "Here it is:"),
        ("Who goes?", "Qui va là", "Who goes?"),
        ("Well...", "Eh bien", "Well..."),
        ("In the U.S.", "Aux États-Unis", "In the U.S."),
        ("", "Rien", ""),
    ],
)
def test_the_surface_of_the_sentence_comes_back(translation: str, sentence: str, restored: str) -> None:
    assert restore(translation, sentence, "en") == restored
