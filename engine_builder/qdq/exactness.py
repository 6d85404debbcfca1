"""What an engine for ONNX Runtime's CPU provider says of itself: on which processors its integer layers compute what was measured.

Weights that keep the pair bound (``calibration.number_formats.pair_bound``) are multiplied exactly by every processor's kernels. Others
need kernels that add in 32 bits: VNNI in one of its forms (AVX-VNNI, AVX512-VNNI, AMX) on x86-64, any ARM64. Elsewhere the engine runs, but
large sums saturate.
"""

from __future__ import annotations

from pathlib import Path

import onnx

EXACT_ON = "onnx_trt_optimizer.exact_on"  # key in the model's metadata
_ANYWHERE = "any x86-64 or ARM64 processor"
_WIDE = "x86-64 processors with VNNI (AVX-VNNI, AVX512-VNNI, AMX) and ARM64 processors; elsewhere large sums saturate"


def exact_on(*, is_saturable: bool) -> str:
    """Return the processors that an engine is exact on, in words.

    Args:
        is_saturable: Whether some of its weights break the pair bound.
    """
    return _WIDE if is_saturable else _ANYWHERE


def engine_exact_on(engine: Path) -> str | None:
    """Return what an engine's file says of where it is exact; None for one without integer layers, and for a plan.

    Args:
        engine: The file.
    """
    if engine.suffix != ".onnx":
        return None
    model = onnx.load_model(engine, load_external_data=False)
    return next((entry.value for entry in model.metadata_props if entry.key == EXACT_ON), None)
