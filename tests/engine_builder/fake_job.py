"""A job without work: stages that a fake world answers, an observer that remembers, and a driver that replays what it knows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from calibration.codec import json_from_value, value_from_json
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision
from engine_builder.config.config import config_from_json
from engine_builder.errors import EngineError
from engine_builder.pipeline.optimize import JobRequest, RunStage, optimize
from engine_builder.records.trial import Trial
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.search.fake_world import FakeWorld

MODEL, CALIBRATION, BASELINE, TABLE = (FileRef(name, "0" * 64) for name in ("model.onnx", "data.npz", "baseline.onnx", "table.json"))

Failure = Callable[[str, Mapping[str, object]], Exception | None]

HALFWAY = FakeWorld((0.0001,) * 16, budget=0.00085)  # half of its layers fit
STAGE_SECONDS = 0.5
PROVIDER = "CPUExecutionProvider"
REBUILT_BYTES = 4321


def never(stage: str, request: Mapping[str, object]) -> Exception | None:
    return None


@dataclasses.dataclass
class FakeStages:
    """Answers every stage from a fake world, and keeps what it was asked."""

    world: FakeWorld
    failure: Failure = never
    calls: list[tuple[str, str, dict[str, object], tuple[float, float]]] = dataclasses.field(default_factory=list)

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        plain = json.loads(json.dumps(request))
        assert plain == request, "a request is plain JSON"
        self.calls.append((name, stage, plain, span))
        if (error := self.failure(stage, request)) is not None:
            raise error
        answer = {**getattr(self, stage)(name, plain), "seconds": STAGE_SECONDS}
        return cast(dict[str, object], json.loads(json.dumps(answer)))

    def inspect(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        ref = {"file": "inspection.json", "sha256": "1" * 64}
        sizes = {"samples": 100, "batch": 10, "sample_seconds": 0.05, "processors": 1, "metric": "top1"}
        return {"inspection": ref, "baseline": json_from_value(BASELINE), "layers": list(self.world.layers), "sums": [], **sizes}

    def ranges(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        return {"ranges": json_from_value(TABLE), "able": {layer: ["int8"] for layer in self.world.layers}}

    def repair(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        return {"repairs": json_from_value(TABLE)}

    def sensitivity(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        return {"singles": {"file": f"{name}.npz", "sha256": "2" * 64}, "provider": PROVIDER}

    def hessian(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        return {"traces": [], "samples": 32, "provider": PROVIDER}

    def dependency(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        return {"tests": [], "provider": PROVIDER}

    def orders(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        order = json_from_value(tuple(Decision(layer, Precision.INT8) for layer in self.world.layers))
        return {"table": json_from_value(TABLE), "dependency": json_from_value(TABLE), "orders": {"loss": order}}

    def trial(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        low = value_from_json(dict[str, Precision], request["low"])
        trial = self.world.trial(cast(int, request["index"]), low, str(request["order"]))
        return {"trial": json_from_value(dataclasses.replace(trial, fingerprint=name.removeprefix("trial/")))}

    def forecast(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        ladder = self.world.ladder(name="frontier" if name == "forecast/search" else "refine")
        return {"ladders": [json_from_value(ladder)], "kernels_ms": {"layer000": {"baseline": 2.0, "int8": 1.0}}}

    def baseline(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        assert request["final"]
        return {"baseline": {"file": "final.plan", "sha256": "4" * 64}, "inspection": {"file": "final.json", "sha256": "5" * 64}}

    def rebuild(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        trial = value_from_json(Trial, request["finalist"])
        return {"trial": json_from_value(dataclasses.replace(trial, size_bytes=REBUILT_BYTES))}

    def verdict(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        return {"chosen": None}

    def report(self, name: str, request: Mapping[str, object]) -> dict[str, object]:
        return {"result": {"outcome": "improved"}, "engine": json_from_value(BASELINE), "artifacts": {}}

    def names(self, stage: str | None = None) -> list[str]:
        return [name for name, kind, _, _ in self.calls if stage in (None, kind)]

    def request(self, name: str) -> dict[str, object]:
        return next(request for known, _, request, _ in self.calls if known == name)


@dataclasses.dataclass
class Watcher:
    stages: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    trials: list[tuple[int, int | None]] = dataclasses.field(default_factory=list)

    def entered(self, stage: str, progress: float) -> None:
        self.stages.append((stage, progress))

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        self.trials.append((len(trials), best))


@dataclasses.dataclass
class Replay:
    """What a durable driver does after a restart: returns what a stage returned, or raises what it raised, by its name."""

    stages: FakeStages
    known: dict[str, dict[str, object] | Exception] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str, str, tuple[float, float]]] = dataclasses.field(default_factory=list)

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
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
    return JobRequest(MODEL, CALIBRATION, None, config_from_json({"accuracy": {"metric": "top1", "min_relative": 0.999}, **config}))


def run(stages: RunStage, request: JobRequest | None = None) -> tuple[dict[str, object], Watcher]:
    """Return what the job gives and who watched it."""
    watcher = Watcher()
    return optimize(request or asked(), stages, watcher), watcher


def reported(stages: FakeStages) -> tuple[Trial, ...]:
    return value_from_json(tuple[Trial, ...], stages.request("report")["trials"])
