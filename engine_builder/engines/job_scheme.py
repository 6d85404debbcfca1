"""How the engines of a job round: as its target does, within what the processors that they must be exact on can add."""

from __future__ import annotations

import dataclasses

from calibration.number_formats.precision import Scheme
from engine_builder.backends.base import Capabilities
from engine_builder.backends.onnxruntime.integer_kernels import IntegerKernels, measured_kernels
from engine_builder.config.config import ExactOn


def job_scheme(exact_on: ExactOn, capabilities: Capabilities) -> Scheme:
    """Return the target's scheme; INT8 weights keep the pair bound where kernels that the job's engines must be exact on saturate.

    Args:
        exact_on: Where engines of integers must be exact.
        capabilities: Of its target.

    Raises:
        EngineError: The integer kernels of this machine give wrong answers.
    """
    if not capabilities.runs_on_cpu:
        return capabilities.scheme
    bounds = exact_on is ExactOn.ANY_X86_64 or measured_kernels() is IntegerKernels.SATURATING
    return dataclasses.replace(capabilities.scheme, bounds_pairs=bounds)
