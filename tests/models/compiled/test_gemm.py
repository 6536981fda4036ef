"""Products with the instructions of several processors, compared with NumPy's products."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.compiled import gemm

FLAGS = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
PROCESSORS = {  # LLVM's names, and the features that this processor needs to run code compiled for them
    "AVX2": ("haswell", "+avx,+avx2,+fma", {"avx2", "fma"}),
    "AVX-VNNI": ("alderlake", "+avx,+avx2,+fma,+avxvnni", {"avx2", "fma", "avx_vnni"}),
    "none of them": ("x86-64", "+sse2", set[str]()),
}
ROOT = Path(__file__).parents[3]


def check(rows: int, outputs: int, inputs: int, *, tiles: bool) -> None:
    chance = np.random.default_rng(rows)
    room = -(-rows // gemm.ROWS) * gemm.ROWS
    x = chance.integers(-128, 128, (room, inputs + 64), dtype=np.int8)  # there are gaps between rows
    weights = chance.integers(-128, 128, (outputs, inputs), dtype=np.int8)
    sums = np.full((room + 1, outputs), -1, np.int32)

    gemm.product(x, inputs, gemm.pack(weights), sums, rows, tiles)

    expected = x[:, :inputs].astype(np.int32) @ weights.T.astype(np.int32)
    np.testing.assert_array_equal(sums[:rows], expected[:rows])
    assert (sums[room] == -1).all()  # nothing is written after the last row of the memory


@pytest.mark.parametrize("tiles", [False, gemm.tiles_allowed()])
@pytest.mark.parametrize("rows", [*range(1, 20), 32, 33, 64])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (128, 64), (64, 256), (192, 320)])
def test_sums_are_exact(rows: int, outputs: int, inputs: int, tiles: bool) -> None:
    check(rows, outputs, inputs, tiles=tiles)


def test_a_group_of_packed_weights_is_packed_itself() -> None:
    weights = np.random.default_rng(0).integers(-128, 128, (192, 64), dtype=np.int8)
    begin = gemm.packed_size(64, 64)
    np.testing.assert_array_equal(gemm.pack(weights)[begin : 2 * begin], gemm.pack(weights[64:128]))


@pytest.mark.timeout(600)  # a process compiles, whatever else the machine does
@pytest.mark.parametrize("processor", PROCESSORS)
def test_sums_are_exact_with_the_instructions_of_other_processors(processor: str) -> None:
    name, features, needed = PROCESSORS[processor]
    if missing := needed - FLAGS:
        pytest.skip(f"this processor has no {', '.join(missing)}")
    program = (
        "from tests.models.compiled.test_gemm import check\n"
        "for rows in (1, 2, 3, 17): check(rows, 128, 320, tiles=True)\n"
        "print('exact')"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert ran.stdout == "exact\n", ran.stderr


@pytest.mark.skipif(not gemm.is_fast(), reason="the processor has nothing for bytes")
def test_a_processor_with_instructions_for_bytes_is_known() -> None:
    assert {"avx2", "avx512_vnni", "avx_vnni"} & FLAGS
    assert not gemm.tiles_allowed() or "amx_int8" in FLAGS
