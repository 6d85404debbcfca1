"""An assignment as a script for Polygraphy: ``polygraphy run MODEL --trt --int8 --fp16 --trt-network-postprocess-script FILE``.

The script's ``postprocess(network)`` gives each layer its precision, and the outputs of a float layer its type. TensorRT 10 and older take
precisions of layers; newer versions have them in the graph, and need a job's ``model.explicit.onnx`` instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from calibration.number_formats.precision import Precision

_TYPES = {
    Precision.FP32: "float32",
    Precision.FP16: "float16",
    Precision.BF16: "bfloat16",
    Precision.INT8: "int8",
    Precision.FP8: "fp8",
    Precision.INT4: "int4",
}
_FLAGS = {Precision.FP16: "--fp16", Precision.BF16: "--bf16", Precision.INT8: "--int8", Precision.FP8: "--fp8", Precision.INT4: "--int4"}
_SCRIPT = '''"""Precisions of layers, for TensorRT 10 or older.

    polygraphy run MODEL --trt {flags}--precision-constraints obey --trt-network-postprocess-script THIS_FILE
"""

import tensorrt as trt

LAYERS = {{
{layers}}}


def postprocess(network):
    if not hasattr(trt, "BuilderFlag") or not hasattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS"):
        raise RuntimeError("this TensorRT takes no precisions of layers: give it the model with Q/DQ, model.explicit.onnx of a job")
    left = set(LAYERS)
    for layer in network:
        wanted = LAYERS.get(layer.name)
        if wanted is None:
            continue
        left.discard(layer.name)
        layer.precision = getattr(trt, wanted)
        if wanted in ("float32", "float16", "bfloat16"):
            for index in range(layer.num_outputs):
                layer.set_output_type(index, getattr(trt, wanted))
    if left:
        raise RuntimeError(f"layers that the network does not have: {{sorted(left)}}")
'''


def polygraphy_script(assignment: Mapping[str, Precision]) -> str:
    """Return the script.

    Args:
        assignment: The precision of every layer, by the name of its node.

    Raises:
        KeyError: A precision is none of TensorRT's.
    """
    used = [precision for precision in _FLAGS if precision in assignment.values()]
    layers = "".join(f"    {name!r}: {_TYPES[precision]!r},\n" for name, precision in assignment.items())
    return _SCRIPT.format(flags="".join(f"{_FLAGS[precision]} " for precision in used), layers=layers)


def has_types_of_tensorrt(precision: Precision) -> bool:
    """Return whether TensorRT has a type for the precision."""
    return precision in _TYPES
