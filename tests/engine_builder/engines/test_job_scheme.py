"""Which weights a job's engines have follows from this machine's kernels, or from the wish to be exact anywhere."""

from __future__ import annotations

import pytest

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision
from engine_builder.backends.base import Capabilities, Source
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.backends.onnxruntime.integer_kernels import IntegerKernels
from engine_builder.backends.target_checks import check_config
from engine_builder.config.config import ExactOn, config_from_json
from engine_builder.engines import job_scheme as module
from engine_builder.engines.job_scheme import job_scheme
from engine_builder.qdq.dialects.tensorrt import TensorRtDialect


@pytest.mark.parametrize(
    ("kernels", "exact_on", "bounds_pairs"),
    [
        (IntegerKernels.EXACT, ExactOn.THIS_MACHINE, False),
        (IntegerKernels.EXACT, ExactOn.ANY_X86_64, True),
        (IntegerKernels.SATURATING, ExactOn.THIS_MACHINE, True),
        (IntegerKernels.SATURATING, ExactOn.ANY_X86_64, True),
    ],
)
def test_pairs_are_bounded_where_kernels_saturate_or_may(
    monkeypatch: pytest.MonkeyPatch, kernels: IntegerKernels, exact_on: ExactOn, *, bounds_pairs: bool
) -> None:
    monkeypatch.setattr(module, "measured_kernels", lambda: kernels)
    scheme = job_scheme(exact_on, OrtCpuBackend().capabilities)
    assert scheme.bounds_pairs is bounds_pairs
    assert scheme.quantized_outputs == ONNXRUNTIME_CPU_SCHEME.quantized_outputs


def test_engines_that_do_not_run_on_the_processor_keep_their_scheme() -> None:
    gpu = Capabilities("tensorrt", Precision.FP16, (Precision.INT8,), TENSORRT_SCHEME, TensorRtDialect(), Source.MEASURED)
    assert job_scheme(ExactOn.THIS_MACHINE, gpu) is TENSORRT_SCHEME


def test_exact_on_is_refused_where_it_would_mean_nothing() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    config = config_from_json({"target": "tensorrt-rtx", "gpu": "RTX 4090", "exact_on": "any_x86_64"})
    with pytest.raises(InvalidConfigError, match="exact_on: found any_x86_64, but engines of tensorrt-rtx"):
        check_config(config)
    check_config(config_from_json({"exact_on": "any_x86_64"}))
