"""The command ``build``, as far as it is not tested with whole jobs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.config.config import config_from_json
from service.cli.build import build_engine

STRIPPED = config_from_json({"target": "tensorrt", "builder": {"strip_weights": True}})


@pytest.mark.parametrize("name", ["engine.onnx", "refit.py", "it's.plan", "a b.plan", ".plan", "engine.plan.json"])
def test_a_plan_without_weights_has_a_name_that_its_script_can_hold(tmp_path: Path, name: str) -> None:
    arguments = argparse.Namespace(output=tmp_path / name)
    with pytest.raises(InvalidConfigError, match=r"expected a name of letters, digits, .* that ends with \.plan") as caught:
        build_engine(arguments, STRIPPED, cast(Any, None), cast(Any, None))
    assert caught.value.fix == "Call it engine.plan."
    assert list(tmp_path.iterdir()) == []
