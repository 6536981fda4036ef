"""Translation through another language: the next model translates what the one before has made of the texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace

from app.translation.alignment import align, unite
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import MESSAGE_BYTES
from tasks.contract.reply import AlternativeResult, Failure, RequestTimings, TextResult, TranslateReply
from tasks.contract.request import Holds, TranslateRequest

ROOM = MESSAGE_BYTES - 64 * 1024  # bytes of a message that its texts may take

_TRIES = 3  # of a leg, while old and new workers are there side by side
_RETRY_AFTER = 10.0  # seconds

Ask = Callable[[TranslateRequest], TranslateReply]


def translate(legs: Sequence[TranslateRequest], ask: Ask) -> TranslateReply:
    """Asks for each leg in turn: the texts of a leg after the first are the translations of the leg before. Returns one
    reply from the first leg's texts to the last leg's language.

    A text that fails keeps its error and is not translated further. A leg without texts is not asked for. Raises what
    `ask` raises.
    """
    first, *onward = legs
    reply = _ask(first, ask)
    for leg in onward:
        reply = _go_on(reply, first.texts, leg, ask)
    return reply


def _ask(leg: TranslateRequest, ask: Ask) -> TranslateReply:
    """The reply of a model. Where a worker of an earlier release has answered, which does not know an option that the
    caller chose, another one may: it is asked for again. Raises TolkError(UNAVAILABLE) if none did."""
    for _ in range(_TRIES):
        reply = ask(leg)
        missing = [name for name in _chosen(leg) if name not in reply.honoured]
        if not missing or not any(result.error is None for result in reply.results):
            return reply
    raise TolkError(
        Code.UNAVAILABLE,
        f"The workers that answer are of an earlier release, which does not know {', '.join(missing)}. "
        "Try again when they have been updated, or leave it out.",
        _RETRY_AFTER,
    )


def _chosen(leg: TranslateRequest) -> list[str]:
    """The options that a worker has to know, because they are not what every release does or at least should do."""
    options = {"holds": leg.holds is not Holds.AUTO, "preserve": bool(leg.preserve)}
    return [name for name, is_chosen in options.items() if is_chosen]


def _go_on(reply: TranslateReply, texts: Sequence[str], leg: TranslateRequest, ask: Ask) -> TranslateReply:
    halfway = fitting(reply.results)
    sent = tuple(result.text for result in halfway if result.text is not None)
    further = _ask(replace(leg, texts=sent), ask) if sent else TranslateReply(leg.model)
    results = iter(further.results)
    return TranslateReply(
        model=f"{reply.model}+{further.model}",
        version=f"{reply.version}+{further.version}" if sent else None,
        via=(*reply.via, leg.source or ""),
        worker=f"{reply.worker}+{further.worker}" if sent else reply.worker,
        results=tuple(
            result if result.text is None else join(text, result, next(results), leg.options.nbest - 1)
            for text, result in zip(texts, halfway, strict=True)
        ),
        timings=RequestTimings(
            *(
                getattr(reply.timings, each.name) + getattr(further.timings, each.name)
                for each in fields(RequestTimings)
            )
        ),
    )


def fitting(results: Iterable[TextResult]) -> list[TextResult]:
    """The results, with a failure for each that does not fit into a message: translations may be longer than their
    texts."""
    fitting, room = [], ROOM
    for result in results:
        size = len(json.dumps(result.text)) + len(", ")
        if result.text is not None and size > room:
            message = "The text's first translation is too long to be translated further. Send the text in parts."
            fitting.append(TextResult(error=Failure(Code.BAD_INPUT, message)))
        else:
            fitting.append(result)
            room -= size
    return fitting


def join(text: str, first: TextResult, second: TextResult, alternatives: int) -> TextResult:
    """The result of a text by both translations, with alternatives of the second. Their scores, as logarithms of
    probabilities, are added."""
    if second.text is None:
        return second
    scores = [score for score in (first.score, second.score) if score is not None]
    return TextResult(
        text=second.text,
        score=sum(scores) if scores else None,
        alternatives=tuple(
            AlternativeResult(each.text, each.score + (first.score or 0.0))
            for each in second.alternatives[:alternatives]
        ),
        flags=unite([first.flags, second.flags]),
        sentences=align(first.sentences, second.sentences, text, second.text),
    )
