from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from models.compiled import gemm
from models.errors import BadInput, Unavailable
from models.network.precision import load

if TYPE_CHECKING:
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
    ("bytes_are_fast", "halves_are_fast", "chosen"),
    [(True, True, "int8"), (True, False, "int8"), (False, True, "bfloat16"), (False, False, "float32")],
)
def test_auto_takes_what_this_processor_is_fast_in(
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    bytes_are_fast: bool,
    halves_are_fast: bool,
    chosen: str,
) -> None:
    monkeypatch.setattr(gemm, "is_fast", lambda: bytes_are_fast)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: halves_are_fast)
    assert load(make_model()).precision == chosen
