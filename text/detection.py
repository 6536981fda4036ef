"""Which language a text is in, of those that are served.

py3langid tells 140 languages apart by the bytes of a text. It knows whole documents, so it is helped with short
strings: by the script, by words that each language uses all the time (words.tsv), and by the other texts of the same
request.
"""

from __future__ import annotations

import math
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import regex

from text.languages import base, canonical, nearest, script

LOOKED_AT = 2_000  # characters of a text that are looked at
SHORT = 20  # characters below which a text goes by its neighbours
SURE = 0.8  # the probability from which on a longer text does not, and from which on others go by it
PLAUSIBLE = 0.05  # the probability from which on they decide
UNSERVED = 0.9  # the probability from which on a text is said to be in a language that is not served

# Fitted to strings of interfaces that are not in the repository: the error of calibration is below 5 points.
_TEMPERATURE = 0.65
_WORD_WEIGHT = 2.0  # of a word that only one of the languages has, as a difference of log-probabilities

_NOT_WORDS = regex.compile(
    r"""<[^<>]*> | &\#?\w+; | \b(?:https?|ftp)://\S+ | \bwww\.\S+ | (?<![\w.+-])[\w.+-]++@[\w-]++\.[\w.-]+
    | `[^`]*` | \$?\{\{?[^{}]*\}?\} | %\([^)]*\)\w | %[\d$.-]*+[a-zA-Z]\b | [\p{N}\p{S}\p{Extended_Pictographic}]+""",
    regex.VERBOSE,
)
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*(?:['’·-]\p{L}[\p{L}\p{M}]*)*")
_LETTER = regex.compile(r"\p{L}")
_BEGINNING = regex.compile(r"[ -].*")  # what follows the first word of a name

# Of scripts by their code, how Unicode's names of their letters begin. Others begin like no language's.
_LETTERS = {
    "Latn": {"LATIN"}, "Cyrl": {"CYRILLIC"}, "Grek": {"GREEK"}, "Arab": {"ARABIC"}, "Hebr": {"HEBREW"},
    "Deva": {"DEVANAGARI"}, "Beng": {"BENGALI"}, "Guru": {"GURMUKHI"}, "Gujr": {"GUJARATI"}, "Orya": {"ORIYA"},
    "Taml": {"TAMIL"}, "Telu": {"TELUGU"}, "Knda": {"KANNADA"}, "Mlym": {"MALAYALAM"}, "Sinh": {"SINHALA"},
    "Thai": {"THAI"}, "Laoo": {"LAO"}, "Khmr": {"KHMER"}, "Mymr": {"MYANMAR"}, "Tibt": {"TIBETAN"},
    "Geor": {"GEORGIAN"}, "Armn": {"ARMENIAN"}, "Ethi": {"ETHIOPIC"}, "Hans": {"CJK"}, "Hant": {"CJK"},
    "Hani": {"CJK"}, "Jpan": {"HIRAGANA", "CJK"}, "Kore": {"HANGUL", "CJK"},
}  # fmt: skip
_ALSO_LATIN = {"sr"}  # languages that are written in the Latin script, too, though CLDR's first script is another
_LABELS = {"nb": "no", "fil": "tl", "ckb": "sdh"}  # how py3langid calls a language, where that is not its tag
# Languages that pass for one another, though py3langid tells them apart: a text is not refused for being in the other.
_FAMILIES = (
    {"hr", "bs", "sr"}, {"id", "ms"}, {"no", "nn"}, {"zh", "yue", "wuu"}, {"ar", "ary", "arz"}, {"en", "pcm"},
    {"fr", "gcf", "gcr"}, {"es", "ext", "an"}, {"it", "vec", "lij"}, {"uz", "uzs"}, {"ku", "sdh"}, {"el", "grc"},
    {"he", "hbo"}, {"lv", "ltg"},
)  # fmt: skip

Rank = Callable[[str], Sequence[tuple[str, float]]]

_LOADING = threading.Lock()


class Candidate(NamedTuple):
    """A language that a text may be in."""

    language: str
    probability: float


@dataclass(frozen=True, slots=True)
class Detection:
    """Which language a text is in. `candidates`: the served ones, the likeliest first; none if the text has no letters,
    or none of theirs. `unserved`: the language of the text if it is clearly none of them. `from_neighbours`: whether
    the texts beside it decided."""

    candidates: tuple[Candidate, ...] = ()
    unserved: Candidate | None = None
    from_neighbours: bool = False

    @property
    def best(self) -> Candidate | None:
        """The language that the text is in, served or not; None if it has no letters."""
        return self.unserved or (self.candidates[0] if self.candidates else None)


class Detector:
    """Thread-safe. The model takes 75 MB and two seconds to load, so a process loads it once, at the first use."""

    def detect(self, texts: Sequence[str], served: Collection[str]) -> list[Detection]:
        """The languages of texts that belong together, of those that are `served` (tags).

        A text that is short, or of which several languages are likely, is in the language of most of the others if that
        is one of its candidates.
        """
        cleaned = [_clean(text) for text in texts]
        served = tuple(dict.fromkeys(map(canonical, served)))
        found = [self._detect(text, served) for text in cleaned]
        sure = Counter(each.candidates[0].language for each in found if _is_sure(each))
        if not sure:
            return found
        [(majority, _)] = sure.most_common(1)
        return [
            each if _is_sure(each) and len(text) >= SHORT else _beside(each, majority)
            for each, text in zip(found, cleaned, strict=True)
        ]

    def _detect(self, text: str, served: tuple[str, ...]) -> Detection:
        letters = _letters(text)
        if letters is None:
            return Detection()
        likely = self._likely(text)
        unserved = _unserved(likely, letters, served)
        tags = [tag for tag in served if letters in _alphabet(tag)]
        if not tags:
            return Detection(unserved=unserved or Candidate("und", 0.0))
        words = _words(text)
        by_label: dict[str, list[str]] = {}
        for tag in tags:
            by_label.setdefault(_label(tag), []).append(tag)
        scores = {label: self._score(label, words, by_label, likely) for label in by_label}
        top = max(scores.values())
        weights = {label: math.exp((score - top) / _TEMPERATURE) for label, score in scores.items()}
        total = sum(weights.values())
        ranked = sorted(weights, key=lambda label: -weights[label])
        candidates = (
            Candidate(self._variant(words, letters, by_label[label]), weights[label] / total) for label in ranked
        )
        return Detection(tuple(candidates), unserved if unserved and unserved.probability >= UNSERVED else None)

    def _likely(self, text: str) -> dict[str, float]:
        """The probability of each of py3langid's languages. It knows words by the spaces around them, and capitals
        from the beginnings of sentences alone."""
        with _LOADING:
            rank = _rank()
        found = [dict(rank(f" {each} ")) for each in dict.fromkeys((text, text.lower()))]
        return {label: math.prod(each[label] for each in found) ** (1 / len(found)) for label in found[0]}

    def _score(
        self, label: str, words: Sequence[str], by_label: Mapping[str, object], likely: Mapping[str, float]
    ) -> float:
        """The log-probability of a language, and more for words that it uses all the time."""
        score = math.log(likely.get(label, 0.0) + 1e-12)
        for word in words:
            languages = self._languages.get(word, frozenset()) & by_label.keys()
            if label in languages:
                score += _WORD_WEIGHT / math.sqrt(len(languages))
        return score

    def _variant(self, words: Sequence[str], letters: str, tags: Sequence[str]) -> str:
        """Which of several variants of a language a text is in: by its script, its words, or how many people use
        them."""
        if len(tags) == 1:
            return tags[0]
        name = base(tags[0])
        in_script = [tag for tag in tags if letters in _LETTERS.get(script(tag), ())] or tags
        tokens = [*words, *"".join(words)] if letters == "CJK" else words
        hits = Counter(
            near[0]
            for token in tokens
            for language in self._languages.get(token, ())
            if base(language) == name != language and (near := nearest(language, in_script))
        )
        return hits.most_common(1)[0][0] if hits else (nearest(name, in_script) or in_script)[0]

    @cached_property
    def _languages(self) -> dict[str, frozenset[str]]:
        """The languages that use a word all the time, as words.tsv has them."""
        languages: dict[str, set[str]] = {}
        for line in Path(__file__).with_name("words.tsv").read_text(encoding="utf-8").splitlines():
            language, words = line.split("\t")
            for word in words.split():
                languages.setdefault(word, set()).add(language)
        return {word: frozenset(found) for word, found in languages.items()}


@lru_cache(maxsize=1)
def _rank() -> Rank:
    """The model of py3langid. The caller holds _LOADING, so that it is loaded once."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # it imports numpy, which takes a while

    rank: Rank = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).rank
    return rank


def _clean(text: str) -> str:
    """The words of a text: its beginning without tags, addresses, code, placeholders, digits and symbols."""
    return unicodedata.normalize("NFKC", _NOT_WORDS.sub(" ", text[:LOOKED_AT])).strip()


def _words(text: str) -> list[str]:
    """The words of a text in lower case, and the parts of those with an apostrophe."""
    lowered = text.lower().replace("i\u0307", "i")  # İ of Turkish, in another language's lower case
    words = [word.replace("’", "'") for word in _WORD.findall(lowered)]
    return words + [part for word in words if "'" in word for part in word.split("'")]


def _letters(text: str) -> str | None:
    """The letters that most of a text is written in, as Unicode's names of them begin; None if it has none."""
    names = Counter(_BEGINNING.sub("", unicodedata.name(letter, "?")) for letter in _LETTER.findall(text))
    kana = names.pop("HIRAGANA", 0) + names.pop("KATAKANA", 0)
    if kana:  # Japanese is mostly Han, and a Chinese text may quote some kana
        is_japanese = 10 * kana >= names["CJK"]
        names["HIRAGANA"] = kana + (names.pop("CJK", 0) if is_japanese else 0)
    return names.most_common(1)[0][0] if names else None


@lru_cache(4096)
def _alphabet(tag: str) -> Collection[str]:
    """The letters of a language."""
    found = _LETTERS.get(script(tag), set())
    return found | {"LATIN"} if tag in _ALSO_LATIN else found


def _label(tag: str) -> str:
    """How py3langid calls a language."""
    name = base(tag)
    return _LABELS.get(name, name)


def _unserved(likely: Mapping[str, float], letters: str, served: Collection[str]) -> Candidate | None:
    """The likeliest language in a script, if it is none of those served; "no linguistic content" is none."""
    labels = {_label(tag) for tag in served}
    labels |= {label for family in _FAMILIES if family & labels for label in family}
    fitting = [label for label in likely if label != "zxx" and letters in _alphabet(label)]
    best = max(fitting, key=lambda label: likely[label], default=None)
    return None if best is None or best in labels else Candidate(best, likely[best])


def _is_sure(found: Detection) -> bool:
    return bool(found.candidates) and found.unserved is None and found.candidates[0].probability >= SURE


def _beside(found: Detection, majority: str) -> Detection:
    """What was found in a text, with the language of most texts beside it first, if it is likely enough."""
    for each in found.candidates[1:]:
        if each.language == majority and each.probability >= PLAUSIBLE and not found.unserved:
            others = (other for other in found.candidates if other is not each)
            return replace(found, candidates=(each, *others), from_neighbours=True)
    return found
