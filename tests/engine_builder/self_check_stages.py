"""Stages of self-check that pretend: what a machine with a healthy GPU would answer, with any answer replaced or any stage broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine_builder.self_check.cases import CASES
from engine_builder.self_check.first_contact.speeds import SIDES, SIZES

ROOFLINE = {
    "fp16": {"roof_ms": 0.40, "launches": 20, "predicted_ms": 0.44},
    "int8": {"roof_ms": 0.20, "launches": 40, "predicted_ms": 0.28},
    "mixed": {"roof_ms": 0.30, "launches": 30, "predicted_ms": 0.36},
    "fp16, batch 1": {"roof_ms": 0.01, "launches": 20, "predicted_ms": 0.05},
}
SPEEDS = {"quantize_ms_per_element": 4e-9, "dequantize_ms_per_element": 4e-9, "copy_gb_per_s": 800.0}
CLOSE = {"samples": 128, "agreement": 0.99, "kl": 1e-5, "largest_difference": 0.02, "scale": 2.5}
LAYER = {"layer": "stem", "asked": "fp16", "got": "fp16", "kernel": "k", "reason": None}
NOT_ACHIEVED = {
    **LAYER,
    "asked": "int8",
    "reason": "neither its input nor its weight reaches the kernel in low precision: Q/DQ must stand directly on both",
}


def timing(case: str, *, factor: float = 1.0, launch_ms: float = 0.002) -> dict[str, object]:
    parts = ROOFLINE[case]
    milliseconds = factor * parts["roof_ms"] + launch_ms * parts["launches"]
    return {
        "graph": True,
        "no_graph_because": None,
        "median_ms": milliseconds,
        "p95_ms": milliseconds * 1.02,
        "mad_ms": milliseconds * 0.01,
        "runs": 5000,
        "without_graph_ms": milliseconds * 1.2,
        "enqueue_ms": 0.03,
        "transfers_ms": {"to_device_ms": 0.1, "to_host_ms": 0.01},
    }


Answers = Mapping[str, Mapping[str, object] | Exception]


@dataclass
class PretendedStages:
    """A ``RunStage``; ``instead`` maps ``stage`` or ``stage case`` to another answer, or to an error that is raised."""

    instead: Answers = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def __call__(self, stage: str, request: Mapping[str, object]) -> Mapping[str, object]:
        key = " ".join([stage, str(request.get("case", request.get("package", "")))]).strip()
        self.calls.append(key)
        answer = self.instead.get(key, self.instead.get(stage, self._usual(stage, request)))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _usual(self, stage: str, request: Mapping[str, object]) -> Mapping[str, object]:
        case = str(request.get("case", ""))
        build = {"build_seconds": 2.5, "plan_bytes": 4_000_000, "reached": [LAYER], "roofline": ROOFLINE.get(case, {})}
        answers: Mapping[str, Mapping[str, object]] = {
            "cuda_visible": {
                "name": "NVIDIA GeForce RTX 4090",
                "compute_capability": [8, 9],
                "driver": "580.65",
                "cuda": "13.0",
                "visible_devices": "not set",
                "network_is_closed": True,
                "same_by_uuid": True,
            },
            "cuda_adapter": {"package": "cuda.core 1.2.2", "device": "NVIDIA", "copies_ms": 0.5, "graph": True, "no_graph_because": None},
            "cuda_lock": {"waited_seconds": 0.0, "folder_is_named": False},
            "cuda_state": {
                "by": "NvmlMonitor",
                "reading_ms": 0.4,
                "slowest_reading_ms": 2.0,
                "unknown": [],
                "held_back_by": [],
                "other_processes": 0,
            },
            "cuda_speed": {
                "prior_ms": 4e-9,
                **{f"{size} elements": SPEEDS for size in SIZES},
                "launch_us_graph": 1.5,
                "launch_us_plain": 3.0,
            },
            "cuda_products": {f"side {side}": {"fp16": {"ms": 0.1, "tops": 120.0, "graph": True}} for side in SIDES},
            "gpu_first_build": {"parse_seconds": 2.0, "build_seconds": 5.0, "plan_bytes": 1000, "kernels": ["product1"]},
            "gpu_first_run": {
                "off": 1e-4,
                "graph": True,
                "no_graph_because": None,
                "median_ms": 0.01,
                "without_graph_ms": 0.02,
                "enqueue_ms": 0.01,
                "warnings": [],
            },
            "gpu_first_strip": {
                "build_seconds": 5.0,
                "load_and_run_seconds": 0.5,
                "plan_bytes": 200,
                "whole_bytes": 1000,
                "weights_bytes": 900,
                "off": 1e-4,
            },
            "names": {"version": "11.4.0", "used": 64, "lacking": []},
            "prepare": {"layers": {"Conv": 21, "Add": 9, "Gemm": 1}, "accuracy": 0.87, "samples": 128},
            "simulate": {"asked": {"stem": "fp16"}, "comparison": CLOSE},
            "gpu_device": {
                "name": "NVIDIA GeForce RTX 4090",
                "compute_capability": [8, 9],
                "driver": "580.65",
                "mig": False,
                "tensorrt": "11.4.0",
                "cuda": "cuda.core 1.2.2",
            },
            "rtx_build": build,
            "gpu_build": build,
            "gpu_run": {"comparison": CLOSE},
            "gpu_time": {"timings": {one.name: timing(one.name) for one in CASES}, "warnings": []},
        }
        return answers[stage]
