"""A job without work: stages that a fake world answers, an observer that remembers, and a driver that replays what it knows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.accuracy.verdict import DEFAULT_CONFIDENCE, AccuracyVerdict, Answer, IntervalMethod, Selection
from calibration.codec import as_object, json_from_value, value_from_json
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.config.config import config_from_json
from engine_builder.errors import EngineError
from engine_builder.pipeline.optimize import JobRequest, optimize
from engine_builder.pipeline.stage import RunStage
from engine_builder.pipeline.stage_table import TABLE
from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.loss_model import LossCheck
from engine_builder.search.search import FASTEST, FRONTIER, REFINED
from engine_builder.stage_io.engines import (
    BaselineRequest,
    BaselineResult,
    FittedTimes,
    PredictedSequence,
    PredictRequest,
    PredictResult,
    RebuildRequest,
    TrialRequest,
    VerdictRequest,
    VerdictResult,
)
from engine_builder.stage_io.measuring import (
    BiasesRequest,
    ConfidenceRequest,
    ConfidenceResult,
    CorrectRequest,
    CorrectResult,
    Decided,
    HessianRequest,
    HessianResult,
    InspectRequest,
    InspectResult,
    InteractionsRequest,
    InteractionsResult,
    JobFiles,
    RangesRequest,
    RangesResult,
    RankRequest,
    RankResult,
    SensitivityRequest,
    SensitivityResult,
)
from engine_builder.stage_io.offers import OffersRequest, OffersResult
from engine_builder.stage_io.outcome import JobOutcome, ReportRequest
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.search.fake_world import FakeWorld

T = TypeVar("T")

MODEL, CALIBRATION, BASELINE, TABLE_FILE = (FileRef(name, "0" * 64) for name in ("model.onnx", "data.npz", "baseline.onnx", "table.json"))
INSPECTION, BIASES_FILE = FileRef("inspection.json", "1" * 64), FileRef("biases.json", "3" * 64)
FINAL_BASELINE, FINAL_INSPECTION = FileRef("final.plan", "4" * 64), FileRef("final.json", "5" * 64)
KERNELS_MS = {"layer000": {"baseline": 2.0, "int8": 1.0}}

Failure = Callable[[str, object], Exception | None]  # given a stage's name and its request

HALFWAY = FakeWorld((0.0001,) * 16, budget=0.00085)  # half of its layers fit
STAGE_SECONDS = 0.5
PROVIDER = "CPUExecutionProvider"
REBUILT_BYTES = 4321


def never(stage: str, request: object) -> Exception | None:
    return None


@dataclasses.dataclass(frozen=True)
class Call:
    """One run of a stage."""

    name: str
    stage: str
    request: object
    span: tuple[float, float]


@dataclasses.dataclass
class FakeStages:
    """Answers every stage from a fake world, and keeps what it was asked."""

    world: FakeWorld
    failure: Failure = never
    decided: Decided | None = None
    seconds: float = STAGE_SECONDS
    calls: list[Call] = dataclasses.field(default_factory=list)

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        plain = json.loads(json.dumps(request))
        assert plain == request, "a request is plain JSON"
        row = next(row for row in TABLE if row.name == stage)
        asked = value_from_json(row.request, plain)
        self.calls.append(Call(name, stage, asked, span))
        if (error := self.failure(stage, asked)) is not None:
            raise error
        answer = {"result": json_from_value(getattr(self, stage)(name, asked)), "seconds": self.seconds}
        return as_object(json.loads(json.dumps(answer)))

    def inspect(self, name: str, request: InspectRequest) -> InspectResult:
        return InspectResult(
            inspection=INSPECTION,
            model=TABLE_FILE,
            calibration=CALIBRATION,
            scores=TABLE_FILE,
            baseline=BASELINE,
            files=(),
            layers=self.world.layers,
            residual_adds=(),
            metric=Metric.TOP1,
            scored_kinds=(OutputKind.LOGITS,),
            samples=100,
            decided=self.decided,
            batch=10,
            processors=1,
            sample_seconds=0.05,
        )

    def confidence(self, name: str, request: ConfidenceRequest) -> ConfidenceResult:
        return ConfidenceResult(100)

    def ranges(self, name: str, request: RangesRequest) -> RangesResult:
        return RangesResult(TABLE_FILE, dict.fromkeys(self.world.layers, (Precision.INT8,)))

    def biases(self, name: str, request: BiasesRequest) -> CorrectResult:
        return CorrectResult(BIASES_FILE, ())

    def correct(self, name: str, request: CorrectRequest) -> CorrectResult:
        return CorrectResult(TABLE_FILE, ())

    def sensitivity(self, name: str, request: SensitivityRequest) -> SensitivityResult:
        return SensitivityResult(FileRef(f"{name}.npz", "2" * 64), {PROVIDER: 1})

    def hessian(self, name: str, request: HessianRequest) -> HessianResult:
        return HessianResult((), 32, {PROVIDER: 1})

    def interactions(self, name: str, request: InteractionsRequest) -> InteractionsResult:
        return InteractionsResult((), {PROVIDER: 1})

    def rank(self, name: str, request: RankRequest) -> RankResult:
        return RankResult(TABLE_FILE, TABLE_FILE, {"loss": tuple(LayerPrecision(layer, Precision.INT8) for layer in self.world.layers)})

    def trial(self, name: str, request: TrialRequest) -> Trial:
        trial = self.world.trial(request.index, request.precisions, request.proposed_by)
        return dataclasses.replace(trial, fingerprint=name.removeprefix("trial/"))

    def predict(self, name: str, request: PredictRequest) -> PredictResult:
        if request.ranked is None:
            tried = CandidateSequence(FASTEST, (self.world.all_quantized,), (self.world.ratio(self.world.layers),))
        else:
            tried = self.world.sequence(name=REFINED if request.refined else FRONTIER)
        names = tuple(self.world.fingerprint(candidate) for candidate in tried.rungs)
        sequence = PredictedSequence(tried.name, tried.rungs, tried.ratios, names)
        return PredictResult((sequence,), KERNELS_MS, FittedTimes(1.0, {}, len(request.trials)), LossCheck(1.0, 0, 0, 0.0), {})

    def baseline(self, name: str, request: BaselineRequest) -> BaselineResult:
        assert request.final
        return BaselineResult(FINAL_BASELINE, FINAL_INSPECTION, ())

    def rebuild(self, name: str, request: RebuildRequest) -> Trial:
        return dataclasses.replace(request.finalist, size_bytes=REBUILT_BYTES)

    def verdict(self, name: str, request: VerdictRequest) -> VerdictResult:
        kept = AccuracyVerdict(
            Answer.MET, Metric.TOP1, 0.9, 0.9, 0.0, (0.0, 0.0), DEFAULT_CONFIDENCE, IntervalMethod.SAME_ENGINE, 100, 0, 0.1, 0.0, 100,
            Selection.SHARED,
        )  # fmt: skip
        return VerdictResult((), kept, None, 1.0, {}, {}, None, 0.0, None, 0.9, {}, 1, {}, None)

    def offers(self, name: str, request: OffersRequest) -> OffersResult:
        return OffersResult()

    def report(self, name: str, request: ReportRequest) -> JobOutcome:
        return JobOutcome({"outcome": "improved"}, "engine.onnx", BASELINE, {})

    def names(self, stage: str | None = None) -> list[str]:
        return [call.name for call in self.calls if stage in (None, call.stage)]

    def requests(self, kind: type[T]) -> list[T]:
        """Return the requests of one type, in order."""
        return [call.request for call in self.calls if isinstance(call.request, kind)]

    @property
    def reported(self) -> ReportRequest:
        """What the report was asked for."""
        (request,) = self.requests(ReportRequest)
        return request

    @property
    def judged(self) -> VerdictRequest:
        """What the first verdict was asked for."""
        return self.requests(VerdictRequest)[0]


@dataclasses.dataclass
class Watcher:
    stages: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    trials: list[tuple[int, int | None]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    notes_at: list[str] = dataclasses.field(default_factory=list)  # the stage entered last

    def entered(self, stage: str, progress: float) -> None:
        self.stages.append((stage, progress))

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        """Nothing to show."""

    def noted(self, text: str) -> None:
        self.notes.append(text)
        self.notes_at.append(self.stages[-1][0])

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        """Nobody is idle who could begin them."""

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        self.trials.append((len(trials), best))


@dataclasses.dataclass
class Replay:
    """What a durable driver does after a restart: returns what a stage returned, or raises what it raised, by its name."""

    stages: FakeStages
    known: dict[str, Mapping[str, object] | Exception] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str, str, tuple[float, float]]] = dataclasses.field(default_factory=list)

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        self.asked.append((name, stage, json.dumps(request, sort_keys=True), span))
        if name not in self.known:
            try:
                self.known[name] = self.stages(name, stage, request, span)
            except EngineError as error:
                self.known[name] = error
        answer = self.known[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


def asked(**config: object) -> JobRequest:
    return JobRequest(JobFiles(MODEL, CALIBRATION), config_from_json({"accuracy": {"metric": "top1", "min_relative": 0.999}, **config}))


def run(stages: RunStage, request: JobRequest | None = None) -> tuple[JobOutcome, Watcher]:
    """Return what the job gives and who watched it."""
    watcher = Watcher()
    return optimize(request or asked(), stages, watcher), watcher


def reported(stages: FakeStages) -> tuple[Trial, ...]:
    return stages.reported.trials
