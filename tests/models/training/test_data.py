"""Sentence pairs from files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from models.errors import BadInput
from models.training.data import Pair, read_pairs

TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="EN-US">
      <seg>Press <bpt i="1">&lt;b&gt;</bpt>OK<ept i="1">&lt;/b&gt;</ept> &amp; <hi>wait</hi>.</seg></tuv>
    <note>nothing</note><tuv xml:lang="fr"><seg>Appuyez sur OK et attendez.</seg></tuv></tu>
<tu><tuv lang="fr-CA"><seg>Oui.</seg></tuv><tuv lang="en"><seg>Yes.</seg></tuv><tuv lang="de"><seg>Ja.</seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>Nein.</seg></tuv><tuv xml:lang="en"><seg>No.</seg></tuv></tu>
</body></tmx>
"""


def test_tsv(tmp_path: Path) -> None:
    content = "Oui.\tYes.\tm\r\nNon.\nCafé\tCoffee\n"
    plain, packed = tmp_path / "a.tsv", tmp_path / "a.tsv.gz"
    plain.write_bytes(content.encode())
    packed.write_bytes(gzip.compress(content.encode()))
    expected = [Pair("Oui.", "Yes."), Pair("Non.", ""), Pair("Café", "Coffee")]
    assert list(read_pairs(plain, "fr", "en")) == list(read_pairs(packed, "fr", "en")) == expected
    assert list(read_pairs(plain, "en", "fr", reverse=True)) == [Pair(*reversed(pair)) for pair in expected]


def test_tmx_without_its_markup_in_the_variants_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx.gz"
    path.write_bytes(gzip.compress(TMX.encode()))
    assert list(read_pairs(path, "fr", "en")) == [
        Pair("Appuyez sur OK et attendez.", "Press OK & wait."),
        Pair("Oui.", "Yes."),
        Pair("", "No."),
    ]


def test_tmx_is_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    unit = '<tu><tuv xml:lang="fr"><seg>Oui.</seg></tuv><tuv xml:lang="en"><seg>Yes.</seg></tuv></tu>'
    path.write_text(f"<tmx><body>{unit * 2000}<broken")
    pairs = read_pairs(path, "fr", "en")
    assert [next(pairs) for _ in range(600)] == [Pair("Oui.", "Yes.")] * 600
    with pytest.raises(BadInput, match="cannot be read as sentence pairs"):
        list(pairs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"caf\xe9\tcoffee\n", "cannot be read"),
        ("a.tsv.gz", b"Oui.\tYes.\n", "cannot be read"),
        ("a.tsv.gz", gzip.compress(b"Oui.\tYes.\n" * 99)[:-9], "cannot be read"),
        ("a.tmx", b'<!DOCTYPE tmx [<!ENTITY a "aaa">]><tmx>&a;</tmx>', "declares entities"),
        ("missing.tsv", None, "No such file"),
    ],
    ids=["not UTF-8", "not packed", "cut off", "entities", "missing"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        list(read_pairs(path, "fr", "en"))
    assert content is not None or str(path) in str(caught.value)
