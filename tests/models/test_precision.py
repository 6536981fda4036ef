from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models import precision
from models.errors import BadInput, Unavailable
from models.precision import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.models.conftest import MakeModel


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8"])
def test_a_model_is_in_the_precision_that_is_asked_for(make_model: MakeModel, name: str) -> None:
    assert load(make_model(), precision=name).precision == name


@pytest.mark.parametrize(
    ("name", "device"), [("float16", "cpu"), ("int4", "cpu"), ("", "cpu"), ("int8", "cuda"), ("float64", "cuda:0")]
)
def test_a_precision_that_the_device_does_not_have_is_refused(make_model: MakeModel, name: str, device: str) -> None:
    with pytest.raises(BadInput, match="precision"):
        load(make_model(), device=device, precision=name)


def test_a_device_that_is_not_there(make_model: MakeModel) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        load(make_model(), device="nowhere")


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [([2.0, 1.0], "int8"), ([1.0, 2.0, 0.5], "bfloat16"), ([1.0, 2.0, 3.0], "float32")],
)
def test_auto_takes_what_this_processor_is_fast_in(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, seconds: list[float], chosen: str
) -> None:
    """The product is tried in float32, in int8, and if that is not faster in bfloat16."""
    tried = iter(seconds)

    def taken(product: Callable[[], object]) -> float:
        product()
        return next(tried)

    monkeypatch.setattr(precision, "_seconds", taken)
    assert load(make_model()).precision == chosen
