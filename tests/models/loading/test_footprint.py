"""The computed footprint of models, compared with the memory that they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from models.engine.settings import EngineSettings
from models.errors import BadInput, UnknownModel
from models.loading.footprint import footprint
from models.local import LocalTranslator
from models.network import quantize
from models.network.int8 import Int8Marian
from models.network.marian import Marian
from models.network.precision import load

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

ONE_LANE = EngineSettings(lanes=1)


@pytest.mark.parametrize(
    "changes", [{}, {"separate": True}, {"share_encoder_decoder_embeddings": False}, {"d_model": 32}], ids=str
)
def test_quantized_weights_have_the_size_that_was_said(make_model: MakeModel, changes: dict[str, object]) -> None:
    marian = Marian.load(make_model(**changes))
    weights = cast("Int8Marian", load(make_model(**changes), precision="int8"))._weights
    arrays = {id(array): array.nbytes for array in weights if isinstance(array, np.ndarray) and array.dtype != np.int64}
    padding = quantize._HUGE_PAGE - weights.packed.nbytes
    assert quantize.size(marian) == sum(arrays.values()) - weights.banned.nbytes + padding


@pytest.mark.parametrize("precision", ["int8", "bfloat16", "float32"])
def test_a_translator_says_what_was_said_before(make_model: MakeModel, precision: str) -> None:
    with LocalTranslator.load(str(make_model()), precision=precision, settings=ONE_LANE) as translator:
        assert translator.bytes == footprint(make_model(), precision=precision, settings=ONE_LANE)


def test_more_of_anything_takes_more(make_model: MakeModel) -> None:
    tiny = footprint(make_model(), precision="bfloat16", settings=ONE_LANE)
    assert tiny < footprint(make_model(), precision="float32", settings=ONE_LANE)
    assert tiny < footprint(make_model(), precision="bfloat16", settings=EngineSettings(lanes=2))
    assert tiny < footprint(make_model(d_model=32), precision="bfloat16", settings=ONE_LANE)


def test_on_a_gpu_it_is_the_weights(make_model: MakeModel) -> None:
    marian = Marian.load(make_model())
    numbers = sum(tensor.numel() for tensor in (*marian.parameters(), *marian.buffers()))
    assert footprint(make_model(), device="cuda:0") == 2 * numbers


def test_what_cannot_be_loaded_has_none(make_model: MakeModel, directory: Path) -> None:
    (directory / "config.json").write_text("{}")
    with pytest.raises(UnknownModel, match=r"config\.json: model_type"):
        footprint(directory)
    with pytest.raises(BadInput, match="precision: 'float16'"):
        footprint(make_model(), precision="float16")


PROCESS = """
import psutil
from models.loading import heap
from models.local import LocalTranslator

def begin():
    translator = LocalTranslator.load("fr-en")
    translator.translate(["Je vais dormir."])
    return translator

def taken():
    heap.trim()
    return psutil.Process().memory_full_info().uss

for _ in range(2):  # the first one leaves compiled functions and modules in memory
    begin().close()
empty = taken()
translators = [begin(), begin()]  # these may use memory that the earlier ones have freed
some = taken()
translators += [begin() for _ in range(5)]
print((taken() - some) // 5, translators[0].bytes)
while translators:
    translators.pop().close()
print(taken() - empty)
for _ in range(6):
    begin().close()
print(taken() - empty)
"""


@pytest.mark.timeout(600)  # a process may have to compile first, whatever else the machine does
def test_a_process_takes_what_was_said_and_gives_it_back() -> None:
    found = subprocess.run([sys.executable, "-c", PROCESS], check=True, capture_output=True, text=True)
    each, said, after, after_more = map(int, found.stdout.split())
    assert each == pytest.approx(said, rel=0.25)
    assert after < said
    assert after_more < said
