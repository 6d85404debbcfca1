"""A small but whole ``report.json`` for the tests of the page and its plots."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

LATENCY = {"median": 10.0, "p95": 11.0, "mad": 0.05, "runs": 100}
SIDE = {"latency_ms": LATENCY, "accuracy": 0.9, "size_bytes": 4_000_000, "precisions": {"fp32": 3, "int8": 1}}
VERDICT = {
    "answer": "met_on_sample",
    "metric": "top1",
    "drop": 0.001,
    "interval": [-0.002, 0.004],
    "confidence": 0.95,
    "n": 400,
    "selection": "held_out",
    "flips": 3,
    "budget": 0.0025,
    "probability_over_budget": 0.2,
    "samples_needed": 17_000,
    "method": "score_and_exact",
}
NOT_TRIED: dict[str, Any] = {"on_all": None, "latency": None, "loss": None, "failure": "no such kernel"}


def trial(index: int, low_layers: int, ratio: float, excess: float, order: str = "frontier") -> dict[str, Any]:
    return {
        "index": index,
        "fingerprint": f"f{index}",
        "order": order,
        "low_layers": low_layers,
        "on_all": {"score": 0.8975 + excess, "excess": excess},
        "latency": {"median_ms": 10.0 * ratio, "ratio": ratio},
        "loss": 0.001 * low_layers,
        "failure": None,
    }


def layer(name: str, loss: float | None = 0.01, precision: str = "int8", hessian: float | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "op_type": "Conv",
        "kind": "weighted",
        "precision": precision,
        "macs": 1_234_567,
        "weights": 10,
        "loss": loss,
        "loss_error": 0.2 * loss if loss is not None else None,
        "hessian": hessian,
        "hessian_error": 0.1 * hessian if hessian is not None else None,
    }


BODY: dict[str, Any] = {
    "result": {
        "outcome": "improved",
        "reason": "The fastest.",
        "latency_source": "measured",
        "baseline": SIDE,
        "chosen": SIDE,
        "speedup": 1.25,
        "verdict": VERDICT,
        "engine": {"name": "engine.onnx", "sha256": "a" * 64, "size_bytes": 1},
        "environment": {"processor": "some CPU", "threads": 1},
    },
    "config": {"target": "onnxruntime-cpu", "outputs": {"logits": "logits"}},
    "notes": ["opset 11 converted to 17"],
    "data": {"metric": "top1", "validation_held_out_of_calibration": False, "calibration_is_validation": False},
    "layers": [layer("conv", 0.01, hessian=0.02), layer("gemm", 0.1, "fp32", hessian=0.05)],
    "trials": [trial(0, 0, 1.0, 0.0025, "baseline"), trial(1, 2, 0.7, -0.001, "all_low"), trial(2, 1, 0.8, 0.001)],
    "chosen": "f2",
    "front": ["f1", "f2", "f0"],
    "repairs": [
        {"what": "smoothing", "where": ["conv", "gemm"], "samples": 8, "kept": True}
        | {"loss_before": 0.2, "loss_after": 0.125, "gain_error": 0.01},
        {"what": "smoothing", "where": ["head"], "samples": 8, "kept": False} | {"loss_before": 0.3, "loss_after": 0.4, "gain_error": 0.02},
    ],
    "dependencies": [{"first": "conv", "second": "gemm", "dependency": 0.1, "error": 0.01, "samples": 64}],
    "dependency_map": {"layers": ["conv", "gemm"], "lower": [[], [0.1]], "left_out": []},
    "forecasts": [{"kernels_ms": {"conv": {"baseline": 1.0, "int8": 0.5}, "gemm": {"baseline": 0.4, "int8": 0.3}}}],
    "predictions": [
        {"index": 0, "fingerprint": "f0", "loss": 0.0, "ratio": None},
        {"index": 1, "fingerprint": "f1", "loss": 0.003, "ratio": None},
        {"index": 2, "fingerprint": "f2", "loss": 0.001, "ratio": 0.75},
    ],
    "final_timing": {"latency_ms": {}, "relative": {"f2": {"ratio": 0.8, "mad": 0.01}}},
    "search": {"ended": "nothing left to try", "trials": 3, "seconds": 3.0},
    "probes": {"samples": 64, "hessian_samples": 32, "decisions": 2, "forwards": 160.0, "providers": ["CPUExecutionProvider"]},
}


def body(change: Callable[[dict[str, Any]], object] = lambda body: None) -> dict[str, Any]:
    changed = copy.deepcopy(BODY)
    change(changed)
    return changed
