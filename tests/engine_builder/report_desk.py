"""What a report is made of: trials, a judgement, and a workspace with the files that the stage reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.accuracy.verdict import AccuracyVerdict, Selection, judge
from calibration.codec import json_from_value, value_from_json
from calibration.data.sample_axes import SampleAxes
from calibration.graph.layers import Layer, LayerKind
from calibration.graph_passes.folding.folded_steps import FoldedSteps, Place
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.ranges.range_table import RangeMethod, RangeTable
from calibration.sensitivity.records import HessianTrace, PairTest, Sensitivity, SensitivityTable
from engine_builder.config.config import config_from_json
from engine_builder.records.calibrated import Calibrated
from engine_builder.records.corrections import Correction, CorrectionTable
from engine_builder.records.inspection import Baseline, Calls, Inspection, ModelOutputs, PreparedModel, Reference, Samples
from engine_builder.records.probed_outputs import ProbedOutputs
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, PredictResult, VerdictResult
from engine_builder.stage_io.measuring import Analysed, RankResult
from engine_builder.stage_io.outcome import ReportRequest, SearchSummary
from engine_builder.stages.report import report
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace
from tests.engine_builder.search.fake_world import FakeWorld
from tests.undrawn_plots import undrawn_plots

HOSTILE = '<script>alert("x")</script>&\''
WORLD = FakeWorld((0.0001,) * 4, budget=0.00025)
NAMES = ("layer000", "layer001", "layer002", "layer003")
OWN = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> own (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
).SerializeToString()
ENGINE = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> fast (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
).SerializeToString()
NOTHING = FileRef("nothing", "0" * 64)


def layer(name: str) -> Layer:
    return Layer(name, "Conv", LayerKind.WEIGHTED, ("x",), "w", 0, None, f"{name}.out", (name,), 1_234_567, 100)


def inspection(names: Sequence[str], notes: Sequence[str], warnings: Sequence[str] = ()) -> Inspection:
    kinds = (OutputKind.LOGITS,)
    return Inspection(
        model=PreparedModel(
            file=NOTHING,
            float_type=Precision.FP32,
            layers=tuple(layer(name) for name in names),
            outputs=ModelOutputs((), kinds),
            probed=ProbedOutputs(("y",), kinds, SampleAxes()),
            axes=SampleAxes(),
            batch=8,
            is_batch_fixed=False,
            scheme=ONNXRUNTIME_CPU_SCHEME,
        ),
        samples=Samples(NOTHING, 60, NOTHING, 40, held_out=True, shared_data=False),
        reference=Reference(NOTHING, NOTHING, Metric.TOP1, (0,)),
        baseline=Baseline(Precision.FP32, NOTHING),
        calls=Calls({"x": (1, 3)}, 1, 8, {}),
        notes=tuple(notes),
        warnings=tuple(warnings),
        folded=(FoldedSteps("Add", Place.BEHIND, 2, 0), FoldedSteps("Mul", Place.BEFORE, 1, 1)),
    )


def verdict(lost: int, *, min_relative: float = 0.9, samples: int = 400) -> AccuracyVerdict:
    baseline, engine = np.ones(samples), np.ones(samples)
    engine[:lost] = 0.0
    return judge(Metric.TOP1, baseline, engine, Budget(min_relative=min_relative), selection=Selection.SHARED, rng=np.random.default_rng(0))


MILLISECONDS = {"median": 10.0, "p95": 11.0, "mad": 0.05, "runs": 100}
KEPT: dict[str, object] = {
    "judged": [],
    "verdict": json_from_value(verdict(0)),
    "chosen": None,
    "ratio": 1.0,
    "least_gain": 0.01,
    "latency_ms": {"baseline": MILLISECONDS},
    "spread": {},
    "engine": None,
    "explicit": None,
    "baseline_accuracy": 0.9,
    "baseline_precisions": {"fp32": 4},
    "baseline_size_bytes": 4_000_000,
    "environment": {"processor": HOSTILE, "threads": 1},
    "tensors": None,
}


def improved(trial: Trial, answer: AccuracyVerdict) -> dict[str, object]:
    return {
        **KEPT,
        "judged": [judged(trial, answer)],
        "verdict": json_from_value(answer),
        "chosen": trial.fingerprint,
        "ratio": 0.8,
        "least_gain": 0.01,
        "latency_ms": {"baseline": MILLISECONDS, trial.fingerprint: {**MILLISECONDS, "median": 8.0}},
        "spread": {trial.fingerprint: {"ratio": 0.8, "mad": 0.01}},
        "engine": {"file": "engine.onnx", "sha256": "a" * 64},
        "explicit": {"file": "model.explicit.onnx", "sha256": "b" * 64},
    }


def judged(trial: Trial, answer: AccuracyVerdict) -> dict[str, object]:
    return {"fingerprint": trial.fingerprint, "verdict": json_from_value(answer)}


def trials_of(*lengths: int, world: FakeWorld = WORLD) -> tuple[Trial, ...]:
    orders = {0: "baseline", len(world.layers): "all_low"}
    assignments = [world.quantized(world.layers[:length]) for length in lengths]
    return tuple(world.trial(index, quantized, orders.get(len(quantized), "loss")) for index, quantized in enumerate(assignments))


class Desk:
    """A workspace with what the report reads."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root / "workspace")
        self.is_drawn = False  # whether pages have their plots
        self.context = StageContext(self.workspace, root, lambda fraction, message: None)

    def report(
        self,
        trials: Sequence[Trial],
        judgement: Mapping[str, object],
        *,
        names: Sequence[str] = NAMES,
        notes: Sequence[str] = ("opset 11 converted to 17",),
        warnings: Sequence[str] = (),
        confidence: float | None = None,
        model: bytes = OWN,
        finalists: Sequence[Trial] | None = None,
        ranges: RangeTable | None = None,
        calls: Mapping[str, object] | None = None,
        traces: Sequence[HessianTrace] = (),
        repairs: Sequence[Correction] = (),
        forecasts: Sequence[PredictResult] = (),
        target: Mapping[str, str] | None = None,
        is_analysed: bool = True,
        eligible: Mapping[str, tuple[Precision, ...]] | None = None,
        failures: Sequence[str] = (),
        are_corrections_left: bool = False,
    ) -> dict[str, object]:
        loss = [10.0 ** -(index + 2) for index in range(len(names))]
        rows = tuple(Sensitivity(name, Precision.INT8, value, value / 10, None, None) for name, value in zip(names, loss, strict=True))
        first, second = (LayerPrecision(name, Precision.INT8) for name in names[:2])
        found = inspection(names, notes, warnings)
        found = replace(found, model=replace(found.model, **(calls or {})))  # type: ignore[arg-type]  # how the model is called, if not as usual
        write = self.workspace.write_value
        pairs = self.workspace.write_arrays(
            "dependency.npz",
            interaction=0.001 * (1.0 - np.eye(len(names))),
            error=np.zeros((len(names),) * 2),
            likely=0.001 * (1.0 - np.eye(len(names))),
            likely_error=np.zeros((len(names),) * 2),
            common_error=np.zeros((len(names),) * 2),
            loss_covariance=np.zeros((len(names),) * 2),
        )
        self.workspace.write_bytes("engine.onnx", ENGINE)
        accuracy = {"metric": "top1", "min_relative": 0.9, "confidence": confidence}
        job = EngineJob(
            config=config_from_json({"accuracy": accuracy, "outputs": {HOSTILE: "logits"}, **(target or {})}),
            inspection=write("inspection.json", found),
            baseline=self.workspace.write_bytes("model.onnx", model),
            calibrated=Calibrated(
                model=NOTHING,
                calibration=NOTHING,
                ranges=write("ranges.json", ranges or RangeTable({}, RangeMethod.MINMAX, 60)),
                eligible={} if eligible is None else dict(eligible),
                corrections=write("repairs.json", CorrectionTable(tried=tuple(repairs))),
            ),
        )
        table = write("table.json", SensitivityTable(rows, 60, 32, 4.0, tuple(traces)))
        decided = value_from_json(VerdictResult, judgement)
        tests = (PairTest(first, second, 0.001, 0.0001, 60), PairTest(first, second, -0.5, 0.1, 60))
        analysed = Analysed(RankResult(table, pairs, {"loss": (first, second)}), tests, {"CPUExecutionProvider": 3})
        request = ReportRequest(
            job=job,
            analysed=analysed if is_analysed else None,
            trials=tuple(trials),
            finalists=tuple((trials if decided.judged else ()) if finalists is None else finalists),
            verdict=decided,
            selection=Selection.SHARED,
            forecasts=tuple(forecasts),
            notes=("a finalist was not built again",),
            search=SearchSummary("nothing left to try", len(trials), 3.0),
            analysis_failures=tuple(failures),
            are_corrections_left=are_corrections_left,
        )
        with undrawn_plots(self.is_drawn):
            outcome = json_from_value(report(request, self.context))
        assert isinstance(outcome, dict)
        return outcome

    def read(self, found: Mapping[str, object], name: str) -> str:
        return self.workspace.path(value_from_json(FileRef, cast(Mapping[str, object], found["artifacts"])[name])).read_text()


def result_of(found: Mapping[str, object]) -> Mapping[str, object]:
    return cast(Mapping[str, object], found["result"])
