"""An assignment as settings of NVIDIA ModelOpt: ``modelopt.onnx.quantization.quantize(onnx_path, **settings)``.

ModelOpt quantizes in one mode and takes the nodes that stay out as regular expressions, which have to match at the start of a node's name
(``re.match``): each name is escaped and ended by ``$``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision

MODES = (Precision.INT8, Precision.FP8, Precision.INT4)


def modelopt_settings(assignment: Mapping[str, Precision]) -> dict[str, object]:
    """Return the mode that most layers have, and the nodes of all other layers.

    Args:
        assignment: The precision of every layer, by the name of its node.

    Raises:
        InvalidConfigError: No layer has a precision that ModelOpt has a mode for.
    """
    counts = Counter(precision for precision in assignment.values() if precision in MODES)
    if not counts:
        raise InvalidConfigError(
            f"ModelOpt: no layer of the assignment is quantized in one of {', '.join(MODES)}",
            fix="Give another assignment.",
        )
    mode = counts.most_common(1)[0][0]
    return {
        "quantize_mode": mode.value,
        "nodes_to_exclude": [f"{re.escape(name)}$" for name, precision in assignment.items() if precision is not mode],
    }


def other_modes(assignment: Mapping[str, Precision]) -> tuple[str, ...]:
    """Return the layers that are quantized in another precision than the settings' mode, which ModelOpt leaves in floats."""
    mode = modelopt_settings(assignment)["quantize_mode"]
    return tuple(name for name, precision in assignment.items() if precision.is_quantized and precision.value != mode)
