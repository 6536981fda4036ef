import pytest

from text.typography import typeset


@pytest.mark.parametrize(
    ("plain", "french"),
    [
        ("Comment ça va ?", "Comment ça va\u202f?"),
        ("Quoi ?! Non !", "Quoi\u202f?! Non\u202f!"),
        ("Attention : il pleut ; restez.", "Attention\u00a0: il pleut\u202f; restez."),
        ("Il dit : « Viens ! »", "Il dit\u00a0: «\u00a0Viens\u202f!\u00a0»"),
        ("1 234 567 habitants", "1\u202f234\u202f567 habitants"),
        ("12,5 % de 40 €", "12,5\u00a0% de 40\u00a0€"),
        ("(Vraiment ?)", "(Vraiment\u202f?)"),
    ],
)
def test_french_has_its_no_break_spaces(plain: str, french: str) -> None:
    assert typeset(plain, "fr") == typeset(plain, "fr-CA") == french


@pytest.mark.parametrize(
    "text",
    [
        "Comment ça va?",  # no space is added
        "à 12:30",
        "les années 1998 2004",  # two numbers
        "http://example.org/?a=1",
        "git commit :fixup",
        "ligne\n; suite",
    ],
)
def test_what_has_no_such_space_stays(text: str) -> None:
    assert typeset(text, "fr") == text


def test_other_languages_stay() -> None:
    assert typeset("What ? 1 234 %", "en") == "What ? 1 234 %"
    assert typeset("What ?", "fro") == "What ?"
