"""Builds explicit models with TensorRT-RTX in a process of its own, which may have one logger alone, and prints what became of each.

Reads a JSON list of {"path", "capability", "shapes": {input: [min, opt, max]}} and writes a list of {"error": text or null,
"kernels": [{"name", "kind", "nodes", "inputs", "constants", "outputs",}]}, formats by the builder's words.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

trt = importlib.import_module("tensorrt_rtx")  # publishes no types

_LINE = re.compile(r"Name: (.*?), LayerType: (\w+), Inputs: (.*), Constants: (.*), Outputs: (.*), TacticName")


class Log(trt.ILogger):  # type: ignore[misc,name-defined]  # as above: of type Any
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: object, text: str) -> None:
        self.lines.append(text)


def build(builder: Any, log: Log, request: dict[str, Any]) -> dict[str, object]:
    log.lines.clear()
    network = builder.create_network()
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(request["path"]):
        return {"error": "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)), "kernels": []}
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, request["capability"]), 0)
    profile = builder.create_optimization_profile()
    for name, shapes in request["shapes"].items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        return {"error": next(line for line in log.lines if "rror" in line), "kernels": []}
    report = next(line for line in log.lines if line.startswith("Layers:"))
    return {"error": None, "kernels": [kernel for line in report.splitlines() if (kernel := read(line)) is not None]}


def read(line: str) -> dict[str, object] | None:
    found = _LINE.match(line)
    if found is None:
        return None
    inputs, constants, outputs = (re.findall(r"Datatype: (\w+)", found[index]) for index in (3, 4, 5))
    nodes = re.findall(r"\[ONNX Layer: (.*?)\]", line)
    return {"name": found[1], "kind": found[2], "nodes": nodes, "inputs": inputs, "constants": constants, "outputs": outputs}


if __name__ == "__main__":
    LOG = Log()
    BUILDER = trt.Builder(LOG)
    sys.stdout.write(json.dumps([build(BUILDER, LOG, request) for request in json.loads(sys.stdin.read())]))
