"""The rows of the texts that a job is given: which of them models are asked for, and what is known of the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.jobs.job import State
from app.translation import limits
from app.translation.context import Context
from app.translation.outcome import Origin, origin_at
from app.translation.parts import Division, divide
from tasks.contract.errors import Code
from tasks.contract.fields import plain
from tasks.contract.reply import Failure, TextResult
from text.characters import REFUSED, refusal


@dataclass(frozen=True, slots=True)
class GivenTexts:
    """Texts of one call as rows of the table job_segment, but for the job. `characters` are those of the texts that
    models are asked for; these are `waiting`. `models` are the names of the ways that they take."""

    rows: tuple[dict[str, Any], ...]
    source: str | None
    target: str
    models: tuple[str, ...]
    characters: int

    def count(self, state: State) -> int:
        return sum(row["state"] == state for row in self.rows)


def given(
    context: Context,
    texts: Sequence[str],
    first: int,
    *,
    source: str | None,
    target: str,
    model: str | None,
    assume: str | None,
) -> GivenTexts:
    """The texts of a job from the position `first` on. A text that is too long, or is no well-formed Unicode, has a
    failure as its result. Raises TolkError as app.translation.parts.divide does."""
    failures = [_failure(context, text) for text in texts]
    accepted = [text for text, failure in zip(texts, failures, strict=True) if failure is None]
    division = divide(
        accepted, context.registry, context.detector, source=source, target=target, model=model, assume=assume
    )
    rows = _accepted(division, accepted)
    all_rows = tuple(
        (next(rows) if failure is None else _settled(text, Origin(), TextResult(error=failure))) | {"position": at}
        for at, (text, failure) in enumerate(zip(texts, failures, strict=True), first)
    )
    return GivenTexts(
        rows=all_rows,
        source=None if division.detected or not division.parts else division.parts[0].way[0].pair.source,
        target=division.target,
        models=tuple("+".join(leg.model.name for leg in part.way) for part in division.parts),
        characters=sum(len(row["text"]) for row in all_rows if row["state"] == State.WAITING),
    )


def merged(models: str | None, more: Iterable[str]) -> str | None:
    """The names of models, with commas, with those of further texts."""
    return ", ".join(dict.fromkeys([*(models.split(", ") if models else ()), *more])) or None


def _failure(context: Context, text: str) -> Failure | None:
    if (failure := limits.check_text(text, context.settings)) is not None:
        return failure
    reason = refusal(text)
    return None if reason is None else Failure(Code.BAD_INPUT, reason)


def _accepted(division: Division, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    sources = {at: part.way[0].pair.source for part in division.parts for at in part.positions}
    for at, text in enumerate(texts):
        if at in division.settled:
            yield _settled(text, origin_at(division, at), division.settled[at])
        else:
            origin = origin_at(division, at, sources[at])
            yield {"state": State.WAITING, "source": sources[at], "text": text, "origin": _json(origin), "result": None}


def _settled(text: str, origin: Origin, result: TextResult) -> dict[str, Any]:
    """The row of a text that no model is asked for. A database stores neither NUL nor lone surrogates."""
    return {
        "state": State.TRANSLATED if result.error is None else State.FAILED,
        "source": None,
        "text": REFUSED.sub("\N{REPLACEMENT CHARACTER}", text),
        "origin": _json(origin),
        "result": _json(result),
    }


def _json(value: Origin | TextResult) -> str:
    return json.dumps(plain(value), ensure_ascii=False)
