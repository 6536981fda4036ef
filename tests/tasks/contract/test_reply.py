from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given

from tasks.contract.errors import Code
from tasks.contract.reply import (
    FAILURE_BYTES,
    REPLY_BYTES,
    AlternativeResult,
    Failure,
    Flag,
    RequestTimings,
    SentenceResult,
    TextResult,
    TranslateReply,
)
from tests.tasks.contract.messages import REPLY, over_the_wire, refusal, replies


def test_flags_and_codes_of_a_newer_release_do_no_harm() -> None:
    reply = over_the_wire(REPLY.encode())
    reply["results"][0]["flags"] = ["SPLIT", "SHINY"]
    reply["error"] = {"code": "NEW", "message": "m", "retry_after": None}
    assert TranslateReply.decode(reply) == replace(
        REPLY, results=(replace(REPLY.results[0], flags=(Flag.SPLIT,)),), error=Failure(Code.INTERNAL, "m")
    )


def test_a_reply_of_an_earlier_release_tells_no_load() -> None:
    reply = over_the_wire(replace(REPLY, timings=RequestTimings(1.0, load=2.0)).encode())
    del reply["timings"]["load"]
    assert TranslateReply.decode(reply) == replace(REPLY, timings=RequestTimings(1.0))


def test_a_reply_of_an_earlier_release_has_no_sentences() -> None:
    reply = over_the_wire(REPLY.encode())
    del reply["results"][0]["sentences"]
    assert TranslateReply.decode(reply) == REPLY


def test_a_reply_of_an_earlier_release_tells_no_tokens() -> None:
    reply = over_the_wire(replace(REPLY, tokens=5.0).encode())
    assert TranslateReply.decode(reply).tokens == 5.0
    del reply["tokens"]
    assert TranslateReply.decode(reply).tokens is None


@pytest.mark.parametrize("span", [None, [], [1], [1, 2, 3], [2, 1], [-1, 1], ["1", "2"], [0.0, 1.0]])
def test_a_span_is_a_start_and_an_end(span: object) -> None:
    reply = over_the_wire(REPLY.encode())
    reply["results"][0]["sentences"] = [{"source": [0, 1], "target": span, "score": 0.0, "flags": []}]
    refusal(lambda: TranslateReply.decode(reply))


def dense(characters: int) -> TextResult:
    """A text each of whose characters is a sentence, in a script of which JSON spells each in twelve bytes."""
    flags = tuple(Flag)
    sentences = tuple(SentenceResult((n, n + 1), (n, n + 1), -0.12345678901234567, flags) for n in range(characters))
    return TextResult(
        "\U0001f600" * characters, -1.0, (AlternativeResult("\u4e00" * characters, -1.0),), flags, sentences
    )


def test_a_reply_that_is_too_long_fails_the_texts_that_do_not_fit() -> None:
    reply = replace(REPLY, results=(dense(20_000), dense(40_000), TextResult("un"), dense(40_000)))
    fitting = reply.fitting()
    assert len(json.dumps(fitting.encode())) < 8 * 2**20
    assert [result.error is None for result in fitting.results] == [True, False, True, False]
    assert fitting.results[1].error is not None
    assert fitting.results[1].error.code is Code.BAD_INPUT
    assert "in parts" in fitting.results[1].error.message
    assert fitting.results[2] == reply.results[2]


def test_what_fails_takes_little_room() -> None:
    reply = TranslateReply("m", results=(dense(1_000),) * 128).fitting(room=4096)
    assert len(json.dumps(reply.encode()["results"])) < 128 * FAILURE_BYTES


@given(replies)
def test_a_reply_that_fits_stays_as_it_is(reply: TranslateReply) -> None:
    assert len(json.dumps(reply.encode())) < REPLY_BYTES
    assert reply.fitting() is reply
    if reply.results:
        assert len(reply.fitting(room=0).results) == len(reply.results)
