"""Blocks hold every node once, and the block that loses in 16 bits is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.data.dataset import CalibrationSet, load_saved
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model
from engine_builder.baseline.float_regions import PROBE_SAMPLES, float_blocks, probe_blocks
from engine_builder.qdq.dialects.tensorrt import TensorRtDialect
from tests.driver import inspection_of, ranged
from tests.fallback_models import cancelling
from tests.model_text import ModelMaker, cnn
from tests.models import attention, several_outputs


def blocks_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    prepared = prepare(model).model
    return {block.layer: block.nodes for block in float_blocks(prepared, find_layers(prepared))}


@pytest.mark.parametrize("maker", [cnn, attention, several_outputs, cancelling])
def test_blocks_hold_every_node_once_in_order(maker: ModelMaker) -> None:
    nodes = [name for block in blocks_of(maker()).values() for name in block]
    assert nodes == [node.name for node in prepare(maker()).model.graph.node]


def test_a_block_is_a_layer_with_all_behind_it_up_to_the_next() -> None:
    found = blocks_of(cancelling())
    assert found["second"] == ("second", "up", "down", "relu2")
    assert list(found) == ["first", "second", "third", "fourth"]


def test_a_residual_sum_begins_no_block() -> None:
    assert [len(nodes) for nodes in blocks_of(cnn()).values()] == [2, 5, 1]


@pytest.mark.parametrize(("limit", "layers"), [(1, ["first"]), (2, ["first", "third"]), (3, ["first", "second", "third"]), (9, None)])
def test_neighbours_are_joined_in_a_deep_model(limit: int, layers: list[str] | None) -> None:
    prepared = prepare(cancelling()).model
    found = float_blocks(prepared, find_layers(prepared), limit)
    assert [block.layer for block in found] == (layers or ["first", "second", "third", "fourth"])
    assert [name for block in found for name in block.nodes] == [node.name for node in prepared.graph.node]


def test_the_block_that_loses_in_fp16_comes_first(tmp_path: Path) -> None:
    driver, basics = ranged(tmp_path, cancelling())
    inspection = inspection_of(driver, basics)
    samples: CalibrationSet = load_saved(driver.workspace.path(inspection.samples.calibration))
    told: list[tuple[int, int]] = []
    probed = probe_blocks(
        read_model(driver.workspace.path(inspection.model.file)),
        inspection,
        {},
        samples,
        Precision.FP16,
        TensorRtDialect(),
        tmp_path,
        lambda done, of: told.append((done, of)),
    )
    assert probed[0].block.layer == "second"
    assert probed[0].mean > 1e4 * probed[1].mean  # the others lose roundings of 2^-11 alone
    assert [one.mean for one in probed] == sorted((one.mean for one in probed), reverse=True)
    assert all(one.loss.shape == (min(samples.samples, PROBE_SAMPLES),) for one in probed)
    assert 0 < probed[0].error < probed[0].mean
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert np.isfinite([one.mean for one in probed]).all()
