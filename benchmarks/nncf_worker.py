"""Runs NNCF's accuracy control on one classifier, in an environment that has NNCF; ``benchmarks.nncf_control`` starts it as a script.

It imports nothing of this project. It takes whole models through ``nncf.quantize_with_accuracy_control`` with that function's defaults:
only the budget, the data and, so that threads that wait for each other burn no CPU, one thread a session are set. Single pictures are the
items that NNCF draws its ranking subset from; they run 64 at a time.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

BATCH = 64
Item = tuple[NDArray[np.float32], int]


class Validation:
    """Top-1 of a model as NNCF asks for it: the mean and each picture's own; counts what it is asked for."""

    def __init__(self, samples: int, source: str) -> None:
        """Count from nothing.

        Args:
            samples: Pictures in the whole set.
            source: Name of the model's input.
        """
        self.whole_runs = 0  # over the whole set
        self.part_runs = 0  # over the subset that ranks layers, or one picture that NNCF tries the function with
        self.pictures = 0
        self._samples = samples
        self._source = source

    def __call__(self, model: onnx.ModelProto, items: Iterable[Item]) -> tuple[float, list[float]]:
        """Return the mean top-1 and each picture's, 0 or 1."""
        session = onnxruntime.InferenceSession(model.SerializeToString(), one_thread(), providers=["CPUExecutionProvider"])
        listed = list(items)
        right: list[float] = []
        for start in range(0, len(listed), BATCH):
            part = listed[start : start + BATCH]
            logits = session.run(None, {self._source: np.stack([picture for picture, _ in part])})[0]
            right += (logits.argmax(axis=-1) == np.array([label for _, label in part])).astype(float).tolist()
        is_whole = len(listed) == self._samples
        self.whole_runs += is_whole
        self.part_runs += not is_whole
        self.pictures += len(listed)
        return float(np.mean(right)), right


def one_thread() -> onnxruntime.SessionOptions:
    """Return options of a session with one thread."""
    options = _session_options()
    options.intra_op_num_threads = 1
    return options


def control(model: onnx.ModelProto, calibration: Sequence[Item], validation: Sequence[Item], relative_drop: float) -> dict[str, object]:
    """Return NNCF's model, under ``model``, and how often it evaluated.

    Args:
        model: One input of pictures, one output of logits.
        calibration: Pictures (...,) float32 with their classes.
        validation: The same, for accuracy.
        relative_drop: Share of the float top-1 that may be lost, 0..1.
    """
    nncf = importlib.import_module("nncf")
    source = model.graph.input[0].name
    onnxruntime.SessionOptions = one_thread  # NNCF's own sessions ask for it by this name and set no threads
    validate = Validation(len(validation), source)
    quantized = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(calibration, lambda item: {source: item[0][np.newaxis]}),
        nncf.Dataset(validation, lambda item: {source: item[0][np.newaxis]}),
        validate,
        max_drop=relative_drop,
        drop_type=importlib.import_module("nncf.parameters").DropType.RELATIVE,
        subset_size=len(calibration),
    )
    return {"model": quantized, "whole_runs": validate.whole_runs, "part_runs": validate.part_runs, "pictures": validate.pictures}


def read_items(path: Path, source: str) -> list[Item]:
    """Return the pictures and classes of an .npz with an array named as the model's input, (n, ...) float32, and ``labels``, (n,)."""
    with np.load(path, allow_pickle=False) as arrays:
        pictures, labels = arrays[source], arrays["labels"]
    return [(picture, int(label)) for picture, label in zip(pictures, labels, strict=True)]


def main() -> None:
    """Quantize, and write ``model.onnx`` and ``counts.json`` into the output folder."""
    parser = argparse.ArgumentParser(description="Run NNCF's accuracy control on a classifier.")
    for name in ("model", "calibration", "validation", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--relative-drop", type=float, required=True)
    arguments = parser.parse_args()
    model = onnx.load(arguments.model)
    source = model.graph.input[0].name
    found = control(model, read_items(arguments.calibration, source), read_items(arguments.validation, source), arguments.relative_drop)
    quantized = found.pop("model")
    assert isinstance(quantized, onnx.ModelProto)
    onnx.save_model(quantized, arguments.output / "model.onnx")

    (arguments.output / "counts.json").write_text(json.dumps(found), encoding="utf-8")


_session_options = onnxruntime.SessionOptions  # before it is replaced

if __name__ == "__main__":
    main()
