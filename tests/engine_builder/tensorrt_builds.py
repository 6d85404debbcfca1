"""Builds with the real builder of TensorRT-RTX in a process of its own, since its one logger stays; prints what came of each case."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.parser

from calibration.errors import OptimizerError
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.nvidia.network_build import Plan, Shapes, build_plan
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.errors import StageCancelledError

DYNAMIC = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4] x, float[1,4] z) => (float[N,4] y)
<float[4,4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
{
    product = MatMul(x, w)
    y = Add(product, z)
}
"""
UNKNOWN_OPERATOR = """
<ir_version: 8, opset_import: ["" : 17, "made.up" : 1]>
net (float[2] x) => (float[2] y) { y = made.up.Mystery(x) }
"""
MIXED_TYPES = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2] x) => (float[2] y)
{
    half = Cast <to = 10> (x)
    y = Add(x, half)
}
"""
CONVOLUTION = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1,1,8,8] x) => (float[1,1,6,6] y)
<float[1,1,3,3] w = {1, 2, 1, 0, 0, 0, -1, -2, -1}>
{ y = Conv(x, w) }
"""
EXPANDED = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2,4] x, int64[1] n, int64[1] shift) => (float[M,2,4] y)
<int64[2] tail = {2, 4}>
{
    shifted = Cast<to = 1>(shift)
    moved = Add(x, shifted)
    sizes = Concat<axis = 0>(n, tail)
    y = Expand(moved, sizes)
}
"""
SHAPES: Shapes = {"x": ShapeRange((1, 4), (2, 4), (8, 4))}

OPTIONS = BuildOptions(workspace_bytes=1 << 26, optimization_level=4)


def always(*shape: int) -> ShapeRange:
    return ShapeRange(shape, shape, shape)


def cancel(share: float, phase: str) -> None:
    raise StageCancelledError("enough", fix="none")


def main(folder: Path) -> None:
    trt = importlib.import_module("tensorrt_rtx")

    def model(text: str) -> Path:
        made = onnx.parser.parse_model(text)
        for index, node in enumerate(made.graph.node):
            node.name = f"node{index}"
        path = folder / "model.onnx"
        onnx.save_model(made, path)
        return path

    def outcome(build: Callable[[], Plan]) -> dict[str, object]:
        try:
            plan = build()
        except OptimizerError as error:
            return {"error": type(error).__name__, "detail": error.detail}
        layers, at_opt = ([text for _, text in log if text.startswith("Layers:")] for log in (plan.log, plan.log_at_opt))
        sha256 = hashlib.sha256(plan.data).hexdigest()
        return {"bytes": len(plan.data), "sha256": sha256, "layers": layers, "layers at opt": at_opt}

    def case(text: str, shapes: Shapes, options: BuildOptions = OPTIONS, **more: Any) -> dict[str, object]:
        return outcome(lambda: build_plan(trt, model(text), options, shapes=shapes, **more))

    progress: list[tuple[float, str]] = []
    twice: list[tuple[float, str]] = []
    settings: dict[str, object] = {}

    def keep_settings(config: Any) -> None:
        settings["optimization level"] = config.builder_optimization_level
        settings["strips unasked"] = config.get_flag(trt.BuilderFlag.STRIP_PLAN)
        settings["streams weights unasked"] = config.get_flag(trt.BuilderFlag.WEIGHT_STREAMING)
        settings["workspace bytes"] = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)

    def keep_streaming(config: Any) -> None:
        settings["streams weights"] = config.get_flag(trt.BuilderFlag.WEIGHT_STREAMING)

    def keep_stripping(config: Any) -> None:
        for name in ("STRIP_PLAN", "REFIT_IDENTICAL", "REFIT"):
            settings[name] = config.get_flag(getattr(trt.BuilderFlag, name))

    found = {
        "built": case(DYNAMIC, SHAPES, on_progress=lambda share, phase: progress.append((share, phase))),
        "again": case(DYNAMIC, SHAPES),
        "at opt": case(DYNAMIC, SHAPES, also_at_opt=True, on_progress=lambda share, phase: twice.append((share, phase))),
        "two profiles": case(DYNAMIC, SHAPES, profiles=(SHAPES, {"x": ShapeRange((16, 4), (32, 4), (64, 4))})),
        "wrong profile": case(DYNAMIC, SHAPES, profiles=(SHAPES, {"x": always(1, 5)})),
        "streaming": case(DYNAMIC, SHAPES, dataclasses.replace(OPTIONS, weight_budget_bytes=0), configure=keep_streaming),
        "stripped": case(DYNAMIC, SHAPES, dataclasses.replace(OPTIONS, strip_weights=True), configure=keep_stripping),
        "watched": case(DYNAMIC, SHAPES, configure=keep_settings),
        "with TF32": case(DYNAMIC, SHAPES, configure=lambda config: config.set_flag(trt.BuilderFlag.TF32)),
        "small workspace": case(CONVOLUTION, {}, dataclasses.replace(OPTIONS, workspace_bytes=1 << 10)),
        "large workspace": case(CONVOLUTION, {}),
        "route": case(DYNAMIC, SHAPES, dataclasses.replace(OPTIONS, build_route="-fuse=off")),
        "damaged cache": case(DYNAMIC, SHAPES, timing_cache=b"damaged"),
        "no shapes": case(DYNAMIC, {}),
        "unknown input": case(DYNAMIC, {**SHAPES, "q": SHAPES["x"]}),
        "wrong rank": case(DYNAMIC, {"x": always(1, 4, 1)}),
        "wrong fixed axis": case(DYNAMIC, {**SHAPES, "z": always(2, 4)}),
        "right fixed axis": case(DYNAMIC, {**SHAPES, "z": always(1, 4)}),
        "values": case(EXPANDED, {}, values={"n": ValueRange((1,), (3,), (6,)), "shift": ValueRange((0,), (1,), (2,))}, also_at_opt=True),
        "one value": case(EXPANDED, {}, values={"n": ValueRange((3,), (3,), (3,))}, also_at_opt=True),
        "no values": case(EXPANDED, {}),
        "cancelled": case(DYNAMIC, SHAPES, on_progress=cancel),
        "unknown operator": case(UNKNOWN_OPERATOR, {}),
        "mixed types": case(MIXED_TYPES, {}),
        "after failures": case(DYNAMIC, SHAPES),
    }
    sys.stdout.write(json.dumps({"builds": found, "progress": progress, "progress_of_two": twice, "settings": settings}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
