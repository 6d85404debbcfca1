"""The one-line quantizers that every user of onnxruntime has at hand, called as its documentation shows."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.kinds.case import Array, Samples

BLOCK = 32  # weights that share a scale: the size that onnxruntime's own tools take
COMPUTE_IN_INT8 = 4  # MatMulNBits' accuracy_level

Quantizer = Callable[[Path, Path, Samples, int], None]


def static(model: Path, output: Path, samples: Samples, batch: int, *, reduce_range: bool = False) -> None:
    """Write everything in int8 that ``quantize_static`` takes: U8S8, per channel, min-max ranges, Q/DQ.

    Args:
        model: The user's file.
        output: Where to write; ``<name>.prepared`` is left beside it.
        samples: Calibration samples as the network takes them, samples first.
        batch: Samples of one call.
        reduce_range: Whether weights get 7 bits, whose products no processor without VNNI cuts off.
    """
    prepared = output.with_name(output.name + ".prepared")
    with _quiet():
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(output),
            _Calls(samples, batch),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=reduce_range,
            calibrate_method=CalibrationMethod.MinMax,
        )


def dynamic(model: Path, output: Path, samples: Samples, batch: int) -> None:
    """Write what ``quantize_dynamic`` makes, weights per channel; ``samples`` and ``batch`` are not needed."""
    with _quiet():
        quantize_dynamic(str(model), str(output), per_channel=True)


def dynamic_exact(model: Path, output: Path, samples: Samples, batch: int) -> None:
    """Write what ``quantize_dynamic`` makes with ``reduce_range``: weights of 7 bits, whose products no processor without VNNI cuts off."""
    with _quiet():
        quantize_dynamic(str(model), str(output), per_channel=True, reduce_range=True)


def blocks8(model: Path, output: Path, samples: Samples, batch: int) -> None:
    """Write the model with the weights of matrix products in blocks of 8 bits (MatMulNBits)."""
    _blocks(model, output, 8)


def blocks4(model: Path, output: Path, samples: Samples, batch: int) -> None:
    """Write the model with the weights of matrix products in blocks of 4 bits (MatMulNBits)."""
    _blocks(model, output, 4)


QUANTIZERS: Mapping[str, Quantizer] = {
    "quantize_static": static,
    "quantize_static, 7 bits": partial(static, reduce_range=True),
    "quantize_dynamic": dynamic,
    "quantize_dynamic, 7 bits": dynamic_exact,
    "MatMulNBits, 8 bits": blocks8,
    "MatMulNBits, 4 bits": blocks4,
}


def _blocks(model: Path, output: Path, bits: int) -> None:
    with _quiet():
        quantizer = MatMulNBitsQuantizer(str(model), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=COMPUTE_IN_INT8)
        quantizer.process()
        onnx.save(quantizer.model.model, output)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the quantizers print and log off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class _Calls(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands over one call after another; a last one that is not full is left out, unless it is the only one."""

    def __init__(self, samples: Samples, batch: int) -> None:
        count = len(next(iter(samples.values())))
        whole = max(count // batch, 1)
        self._calls = iter([{name: array[batch * k : batch * (k + 1)] for name, array in samples.items()} for k in range(whole)])

    def get_next(self) -> dict[str, Array] | None:
        """Return the next call, None after the last."""
        return next(self._calls, None)
