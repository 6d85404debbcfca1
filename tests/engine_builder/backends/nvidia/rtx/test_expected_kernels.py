"""What is expected of TensorRT-RTX before it builds, against the plans that its builder makes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import LayerSizes
from engine_builder.backends.gpu.catalogue import gpu_by_name
from engine_builder.backends.nvidia.roofline import kernel_milliseconds
from engine_builder.backends.nvidia.rtx.expected_kernels import expected_kernels, expected_milliseconds

GPU = gpu_by_name("RTX 4090")
SMALL = LayerSizes((1, 16, 8, 8), (16, 16, 3, 3), (1, 16, 8, 8))
LARGE = LayerSizes((32, 512, 28, 28), (512, 512, 3, 3), (32, 512, 28, 28))
# A process of its own: the builder's one logger stays.
CHAIN = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
from benchmarks.kinds.network_builder import NetworkBuilder
from benchmarks.plan_cases import assignment_of, ranges_of
from benchmarks.plan_models import Network
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import save_model
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.config.config import ShapeRange
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
make, rng = NetworkBuilder(), np.random.default_rng(0)
x = "input"
for place in range(4):
    x = make.convolution(x, (rng.standard_normal((32, 32, 3, 3)) / 17).astype(np.float32), np.zeros(32, np.float32))
    x = make.node("Relu", x, to="y" if place == 3 else None)
model = prepare(make.model({"input": ("N", 32, 16, 16)}, {"y": ("N", 32, 16, 16)})).model
layers, samples = find_layers(model), {"input": rng.standard_normal((2, 32, 16, 16)).astype(np.float32)}
network = Network("chain", model, layers, 2, samples, None, "")
backend, sizes = TensorRtRtxBackend("RTX 4090"), (4, 32, 16, 16)
explicit = rewrite_tensorrt(model, layers, assignment_of(network, sys.argv[1]), ranges_of(network))
with tempfile.TemporaryDirectory() as folder:
    save_model(explicit, Path(folder, "m.onnx"))
    shapes = {"input": ShapeRange(sizes, sizes, sizes)}
    kernels = backend.build(Path(folder, "m.onnx"), Path(folder, "e.plan"), shapes=shapes).kernels_at_opt
found = [(one.kind, [t.dtype for t in one.inputs], [t.dtype for t in one.outputs]) for one in kernels]
print(json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.FP8])
def test_the_kernels_between_convolutions_are_those_that_the_builder_makes(precision: Precision) -> None:
    done = subprocess.run([sys.executable, "-c", CHAIN, f"all {precision}"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    built = [(kind, inputs[0], outputs) for kind, inputs, outputs in json.loads(done.stdout.splitlines()[-1])]
    wanted = [(one.kind, one.inputs[0].dtype, [one.outputs[0].dtype]) for one in expected_kernels(SMALL, precision)]
    first = next(place for place, (kind, *_) in enumerate(built) if kind == "correlation")
    assert built[first : first + 2 * len(wanted)] == wanted * 2  # the second convolution like the first


def test_a_small_convolution_pays_two_launches_and_a_large_one_gains() -> None:
    def ratio(layer: LayerSizes) -> float:
        (before,) = expected_milliseconds([layer], Precision.FP16, GPU) or ()
        (after,) = expected_milliseconds([layer], Precision.INT8, GPU) or ()
        return after / before

    assert 1.8 < ratio(SMALL) < 2.2
    assert ratio(LARGE) < 0.9


def test_times_of_many_are_those_of_their_kernels_together() -> None:
    layers = [SMALL, LARGE, SMALL]
    times = expected_milliseconds(layers, Precision.INT8, GPU)
    kernels = [kernel for layer in layers for kernel in expected_kernels(layer, Precision.INT8)]
    assert times is not None
    assert len(times) == 3
    assert sum(times) == pytest.approx(sum(kernel_milliseconds(kernels, GPU)))


@pytest.mark.parametrize("precision", [Precision.INT4, Precision.BF16])
def test_nothing_is_said_of_other_precisions(precision: Precision) -> None:
    assert expected_milliseconds([SMALL], precision, GPU) is None
