from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.contract.errors import Code
from tasks.contract.reply import (
    Failure,
    Flag,
    RequestTimings,
    TranslateReply,
)
from tests.tasks.contract.messages import REPLY, over_the_wire, refusal


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
