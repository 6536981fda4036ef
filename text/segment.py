"""Splits a text into sentences and layout, and joins them again. Layout is everything that is not translated.

Layout is: line breaks, indentation, list bullets, the quote marks of mails, white space between sentences, emoji at the
ends of a sentence, web and mail addresses, and lines or sentences without a word (numbers, units, rules, punctuation).
A sentence never extends over a line break. Boundaries within a line are those of sentencex
(https://github.com/wikimedia/sentencex), except where it would split a name or an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import regex
import sentencex

from text import languages

# The layout before the first word of a line: indentation, and any number of quote marks, bullets and numbers.
_LEAD = regex.compile(
    r"""\A\s*(?:
        >+\s*
      | (?: [-*+•‣◦▪·–—] | \#{1,6} | \[[ xX]?\] | \d{1,3}(?:\.\d{1,3})*[.)] | \(?(?:\d{1,3}|\p{L}|[ivx]{2,4})\) )
        (?:\s+|$)
    )*""",
    regex.VERBOSE,
)
_ADDRESS = regex.compile(  # a web or mail address with the punctuation around it
    r"([<(\[«“\"]?(?:\b(?:(?:https?|ftp)://|www\.)\S*[^\s\p{P}]/?|(?<![\w.+-])[\w.+-]++@\w[\w-]*+(?:\.\w[\w-]*+)++)"
    r"[\s.,;:!?…>)\]»”\"]*)"
)
_WORD = regex.compile(r"\p{L}\p{M}*\p{L}|\p{Lo}")  # one letter (°C, 12 h) is a word only in scripts without capitals
_EMOJI = r"[\s\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\uFE0F\u200D]+"  # and white space
_EMOJI_BEFORE = regex.compile(rf"\A{_EMOJI}")
_EMOJI_BEHIND = regex.compile(rf"(?r){_EMOJI}\Z")

# sentencex does not split a quotation or a parenthesis, however many sentences it contains, so that one unmatched mark
# makes a single sentence of a paragraph. Models are trained on single sentences, and drop most of such a piece.
# Therefore sentencex gets a letter for each opening mark, and a space for each closing mark; the length stays the same.
_OPENING = regex.compile(r"[«“„(]|(?<!\S)\"")
_CLOSING = regex.compile(r"[»”)\"]")

_TITLE = regex.compile(r"(?<![\p{L}\p{N}])(?:\p{Lu}|MM|Mr|Mrs|Ms|Mme|Mlle|Dr|Pr|Prof|Mgr|St|Ste)\.\s*$")
_SHORT = regex.compile(r"(?<!\p{L})\p{L}{1,4}\.\s+$")
_END_OF_WORD = regex.compile(r"\p{L}{2}[.!?…]+$")
_NOT_PROSE = regex.compile(r"[\p{N}@/\\_=]")

# Where a sentence that is too long may be split, the best places first, and how far from its ends (a share of its
# length). White space before a short word is better than other white space, because most short words belong to the next
# word. Graphemes are split last.
_PLACES = (
    (regex.compile(r"(?<![;:—–…])[;:—–…]++\s+|[；：。！？]"), 0.25),
    (regex.compile(r",\s+|[，、]"), 0.25),
    (regex.compile(r"(?<=\p{L}{4})\s+(?=\p{L}{1,3}\b)"), 0.25),
    (regex.compile(r"\s+"), 0.0),
    (regex.compile(r"\X"), 0.0),
    (regex.compile(r"(?s:.)"), 0.0),
)

# The work goes in pieces of bounded length. A line is longer than this only in text that nobody typed.
_LONGEST_LINE = 8192  # characters; a longer one is taken as several
_ENDS_OF_SENTENCES = (regex.compile(r"(?r)[.!?…]\s+|[。！？]"), regex.compile(r"(?r)\s+"))  # the best first
# What sentencex gets at once: so many characters, or so many marks that may end a sentence. For Danish and Catalan it
# takes a third of a millisecond for each mark.
_WINDOW = 4096
_MARKS = regex.compile(r"(?s)(?:[^\p{STerm}…]*+[\p{STerm}…]){24}")

_SPACES = regex.compile(r"\A[\p{Zs}\t]+\Z")
_NOTHING = regex.compile(r"\A\Z")


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A text as gap, sentence, gap, …, gap. Gaps are layout; there is one more of them than sentences.

    `parts`: the indices of those `sentences` that are only parts of a sentence that was too long for the model.
    """

    sentences: tuple[str, ...]
    gaps: tuple[str, ...]
    parts: frozenset[int] = frozenset()


def split(
    text: str,
    language: str,
    fits: Callable[[str], bool],
    knows: Callable[[str], bool] = lambda _: True,
    pause: Callable[[], object] = lambda: None,
) -> Segmentation:
    """Splits `text`, which must not contain lone surrogates, into sentences and gaps.

    `language`: the tag of the language, whose abbreviations and dates are known. `fits(sentence)`: whether the sentence
    is short enough for the model; others are split into parts. `knows(sentence)`: whether the model has pieces for any
    word of the sentence; a sentence without such a word is layout. `pause` is called between any two pieces of the
    work, each of a few milliseconds at most; what it raises ends the work.
    """
    sentences: list[str] = []
    gaps = [""]
    cut: set[int] = set()
    for line in _lines(text):
        pause()
        body = _LEAD.sub("", line)
        gaps[-1] += line[: len(line) - len(body)]
        for piece in _sentences(body, language, pause):
            rest = _EMOJI_BEFORE.sub("", piece)
            sentence = _EMOJI_BEHIND.sub("", rest)
            gaps[-1] += piece[: len(piece) - len(rest)]
            translatable = _WORD.search(sentence) and not _ADDRESS.fullmatch(sentence)
            parts = list(_parts(sentence, fits, pause)) if translatable else [sentence]
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
    """Adapts the gaps to the target language. Returns them.

    If only the target language is written without spaces, spaces between the sentences of a line are removed. If only
    the source language is, a space is inserted between them. Otherwise the gaps stay as they are.
    """
    gaps = list(gaps)
    spaced, spaces = languages.has_spaces(source), languages.has_spaces(target)
    if spaced != spaces:
        between, instead = (_SPACES, "") if spaced else (_NOTHING, " ")
        gaps[1:-1] = [between.sub(instead, gap) for gap in gaps[1:-1]]
    return gaps


def join(gaps: Sequence[str], sentences: Sequence[str]) -> str:
    """The text: gap, sentence, gap, …, gap."""
    return "".join(piece for pair in zip(gaps, (*sentences, ""), strict=True) for piece in pair)


def spans(gaps: Sequence[str], sentences: Sequence[str]) -> list[tuple[int, int]]:
    """The span (start, end) of each sentence in the joined text, in characters; the end is exclusive."""
    found, end = [], 0
    for gap, sentence in zip(gaps, sentences, strict=False):  # there is one more gap
        start = end + len(gap)
        end = start + len(sentence)
        found.append((start, end))
    return found


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        while len(line) > _LONGEST_LINE:
            found = [place.search(line, _LONGEST_LINE // 2, _LONGEST_LINE) for place in _ENDS_OF_SENTENCES]
            cut = next((end.end() for end in found if end), _LONGEST_LINE)
            yield line[:cut]
            line = line[cut:]
        yield line


def _sentences(line: str, language: str, pause: Callable[[], object]) -> Iterator[str]:
    """The line in pieces: sentences with the white space after them, and the addresses between them."""
    masked = _CLOSING.sub(" ", _OPENING.sub("X", line))
    start = 0
    for end in _ends(masked, languages.base(language), pause):
        if _is_boundary(line, end):
            yield from _ADDRESS.split(line[start:end])
            start = end
    yield from _ADDRESS.split(line[start:])


def _ends(line: str, language: str, pause: Callable[[], object]) -> Iterator[int]:
    """The indices at which sentencex ends a sentence. It gets the line in windows, each from the end of a sentence."""
    start = until = 0
    while until < len(line):
        pause()
        marks = _MARKS.match(line, start, start + _WINDOW)
        until = marks.end() if marks else start + _WINDOW
        ends = [start + end for end in accumulate(map(len, sentencex.segment(language, line[start:until])))]
        yield from ends if until >= len(line) else ends[:-1]  # the last one may go on behind the window
        back = (until - start) // 4  # if no sentence has ended, sentencex gets the last words once more
        start = ends[-2] if len(ends) > 1 else max(line.rfind(" ", until - back, until - back // 2) + 1, until - back)


def _is_boundary(line: str, at: int) -> bool:
    """Whether a sentence ends at `at`, where sentencex says that one does."""
    before, behind = line[max(0, at - 32) : at], line[at : at + 32]
    if _TITLE.search(before):
        return False
    if before[-1] in ".!?…":  # no white space: a missing space, or an address, a file name, an abbreviation
        around = [*before.split()[-1:], *behind.split()[:1]]
        return bool(_END_OF_WORD.search(before)) and not any(_NOT_PROSE.search(word) for word in around)
    if behind[:1].islower() or behind[:1].isdigit():  # the prof. de maths, the art. 12, « Viens ! » dit-elle
        return not (_SHORT.search(before) or _CLOSING.search(before.rstrip()[-1:]))
    return True


def _parts(sentence: str, fits: Callable[[str], bool], pause: Callable[[], object]) -> Iterator[str]:
    """The parts of a sentence: it is split in two until every part fits."""
    pause()
    if len(sentence) < 2 or fits(sentence.strip()):
        yield sentence
        return
    cut = _cut(sentence)
    yield from _parts(sentence[:cut], fits, pause)
    yield from _parts(sentence[cut:], fits, pause)


def _cut(sentence: str) -> int:
    """The index at which to split a sentence of two or more characters: after the best kind of place it has, and of
    these the one nearest to the middle."""
    length = len(sentence)
    for place, margin in _PLACES:
        cuts = [match.end() for match in place.finditer(sentence)]
        cuts = [cut for cut in cuts if max(1, margin * length) <= cut <= min(length - 1, (1 - margin) * length)]
        if cuts:
            break
    return min(cuts, key=lambda cut: abs(2 * cut - length))
