"""A report whose ``report.json``, but for the job's own configuration, is kept beside the tests and was read by a person.

Write it anew after a change that is wanted, and read what git shows of it: ``python -m tests.engine_builder.golden_report``.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeGuard

from calibration.codec import json_from_value
from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import HessianTrace
from engine_builder.backends.achieved_precision import AchievedPrecision, Rule
from engine_builder.records.corrections import Correction, CorrectionKind
from engine_builder.records.trial import failed_trial
from engine_builder.search.loss_model import LossCheck
from engine_builder.stage_io.engines import FittedTimes, PredictedSequence, PredictResult, TrialSaid
from engine_builder.workspace.workspace import json_bytes
from tests.engine_builder.report_desk import NAMES, Desk, improved, trials_of, verdict

GOLDEN = Path(__file__).with_name("golden_report.json")
CLOSE = 1e-6  # relative: the last digits of a sum or of a distribution function are the library's
INT8 = Precision.INT8


def golden_report(desk: Desk) -> dict[str, object]:
    """Return what the stage returns for a search of three engines, one of them a failure, in which the smallest is kept."""
    baseline, all_quantized, chosen = trials_of(0, 4, 2)
    rows = (
        AchievedPrecision(NAMES[0], INT8, INT8, "integer kernel", None),
        AchievedPrecision(NAMES[1], INT8, Precision.FP32, "float kernel", Rule.DEPTHWISE),
    )
    chosen = replace(
        chosen,
        reached=desk.workspace.write_json("reached.json", json_from_value(rows)),
        bias=Correction(CorrectionKind.BIAS_CORRECTION, NAMES[:2], 0.02, 0.01, 0.001, 16, kept=True),
    )
    prediction = PredictResult(
        ladders=(PredictedSequence("loss", ({}, chosen.precisions), (1.0, 0.76), (baseline.fingerprint, chosen.fingerprint)),),
        kernels_ms={name: {"baseline": 1.0, "int8": 0.5} for name in NAMES},
        time_model=FittedTimes(0.25, {"int8": 0.01}, 2),
        loss_model=LossCheck(1.0, 0, 0, 0.0),
        predicted={all_quantized.fingerprint: TrialSaid(0.5, 0.017, None, 0.017, None)},
    )
    return desk.report(
        (baseline, all_quantized, chosen, failed_trial(3, "f" * 16, {NAMES[0]: INT8}, "loss", "no such kernel")),
        improved(chosen, verdict(3)),
        traces=(HessianTrace(NAMES[0], "weight", 0.5, 0.1, 100, 4, 0.01, settled=True, rounding=0.001),),
        repairs=(Correction(CorrectionKind.RANGE, NAMES[:1], 0.03, 0.02, 0.001, 16, kept=False),),
        forecasts=(prediction,),
    )


def golden_json(desk: Desk) -> dict[str, object]:
    """Return its ``report.json`` as the file keeps it."""
    found: dict[str, object] = json.loads(desk.read(golden_report(desk), "report.json"))
    return {key: value for key, value in found.items() if key != "config"}


def differences(found: object, expected: object, path: str = "") -> list[str]:
    """Return where two JSON values differ; numbers may by ``CLOSE``."""
    if _is_number(found) and _is_number(expected) and math.isclose(found, expected, rel_tol=CLOSE):
        return []
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        keys = [*found, *(key for key in expected if key not in found)]
        return list(_inside((f"{path}.{key}", found.get(key, "no such key"), expected.get(key, "no such key")) for key in keys))
    if isinstance(found, list) and isinstance(expected, list):
        pairs = zip_longest(found, expected, fillvalue="no such item")
        return list(_inside((f"{path}[{place}]", one, other) for place, (one, other) in enumerate(pairs)))
    return [] if type(found) is type(expected) and found == expected else [f"{path}: found {found!r}, expected {expected!r}"]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _inside(parts: Iterator[tuple[str, object, object]]) -> Iterator[str]:
    for path, found, expected in parts:
        yield from differences(found, expected, path)


def main() -> None:
    """Write the golden file."""
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_bytes(json_bytes(golden_json(Desk(Path(folder)))) + b"\n")


if __name__ == "__main__":
    main()
