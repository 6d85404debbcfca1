from __future__ import annotations

import re

import pytest

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from engine_builder.interchange.modelopt_settings import modelopt_settings, other_modes

FP16, INT8, FP8 = Precision.FP16, Precision.INT8, Precision.FP8
MIXED = {"/net/conv.1/Conv": FP16, "/net/conv.1/Conv_1": INT8, "fc": INT8, "head": FP8}


def test_all_but_the_layers_of_the_commonest_mode_are_left_out() -> None:
    settings = modelopt_settings(MIXED)
    assert settings["quantize_mode"] == "int8"
    patterns = settings["nodes_to_exclude"]
    assert isinstance(patterns, list)
    # As ModelOpt reads them: a name that begins with another's is not taken for it, and a dot is a dot.
    nodes = (*MIXED, "/net/convX1/Conv", "pool")
    assert [node for node in nodes if any(re.match(pattern, node) for pattern in patterns)] == ["/net/conv.1/Conv", "head"]
    assert other_modes(MIXED) == ("head",)


def test_an_assignment_of_floats_has_no_mode() -> None:
    with pytest.raises(InvalidConfigError, match="int8, fp8, int4"):
        modelopt_settings({"conv": FP16})
