from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.contract.request import RequestOptions, TranslateRequest
from tests.tasks.contract.messages import REQUEST, refusal


@pytest.mark.parametrize("name", ["v", "texts", "target", "model", "options", "priority", "deadline"])
def test_a_missing_field_is_named(name: str) -> None:
    payload = REQUEST.encode()
    del payload[name]
    assert refusal(lambda: TranslateRequest.decode(payload)).startswith("request" if name == "v" else name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", 2),
        ("texts", "un"),
        ("texts", [1]),
        ("texts", {"0": "un"}),
        ("target", None),
        ("deadline", True),
        ("deadline", "1"),
        ("deadline", float("nan")),
        ("deadline", float("inf")),
        ("deadline", 10**400),
        ("priority", "urgent"),
        ("priority", ["bulk"]),
        ("options", None),
        ("options", {"beam": 0, "nbest": 0, "length_penalty": 1}),
        ("options", {"beam": 65, "nbest": 1, "length_penalty": 1}),
        ("options", {"beam": 1, "nbest": 2, "length_penalty": 1}),
        ("options", {"beam": 1.0, "nbest": 1, "length_penalty": 1}),
        ("options", {"beam": 1, "nbest": 1, "length_penalty": float("inf")}),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: Any) -> None:
    refusal(lambda: TranslateRequest.decode({**REQUEST.encode(), name: value}))


def test_a_whole_number_is_a_number() -> None:
    decoded = TranslateRequest.decode({**REQUEST.encode(), "deadline": 5})
    assert (decoded.deadline, type(decoded.deadline)) == (5.0, float)


def test_options_that_nobody_has_chosen_are_named_beside_values_for_earlier_releases() -> None:
    encoded = replace(REQUEST, options=RequestOptions(unset=("beam",))).encode()
    assert encoded["options"] == {"beam": 1, "nbest": 1, "length_penalty": 1.0, "unset": ["beam"]}
    assert TranslateRequest.decode(encoded).options.unset == ("beam",)
    del encoded["options"]["unset"]  # as a web tier of an earlier release sends it
    assert TranslateRequest.decode(encoded).options.unset == ()


def test_a_request_of_an_earlier_release_names_no_caller() -> None:
    payload = REQUEST.encode()
    del payload["caller"]
    assert TranslateRequest.decode(payload).caller is None


def test_an_earlier_release_is_not_disturbed_by_what_it_does_not_know() -> None:
    assert TranslateRequest.decode({**REQUEST.encode(), "new": {"a": 1}}) == REQUEST
