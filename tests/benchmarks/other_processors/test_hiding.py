from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.other_processors.hiding import Hidden, hiding, hindrance, without

CPUINFO = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: avx2 avx512f avx512_vnni avx_vnni amx_int8 cpuid_fault\n\nprocessor\t: 1\n"
# Sums of 256 products of 255 by 127: in 16 bits each pair of them is cut off. The environment is empty, as that of a stage's process.
SATURATES = """
import numpy as np, onnx.parser, onnxruntime
model = onnx.parser.parse_model('''
<ir_version: 8, opset_import: ["" : 17]>
products (uint8[64,256] a, int8[256,64] b) => (int32[64,64] y) { [product] y = MatMulInteger(a, b) }
''')
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
found = session.run(None, {"a": np.full((64, 256), 255, np.uint8), "b": np.full((256, 64), 127, np.int8)})[0]
flags = open("/proc/cpuinfo").read()
print(int(found[0, 0]), "avx512f" in flags, "vnni" in flags)
"""


@pytest.mark.parametrize(
    ("hidden", "flags"),
    [(Hidden.VNNI, "avx2 avx512f cpuid_fault"), (Hidden.AVX512, "avx2 cpuid_fault")],
)
def test_the_list_of_processors_says_what_programs_find(hidden: Hidden, flags: str) -> None:
    assert without(hidden, CPUINFO) == f"processor\t: 0\nmodel name\t: Xeon\nflags\t\t: {flags}\n\nprocessor\t: 1\n"


@pytest.mark.skipif(hindrance() is not None, reason=str(hindrance()))
@pytest.mark.parametrize("hidden", list(Hidden))
def test_integer_products_saturate_where_their_instructions_are_hidden(tmp_path: Path, hidden: Hidden) -> None:
    command = hiding(hidden, ["env", "-i", sys.executable, "-c", SATURATES], tmp_path)
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    total, avx512, vnni = found.stdout.split()
    assert int(total) == 256 // 2 * 32767
    assert vnni == "False"
    assert avx512 == "False" or hidden is Hidden.VNNI


@pytest.mark.skipif(hindrance() is not None, reason=str(hindrance()))
def test_a_program_still_catches_faults_of_its_own(tmp_path: Path) -> None:
    program = "import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)"
    command = hiding(Hidden.VNNI, [sys.executable, "-c", program], tmp_path)
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Fatal Python error: Segmentation fault" in found.stderr
    assert found.returncode != 0


@pytest.mark.skipif(hindrance() is not None, reason=str(hindrance()))
@pytest.mark.parametrize("program", ["import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "import ctypes; ctypes.string_at(0)"])
def test_a_fault_that_nobody_catches_ends_a_program(tmp_path: Path, program: str) -> None:
    found = subprocess.run(hiding(Hidden.VNNI, [sys.executable, "-c", program], tmp_path), timeout=60, check=False)
    assert found.returncode == -signal.SIGSEGV
