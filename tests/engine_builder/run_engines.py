"""Runs engines in a process of its own, which may be that of an emulated processor: needs nothing but numpy and onnxruntime.

``run_engines.py FOLDER`` runs each NAME.onnx of the folder on NAME.npz and writes its outputs to NAME.plain.npz, and those with
``session.x64quantprecision``, which makes kernels exact at the cost of speed, to NAME.precise.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.generic]]


def outputs(model: Path, feeds: Tensors, *, is_precise: bool) -> Tensors:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if is_precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return dict(zip((value.name for value in session.get_outputs()), session.run(None, feeds), strict=True))


def main(folder: Path) -> None:
    for model in sorted(folder.glob("*.onnx")):
        with np.load(model.with_suffix(".npz")) as arrays:
            feeds = dict(arrays)
        for name, is_precise in (("plain", False), ("precise", True)):
            np.savez(model.with_suffix(f".{name}.npz"), allow_pickle=False, **outputs(model, feeds, is_precise=is_precise))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
