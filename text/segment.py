"""A text as layout and sentences, and back: whatever is not a sentence stays exactly as it was.

Line breaks, indentation, list bullets, the quote marks of mails, the white space between sentences, emoji around one,
addresses of the web and of mail, and whatever holds no word (numbers, units, rules, punctuation) are layout. A line
is never joined to the next. Boundaries within a line are sentencex's (https://github.com/wikimedia/sentencex), mended
where it would take a name or an address apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import regex
import sentencex

# What may stand before the first word of a line: indentation, and any number of quote marks, bullets and numbers.
_LEAD = regex.compile(
    r"""\A\s*(?:
        >+\s*
      | (?: [-*+•‣◦▪·–—] | \#{1,6} | \[[ xX]?\] | \d{1,3}(?:\.\d{1,3})*[.)] | \(?(?:\d{1,3}|\p{L}|[ivx]{2,4})\) )
        (?:\s+|$)
    )*""",
    regex.VERBOSE,
)
_ADDRESS = regex.compile(  # with the punctuation around it
    r"([<(\[«“\"]?(?:\b(?:(?:https?|ftp)://|www\.)\S*[^\s\p{P}]/?|(?<![\w.+-])[\w.+-]++@\w[\w-]*+(?:\.\w[\w-]*+)++)"
    r"[\s.,;:!?…>)\]»”\"]*)"
)
_WORD = regex.compile(r"\p{L}\p{M}*\p{L}|\p{Lo}")  # one letter alone (°C, 12 h 30, B.) only in scripts without capitals
_EMOJI = r"[\s\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\uFE0F\u200D]+"  # and white space
_EMOJI_BEFORE = regex.compile(rf"\A{_EMOJI}")
_EMOJI_BEHIND = regex.compile(rf"(?r){_EMOJI}\Z")

# sentencex keeps a quotation or a parenthesis together however many sentences it holds, and one stray mark makes a
# sentence of a paragraph. Models are trained on single sentences and drop most of such a piece. So sentencex sees a
# letter for a mark that opens and white space for one that closes, each of the same length.
_OPENING = regex.compile(r"[«“„(]|(?<!\S)\"")
_CLOSING = regex.compile(r"[»”)\"]")

_TITLE = regex.compile(r"(?<![\p{L}\p{N}])(?:\p{Lu}|MM|Mr|Mrs|Ms|Mme|Mlle|Dr|Pr|Prof|Mgr|St|Ste)\.\s*$")
_SHORT = regex.compile(r"(?<!\p{L})\p{L}{1,4}\.\s+$")
_END_OF_WORD = regex.compile(r"\p{L}{2}[.!?…]+$")
_NOT_PROSE = regex.compile(r"[\p{N}@/\\_=]")

# Where a sentence that is too long comes apart, best first, and how far from its ends (a share of its length). White
# space before a short word comes before other: most of them go with what follows. A grapheme alone comes apart last.
_PLACES = (
    (regex.compile(r"(?<![;:—–…])[;:—–…]++\s+|[；：。！？]"), 0.25),
    (regex.compile(r",\s+|[，、]"), 0.25),
    (regex.compile(r"(?<=\p{L}{4})\s+(?=\p{L}{1,3}\b)"), 0.25),
    (regex.compile(r"\s+"), 0.0),
    (regex.compile(r"\X"), 0.0),
    (regex.compile(r"(?s:.)"), 0.0),
)

_SPACES = regex.compile(r"\A[\p{Zs}\t]+\Z")
_NOTHING = regex.compile(r"\A\Z")
_WITHOUT_SPACES = frozenset(
    {"ja", "jpn", "zh", "zho", "cmn", "yue", "th", "tha", "lo", "lao", "km", "khm", "my", "mya"}
)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A text as gap, sentence, gap, …, gap: always one gap more than there are sentences.

    `parts` are the places of those that are only a part of a sentence, which was too long for the model.
    """

    sentences: tuple[str, ...]
    gaps: tuple[str, ...]
    parts: frozenset[int] = frozenset()


def split(
    text: str, language: str, fits: Callable[[str], bool], knows: Callable[[str], bool] = lambda _: True
) -> Segmentation:
    """The sentences of `text`, which holds no lone surrogate.

    `language` is the ISO 639-1 code whose abbreviations count; `fits` says whether the model can take a sentence whole,
    `knows` whether it has pieces for any word of one: what it does not know at all is layout too.
    """
    sentences: list[str] = []
    gaps = [""]
    cut: set[int] = set()
    for line in text.splitlines(keepends=True):
        body = _LEAD.sub("", line)
        gaps[-1] += line[: len(line) - len(body)]
        for piece in _sentences(body, language):
            rest = _EMOJI_BEFORE.sub("", piece)
            sentence = _EMOJI_BEHIND.sub("", rest)
            gaps[-1] += piece[: len(piece) - len(rest)]
            translatable = _WORD.search(sentence) and not _ADDRESS.fullmatch(sentence)
            parts = list(_parts(sentence, fits)) if translatable else [sentence]
            for part in parts:
                words = part.rstrip() if translatable and _WORD.search(part) and knows(part) else ""
                if words:
                    if len(parts) > 1:
                        cut.add(len(sentences))
                    sentences.append(words)
                    gaps.append("")
                gaps[-1] += part[len(words) :]
            gaps[-1] += rest[len(sentence) :]
    return Segmentation(tuple(sentences), tuple(gaps), frozenset(cut))


def fit(gaps: Sequence[str], source: str, target: str) -> list[str]:
    """The gaps as the target language has them.

    Only where one of the two languages is written without spaces does the white space between the sentences of a line
    change: it goes, or a space is set.
    """
    gaps = list(gaps)
    spaced, spaces = _base(source) not in _WITHOUT_SPACES, _base(target) not in _WITHOUT_SPACES
    if spaced != spaces:
        between, instead = (_SPACES, "") if spaced else (_NOTHING, " ")
        gaps[1:-1] = [between.sub(instead, gap) for gap in gaps[1:-1]]
    return gaps


def join(gaps: Sequence[str], sentences: Sequence[str]) -> str:
    """The text: gap, sentence, gap, …, gap."""
    return "".join(piece for pair in zip(gaps, (*sentences, ""), strict=True) for piece in pair)


def spans(gaps: Sequence[str], sentences: Sequence[str]) -> list[tuple[int, int]]:
    """Where each sentence stands between its gaps: its first character, and the one behind its last."""
    found, end = [], 0
    for gap, sentence in zip(gaps, sentences, strict=False):  # there is a gap behind the last
        start = end + len(gap)
        end = start + len(sentence)
        found.append((start, end))
    return found


def _base(language: str) -> str:
    """The language of a tag such as fr-CA or zh_Hant."""
    return language.replace("_", "-").split("-")[0].lower()


def _sentences(line: str, language: str) -> Iterator[str]:
    """The line in pieces: sentences with the white space behind them, and the addresses that part them."""
    masked = _CLOSING.sub(" ", _OPENING.sub("X", line))
    start = end = 0
    for piece in sentencex.segment(_base(language), masked):
        end += len(piece)
        if _is_boundary(line, end):
            yield from _ADDRESS.split(line[start:end])
            start = end
    yield from _ADDRESS.split(line[start:])


def _is_boundary(line: str, at: int) -> bool:
    """Whether a sentence ends at `at`, where sentencex says that one does."""
    before, behind = line[max(0, at - 32) : at], line[at : at + 32]
    if _TITLE.search(before):
        return False
    if before[-1] in ".!?…":  # no white space: two sentences run together, or an address, a file, an abbreviation
        around = [*before.split()[-1:], *behind.split()[:1]]
        return bool(_END_OF_WORD.search(before)) and not any(_NOT_PROSE.search(word) for word in around)
    if behind[:1].islower() or behind[:1].isdigit():  # the prof. de maths, the art. 12, « Viens ! » dit-elle
        return not (_SHORT.search(before) or _CLOSING.search(before.rstrip()[-1:]))
    return True


def _parts(sentence: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """The sentence, halved until every part fits."""
    if len(sentence) < 2 or fits(sentence.strip()):
        yield sentence
        return
    cut = _cut(sentence)
    yield from _parts(sentence[:cut], fits)
    yield from _parts(sentence[cut:], fits)


def _cut(sentence: str) -> int:
    """Behind the best place of a sentence of two characters or more, as near to its middle as there is one."""
    length = len(sentence)
    for place, margin in _PLACES:
        cuts = [match.end() for match in place.finditer(sentence)]
        cuts = [cut for cut in cuts if max(1, margin * length) <= cut <= min(length - 1, (1 - margin) * length)]
        if cuts:
            break
    return min(cuts, key=lambda cut: abs(2 * cut - length))
