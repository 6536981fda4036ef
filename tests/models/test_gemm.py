"""Products in our own machine code, against NumPy's."""

import numpy as np
import pytest

from models.gemm import Packed, multiply


@pytest.mark.skipif(multiply() is None, reason="the processor has no AVX-512 VNNI")
@pytest.mark.parametrize("rows", [*range(1, 14), 64])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (100, 4), (1, 8), (129, 256)])
def test_sums_are_exact(rows: int, outputs: int, inputs: int) -> None:
    chance = np.random.default_rng(rows)
    x = chance.integers(-128, 128, (rows, inputs + 12), dtype=np.int8)  # rows lie apart
    weights = chance.integers(-128, 128, (outputs, inputs), dtype=np.int8)
    packed = Packed(weights, multiply())
    sums = np.full((rows + 1, packed.outputs), -1, np.int32)

    packed(rows, x.ctypes.data, x.strides[0], sums.ctypes.data)

    assert packed.outputs % 64 == 0
    expected = x[:, :inputs].astype(np.int32) @ weights.T.astype(np.int32)
    assert np.array_equal(sums[:rows, :outputs], expected)
    assert (sums[rows] == -1).all()  # nothing is written behind the last row
