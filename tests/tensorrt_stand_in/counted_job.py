"""A whole job for the target tensorrt in this one process; prints its trials: ``python -m tests.tensorrt_stand_in.counted_job FOLDER``."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import onnx

from tests.driver import run_job, trials_of
from tests.model_text import model_from_text, samples_for

WIDTHS = (64, 96, 64, 48, 64, 96, 64, 48, 16)
TRIALS = 9


def chain() -> onnx.ModelProto:
    """Return linear layers in a row, each but the last followed by a Relu."""
    weights: dict[str, tuple[int, ...]] = {}
    lines, last = [], len(WIDTHS) - 1
    for index, (read, written) in enumerate(pairwise(WIDTHS), start=1):
        weights |= {f"w{index}": (read, written), f"b{index}": (written,)}
        lines.append(f"{'logits' if index == last else f'h{index}'} = Gemm({'x' if index == 1 else f'a{index - 1}'}, w{index}, b{index})")
        lines += [f"a{index} = Relu(h{index})"] if index < last else []
    body = "\n".join(lines)
    return model_from_text(f"g (float[N,{WIDTHS[0]}] x) => (float[N,{WIDTHS[-1]}] logits) {{ {body} }}", weights)


def main(place: Path) -> None:
    model = chain()
    config = {
        "target": "tensorrt",
        "precisions": ["int8", "fp8"],
        "accuracy": {"metric": "nmse", "max_nmse": 2e-4},
        "search": {"max_trials": TRIALS},
    }
    finished = run_job(place, model, samples_for(model, 64), config=config)
    trials = [{"met": trial.met, "bias": None if trial.bias is None else trial.bias.kept} for trial in trials_of(finished)]
    sys.stdout.write(json.dumps({"trials": trials}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
