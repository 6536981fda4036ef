"""Finds holds: what a translation has to keep as it is, such as placeholders, tags, addresses and code.

A profile is a set of kinds. `AUTO` has those that ordinary text does not contain by chance; the named ones add the
grammar of one kind of file to it. No pattern looks further than a bounded distance from where it begins, so that the
time is linear in the length of the text, whatever the text is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from typing import NamedTuple

import regex


class Profile(StrEnum):
    """Which holds are found in a text."""

    AUTO = "auto"
    OFF = "off"
    PRINTF = "printf"
    QT = "qt"
    SHELL = "shell"
    TEX = "tex"
    WIKI = "wiki"
    BBCODE = "bbcode"


class Hold(NamedTuple):
    """The characters from `start` to `end` of a text, which are of a `kind`.

    `is_ordered`: whether it has to stay behind the ordered holds before it: tags, and placeholders without a name.
    """

    start: int
    end: int
    kind: str
    is_ordered: bool = False


_CONVERSION = r"[-+0\#]{0,4}\d{0,4}(?:\.\d{1,3})?(?:hh?|ll?|[Lqjzt])?[diouxXeEfFgGcsp@]"
_ARGUMENT = r"(?:[\p{L}_]\w{0,80}|\d{1,4})"
_FILES = (
    "txt|md|rst|pdf|docx?|xlsx?|pptx?|odt|ods|csv|tsv|json|ya?ml|toml|ini|cfg|conf|xml|html?|css|js|ts|tsx|jsx|py|rb|php|java|kt"
    "|go|rs|c|h|cpp|hpp|cs|sh|bat|ps1|sql|log|zip|tar|gz|tgz|bz2|xz|7z|rar|exe|dll|so|jar|war|deb|rpm|dmg|iso|png|jpe?g|gif"
    "|svg|webp|bmp|ico|mp3|mp4|avi|mov|mkv|wav|ogg|po|pot|mo|srt|xliff|lock|env|db|sqlite"
)

# The first that fits at a place is taken, so that what contains others is before them. (?<!…) at the beginning of a
# run of characters keeps a pattern from being tried again at each of them.
_KINDS = {
    "code": r"``[^`\n]{1,400}``|`[^`\n]{1,400}`",
    "tag": r"""</?[A-Za-z][\w:.-]{0,60}+(?:\s{1,8}+[\w:.@-]{1,60}+"""
    r"""(?:\s?=\s?(?:"[^"<>]{0,500}"|'[^'<>]{0,500}'|[^\s"'<>]{1,60}))?){0,20}+\s{0,8}/?>|<!--[^\n]{0,500}?-->""",
    "entity": r"&(?:\#\d{1,7}|\#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});",
    "template": r"\{\{\{[^{}\n]{0,200}\}\}\}|\{\{[^{}\n]{0,200}\}\}|\{%[^{}%\n]{0,200}%\}|\{\#[^{}\#\n]{0,200}\#\}",
    "argument": rf"\{{\s?{_ARGUMENT}\s?,\s?(?:number|date|time|spellout|ordinal|duration|list)"
    r"(?:\s?,[^{}\n]{0,60})?\}"
    rf"|\{{{_ARGUMENT}(?:\.\w{{1,40}}|\[\w{{1,40}}\]){{0,4}}(?:![rsa])?(?:,-?\d{{1,3}})?(?::[^{{}}\s]{{1,20}})?\}}"
    rf"|[%$\#]\{{[^{{}}\n]{{1,100}}\}}|\{{\$\w{{1,60}}\}}|\$t\([^()\n]{{1,100}}\)|@:\([\w.]{{1,80}}\)|@:[\w.]{{0,80}}\w"
    rf"|%\({_ARGUMENT}\){_CONVERSION}|%\d{{1,2}}\${_CONVERSION}|%\d:[sdnfmx]\b|%\#@\w{{1,60}}@|\$[A-Z][A-Z0-9_]{{1,60}}\$",
    "ordered": r"\{\}|\{:[^{}\s]{1,20}\}|(?<![\d%])(?<!\d[\s\u00a0\u202f])%" + _CONVERSION + r"(?!\p{L}{2})",
    "mark": r"@@PH\d{1,4}@@|⟦[^⟦⟧\s]{1,20}⟧|(?<!\w)__\d{1,4}__(?!\w)|(?<![\w:]):[a-z][a-z0-9_+-]{1,40}:(?![\w:])",
    "url": r"\b(?:https?|ftps?|sftp|file|ssh|git|wss?|s3)://[^\s<>\"«»“”`]{1,2000}+|\b(?:mailto|tel|doi):[\w@.+/%()-]{3,200}+"
    r"|(?<![\w.])www\.[^\s<>\"«»“”`]{1,2000}+",
    "mail": r"(?<![\w.+-])[\w.+-]{1,64}+@\w[\w-]{0,62}+(?:\.\w[\w-]{0,62}+){1,8}+",
    "handle": r"(?<![\w@./])@[A-Za-z_]\w{1,38}(?!\w)",
    "path": r"(?<![\w./~])(?:~|\.{1,2})?/[\w.@+-]{1,100}+(?:/[\w.@+-]{1,100}+){1,40}+/?"
    r"|(?<!\w)[A-Za-z]:\\[\w.\\@+-]{1,400}+",
    "file": rf"(?<![\w.-])[\w-]{{1,80}}+(?:\.[\w-]{{1,40}}+)*?\.(?:{_FILES})(?![\w-])",
    "uuid": r"\b[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\b",
    "hash": r"\b(?=[0-9a-f]{0,63}\d)(?=[0-9a-f]{0,63}[a-f])(?:0x)?[0-9a-f]{7,128}\b",
    "ip": r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?![\w]|\.\d)",
    "version": r"(?<![\w.])(?:v\d{1,5}(?:\.\d{1,6}){0,4}|(?!\d{1,2}\.\d{1,2}\.\d{4}|\d{1,3}(?:\.\d{3}){2,6}(?!\d))"
    r"\d{1,5}(?:\.\d{1,6}){2,4})(?:[-+][\w.]{0,40}\w)?(?![\w]|\.\d)",
    "phone": r"(?<![\w+])\+\d{1,3}(?:[\s.\u00a0-]?\(?\d{1,4}\)?){2,6}(?!\w)"
    r"|(?<![\w.])(?<!\d[ .\u00a0\u202f-])0\d(?:[ .\u00a0\u202f-]\d{2}){4}(?!\d)",
    "call": r"(?<![\w.])[\w.]{1,100}+\(\)",
    "flag": r"(?<![\w-])--[A-Za-z][\w-]{0,60}(?:=[^\s,;]{1,100})?",
    "variable": r"\$[A-Z_][A-Z0-9_]{3,60}(?![A-Za-z])",
    "name": r"(?<![\w'’])(?=\w{0,60}\p{L})(?:\w{1,60}?_\w{1,60}|_\w{1,60})(?!\w)"
    r"|(?<![\w'’])\p{Ll}{1,40}\p{Lu}\w{1,40}(?!\w)",
    "number": r"(?<![\w-])(?=[A-Z0-9-]{0,40}\d)(?=[A-Z0-9-]{0,40}[A-Z])[A-Z0-9]{1,20}(?:-[A-Z0-9]{1,20}){1,6}(?![\w-])"
    r"|(?<![\w-])[A-Z]{1,4}\d{3,20}[A-Z0-9]{0,20}(?![\w-])",
}
_MORE = {
    Profile.PRINTF: {"ordered": r"%[ '](?:\d{0,4}(?:\.\d{1,3})?)[diouxXeEfFgGcsp]|%%|%n"},
    Profile.QT: {"argument": r"%L?\d{1,2}|%n"},
    Profile.SHELL: {"variable": r"\$\w{1,60}"},
    Profile.TEX: {"code": r"\$[^$\n]{1,400}\$|\\[A-Za-z]{1,40}\*?(?:\[[^\]\n]{0,100}\])?(?:\{[^{}\n]{0,200}\})?"},
    Profile.WIKI: {"code": r"\[\[[^\[\]\n]{1,200}\]\]|\{\{[^{}\n]{1,400}\}\}"},
    Profile.BBCODE: {"tag": r"\[/?[A-Za-z*]{1,20}(?:=[^\[\]\n]{1,200})?\]"},
}
# What every text with a hold has. Most texts have nothing of it, so that they are looked at but once.
_MAY_HOLD = regex.compile(
    r"[%{$<@`_\\⟦&\[]|/\S|--\p{L}|:[a-z]|\p{Ll}\p{Lu}|\.[a-z]|\.\d+\.\d|\d[a-f]|[a-f]\d"
    r"|\w\(\)|[A-Z0-9]-[A-Z0-9]|[A-Zv]\d|\+\d|\b0\d[ .\u00a0\u202f-]\d"
)
_CHOICE = regex.compile(r"\{\s?\w{1,60}\s?,\s?(?:plural|select|selectordinal)\s?,")
_BRACE = regex.compile(r"[{}]")
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_END = ".,;:!?…'’\"*"  # what belongs to the sentence around an address


def find(text: str, profile: Profile = Profile.AUTO, preserve: Sequence[str] = ()) -> list[Hold]:
    """The holds of a text, in order; none overlaps another. `preserve`: words and phrases that are holds, too, where
    they stand as whole words, in this spelling."""
    named = () if not preserve else tuple(sorted(set(filter(None, preserve)), key=len, reverse=True))
    may_hold = profile is not Profile.OFF and (profile is not Profile.AUTO or _MAY_HOLD.search(text))
    if not may_hold and not any(each in text for each in named):
        return []
    found: list[Hold] = []
    at = 0
    choices = _choices(text) if may_hold and "{" in text else []
    matches = _matches(text, profile if may_hold else Profile.OFF, named)
    for hold in _merged(choices, matches):
        if hold.start >= at:
            found.append(hold)
            at = hold.end
    return found


def _merged(choices: Iterable[Hold], others: Iterable[Hold]) -> list[Hold]:
    return sorted([*choices, *others], key=lambda hold: (hold.start, -hold.end))


def _matches(text: str, profile: Profile, named: tuple[str, ...]) -> Iterator[Hold]:
    for match in _pattern(profile, named).finditer(text):
        start, end = match.span()
        kind = match.lastgroup or ""
        if kind in ("url", "mail"):
            end = _address_end(text, start, end)
        if end > start:
            yield Hold(start, end, kind, kind in ("ordered", "tag"))


@cache
def _alternatives(profile: Profile) -> str:
    if profile is Profile.OFF:
        return ""
    more = _MORE.get(profile, {})
    kinds = {kind: "|".join(filter(None, (more.get(kind), pattern))) for kind, pattern in _KINDS.items()}
    return "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items())


@cache
def _profile_pattern(profile: Profile) -> regex.Pattern[str]:
    return regex.compile(_alternatives(profile) or r"(?!)")


def _pattern(profile: Profile, named: tuple[str, ...]) -> regex.Pattern[str]:
    if not named:
        return _profile_pattern(profile)
    words = "|".join(
        (r"(?<!\w)" if each[0].isalnum() else "") + regex.escape(each) + (r"(?!\w)" if each[-1].isalnum() else "")
        for each in named
    )
    alternatives = _alternatives(profile)
    return regex.compile(f"(?P<preserved>{words})" + (f"|{alternatives}" if alternatives else ""))


def _address_end(text: str, start: int, end: int) -> int:
    """Where an address ends: without the marks of the sentence behind it, and without a bracket that it does not
    open."""
    while end > start:
        last = text[end - 1]
        opening = _CLOSERS.get(last)
        if last not in _END and (opening is None or text.count(last, start, end) <= text.count(opening, start, end)):
            break
        end -= 1
    return end


def _choices(text: str) -> list[Hold]:
    """Arguments of ICU that hold texts of their own, each up to its closing brace."""
    starts = {match.start() for match in _CHOICE.finditer(text)}
    found: list[Hold] = []
    is_open: list[int] = []
    for brace in _BRACE.finditer(text) if starts else ():
        if brace.group() == "{":
            is_open.append(brace.start())
        elif is_open and (start := is_open.pop()) in starts:
            found.append(Hold(start, brace.end(), "argument"))
    return found
