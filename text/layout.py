"""What of a line carries no words. It is layout: it never reaches a model, and comes back where it was.

Layout is told by classes of Unicode's characters (symbols, emoji, invisible characters, white space) and by structure
(numbers and letters that label what follows, cells of a table, marks around a sentence).
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

# Symbols that may stand at a word without a space: arrows, stars, check marks, emoji, enclosed numbers, and invisible
# characters. Not those that a number or a name needs: °, №, ℃.
_SYMBOLS = (
    r"[[\p{So}\p{Sk}\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Default_Ignorable_Code_Point}\p{Cc}\s"
    r"\u20e3\u2190-\u21ff\u2460-\u249b\u24ea-\u24ff\u25a0-\u25ff\u2776-\u2793\u27f0-\u27ff\u2900-\u297f\u2b00-\u2bff]"
    r"--[\^`°\u2100-\u214f--\p{Extended_Pictographic}]]"
)
_OPENING = r"\p{Ps}\p{Pi}\"'¿¡"
# A mark with white space behind it: a bullet, a dash, an arrow, dots. Opening marks belong to the sentence.
_MARK = rf"[[\p{{P}}\p{{S}}]--[{_OPENING}\p{{Pe}}\p{{Pf}}№]]++(?=\s|\Z)"
_QUOTES = r"(?!>>[\w.@+-]{1,40}<<)>++"  # of a mail; >>fra<< is a model's target token
_LETTERS = r"(?:\p{L}|[ivx]{2,5}|[IVX]{2,5})"  # a label, or a Roman number
_LABEL = rf"""
    (?: \d{{1,3}}(?:\.\d{{1,3}})*[.)\]]-?                  # 1.  1.2)  1.-
      | \d{{1,3}}(?:\.\d{{1,3}}){{2,}}                       # 1.2.3
      | \d{{1,3}}(?:[/:]|\s[–—:-])                         # 1/  1:  1 -
      | \d{{1,2}}[°ºª](?=\s+[\p{{Lu}}\p{{Lt}}\p{{Lo}}])           # 1° Titre, but not 20° dehors
      | §+\s?\d{{1,4}}(?:\.\d{{1,3}})*[.):]? | \#\d{{1,4}}[.):]? # § 1  #1
      | [(\[{{]\s?(?:\d{{1,3}}|{_LETTERS})\s?[)\]}}][.:]?      # (1)  [a]
      | \[[ xX✓✔]?\]                                       # [ ]
      | {_LETTERS}\)                                       # a)  IV)
      | (?!M\.){_LETTERS}\.                                # A.  ii.  but not M. (Monsieur), nor one of several initials
        (?=\s+[\p{{Lu}}\p{{Lt}}\p{{Lo}}{_OPENING}])(?!\s+\p{{Lu}}\.)
      | (?:\p{{Lu}}|[IVX]{{2,5}})\s[–—-]                     # A -
      | \d\ufe0f?\u20e3                                    # 1️⃣
    )(?=\s|\Z)
    | \d{{1,3}}[．、] | [一二三四五六七八九十]{{1,3}}、          # without a space: 1、 一、 （二）
    | [（［【]\s?(?:\d{{1,3}}|[一二三四五六七八九十]{{1,3}})\s?[）］】]
"""
_LEAD = regex.compile(rf"(?:\s+|{_QUOTES}|[»›]++(?=\s)|{_LABEL}|{_MARK}|{_SYMBOLS}+)*+", regex.VERBOSE | regex.V1)
_MAY_LABEL = regex.compile(rf"{_LETTERS}[.)\s]|[一二三四五六七八九十]{{1,3}}、")
_POINTER = regex.compile(r"(?r)\s+[»›]+\s*\Z")
_BEFORE = regex.compile(rf"(?:{_SYMBOLS}+|{_MARK})*+", regex.V1)
_BEHIND = regex.compile(rf"(?r)(?:{_SYMBOLS}+|(?<=\s)[*_~#/\\•·‣=<>+^`\p{{Pd}}]+)*+\Z", regex.V1)
_EMPHASIS = regex.compile(r"\*+|_+|~+|`+")
_EMPHASIS_BEHIND = regex.compile(r"(?r)(?:\*+|_+|~+|`+)\Z")
_BARS = r"|¦‖∣｜\u2500-\u257f"
_DIVIDER = regex.compile(rf"[\t{_BARS}]")
_CELLS = regex.compile(rf"([ ]*[\t{_BARS}][\s{_BARS}]*)")
_LAST = frozenset('.!?…,:;»)"”')  # of a sentence that nothing stands behind


def lead(line: str) -> int:
    """The number of characters before the first word of a line: indentation, quote marks, bullets, numbers, symbols."""
    if line[:1].isalpha() and not _MAY_LABEL.match(line):  # most lines
        return 0
    found = _LEAD.match(line)
    return found.end() if found else 0


def trail(line: str) -> int:
    """Where a line ends without the closing marks that point onward, as in `Next »`; they close nothing."""
    points = ("»" in line or "›" in line) and "«" not in line and "‹" not in line
    found = _POINTER.search(line) if points else None
    return found.start() if found else len(line)


def cells(line: str) -> Iterator[tuple[str, str]]:
    """The cells of a line, which tabs or bars divide, each with the divider after it."""
    if not _DIVIDER.search(line):
        yield line, ""
        return
    parts = _CELLS.split(line)
    yield from zip(parts[::2], (*parts[1::2], ""), strict=True)


def core(piece: str) -> tuple[int, int]:
    """Where the sentence in a piece of a line begins and ends. Before and behind it are white space, symbols, and marks
    of emphasis that the whole sentence is in or that have their other half elsewhere."""
    stripped = piece.strip()
    if stripped[:1].isalpha() and (stripped[-1].isalnum() or stripped[-1] in _LAST):  # most sentences
        start = piece.index(stripped[0])
        return start, start + len(stripped)
    before = _BEFORE.match(piece)
    start = before.end() if before else 0
    behind = _BEHIND.search(piece, start)
    return _within_emphasis(piece, start, behind.start() if behind else len(piece))


def _within_emphasis(piece: str, start: int, end: int) -> tuple[int, int]:
    first, last = _EMPHASIS.match(piece, start, end), _EMPHASIS_BEHIND.search(piece, start, end)
    if first and last and first.group() == last.group() and first.end() < last.start():
        return first.end(), last.start()
    if first and piece.count(first.group(), start, end) == 1:
        return first.end(), end
    if last and piece.count(last.group(), start, end) == 1:
        return start, last.start()
    return start, end
