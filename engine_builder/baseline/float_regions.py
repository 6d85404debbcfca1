"""Cuts a model into blocks that are given a float type as a whole, and measures what each loses alone in 16 bits.

A block is a layer with all nodes behind it up to the next one: its activation, a sum, a softmax, the steps of a normalization. What stands
before the first layer belongs to it; a residual add begins no block. Layers by themselves would not do: what loses may be a node between
them, and builders run a lone float32 layer between 16-bit ones in 16 bits all the same, while they keep a block. In a deep model
neighbours are joined until MAX_BLOCKS are left: every block costs a session of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import save_model
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all
from engine_builder.qdq.dialects.base import Dialect, ExplicitPlan
from engine_builder.records.inspection import Inspection

PROBE_SAMPLES = 16
MAX_BLOCKS = 24


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes that share a float type."""

    layer: str  # the first layer's name
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ProbedBlock:
    """A block and its loss alone in 16 bits on each sample, (samples,) float64."""

    block: Block
    loss: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The mean loss."""
        return float(self.loss.mean())

    @property
    def error(self) -> float:
        """Its standard error, 0 for a single sample."""
        return float(self.loss.std(ddof=1) / np.sqrt(len(self.loss))) if len(self.loss) > 1 else 0.0


def float_blocks(model: onnx.ModelProto, layers: Sequence[Layer], limit: int = MAX_BLOCKS) -> tuple[Block, ...]:
    """Return the blocks, in the order of the nodes; together they hold every node once. None where there is no layer to begin one.

    Args:
        model: The prepared model.
        layers: Its layers.
        limit: Most blocks, at least 1.
    """
    firsts = {layer.name for layer in layers if layer.kind is not LayerKind.RESIDUAL_ADD} or {layer.name for layer in layers}
    blocks: list[tuple[str, list[str]]] = []
    waiting: list[str] = []
    for node in model.graph.node:
        if node.name in firsts:
            blocks.append((node.name, waiting))
            waiting = []
        (blocks[-1][1] if blocks else waiting).append(node.name)
    count = min(len(blocks), limit)
    joined = [blocks[index * len(blocks) // count : (index + 1) * len(blocks) // count] for index in range(count)]
    return tuple(Block(part[0][0], tuple(name for _, nodes in part for name in nodes)) for part in joined)


def probe_blocks(
    model: onnx.ModelProto,
    inspection: Inspection,
    ranges: Mapping[str, tuple[float, float]],
    samples: CalibrationSet,
    precision: Precision,
    dialect: Dialect,
    scratch: Path,
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ProbedBlock, ...]:
    """Return every block with its loss alone in ``precision``, all others in float32, the largest loss first.

    Args:
        model: The prepared model.
        inspection: The job's inspection.
        ranges: (lowest, highest) by tensor name.
        samples: What to measure on; the first PROBE_SAMPLES count.
        precision: FP16 or BF16.
        dialect: How the target's explicit graphs are written.
        scratch: A folder for temporary files.
        on_block: Told how many blocks of how many are done.
    """
    share = samples.take(np.arange(min(samples.samples, PROBE_SAMPLES)))

    def outputs(floats: Mapping[str, Precision]) -> tuple[NDArray[np.generic], ...]:
        path = scratch / "probe.onnx"
        plan = ExplicitPlan(model, inspection.model.layers, {}, ranges, inspection.model.scheme, Precision.FP32, floats=floats)
        save_model(dialect.explicit(plan), path)
        runner = ComparedOutputs(OrtCpuRunner(path, threads=1, as_written=True), inspection.model.outputs.compared, inspection.model.axes)
        try:
            return run_all(runner, share, batch=inspection.calls.scored_batch)
        finally:
            runner.close()
            for written in (path, path.with_name(path.name + ".data")):
                written.unlink(missing_ok=True)

    reference = outputs({})
    probed = []
    blocks = float_blocks(model, inspection.model.layers)
    for index, block in enumerate(blocks):
        quantized = outputs(dict.fromkeys(block.nodes, precision))
        probed.append(
            ProbedBlock(
                block, losses(inspection.model.outputs.compared_forms, reference, quantized, inspection.model.outputs.compared_weights)
            )
        )
        on_block(index + 1, len(blocks))
    return tuple(sorted(probed, key=lambda one: -one.mean))  # stable: equal losses in the order of the nodes
