"""How engines round on this processor, and on any: what a test of optimized engines may rely on depends on the kernels that run it."""

from __future__ import annotations

from dataclasses import replace

from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.config.config import ExactOn
from engine_builder.engines.job_scheme import job_scheme

EXACT_ANYWHERE = replace(ONNXRUNTIME_CPU_SCHEME, bounds_pairs=True)
EXACT_HERE = job_scheme(ExactOn.THIS_MACHINE, OrtCpuBackend().capabilities)  # that of a job with default settings
EXACT_SCHEMES = tuple(dict.fromkeys((EXACT_HERE, EXACT_ANYWHERE)))
