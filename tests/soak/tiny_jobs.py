"""The jobs of the soak: small real ones, each another network or other samples, and what makes their results right."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tests.model_text import cnn

SAMPLES = 64
NETWORKS = 8  # that come again; what was measured of one serves its later jobs with the same samples
SAMPLE_SETS = 3
MIN_RELATIVE = 0.5
_INPUT, _OUTPUT = "input", "logits"


@dataclass(frozen=True)
class TinyJob:
    """One job: its number tells all about it."""

    number: int
    seed: int

    @property
    def key(self) -> str:
        """The key by which a submission that is sent again is known."""
        return f"soak-{self.seed}-{self.number}"

    @property
    def config(self) -> str:
        """The configuration, as a form has it."""
        return json.dumps({"batch_size": 8, "accuracy": {"metric": "agreement", "min_relative": MIN_RELATIVE}, "search": {"max_trials": 2}})

    def model(self) -> onnx.ModelProto:
        """Return the network: a small residual one with weights of its own."""
        model = cnn()
        rng = np.random.default_rng([self.seed, self.number % NETWORKS])
        for initializer in model.graph.initializer:
            weights = onnx.numpy_helper.to_array(initializer)
            drawn = rng.normal(scale=weights.std() or 1.0, size=weights.shape).astype(np.float32)
            initializer.CopyFrom(onnx.numpy_helper.from_array(drawn, initializer.name))
        return model

    def samples(self) -> NDArray[np.float32]:
        """Return what the network is calibrated and scored on, (``SAMPLES``, 1, 8, 8)."""
        rng = np.random.default_rng([self.seed, self.number % SAMPLE_SETS, 1])
        return rng.normal(size=(SAMPLES, 1, 8, 8)).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        """Return the files of the form."""
        stream = io.BytesIO()
        np.savez(stream, **{_INPUT: self.samples()})  # type: ignore[arg-type]  # numpy's stubs take the names for its own
        return {"model": self.model().SerializeToString(), "calibration": stream.getvalue(), "validation": stream.getvalue()}

    def wrong(self, job: Mapping[str, object], engine: bytes) -> str | None:
        """Return what is wrong with a job that has ended; None where nothing is.

        Args:
            job: As callers see it.
            engine: The engine that was downloaded.
        """
        result, trials = job.get("result"), job.get("trials")
        if job.get("state") != "succeeded" or not isinstance(result, dict) or not isinstance(trials, list):
            return f"it is {job.get('state')}: {job.get('error')}"
        failures = [trial["failure"] for trial in trials if trial["failure"]]
        if failures:
            return f"trials failed: {failures}"
        if len(engine) != result["engine"]["size_bytes"]:
            return f"its engine has {len(engine)} bytes, {result['engine']['size_bytes']} are said"
        found, said = self._agreement(engine), float(result["chosen"]["accuracy"])
        if abs(found - said) > _FLIPS / SAMPLES:
            return f"its engine agrees with the network on {found:.3f} of the samples, {said:.3f} is said"
        return None

    def _agreement(self, engine: bytes) -> float:
        """Return the share of samples for which the engine gives the network's class."""
        samples = self.samples()
        classes = [_classes(model, samples) for model in (self.model().SerializeToString(), engine)]
        return float((classes[0] == classes[1]).mean())


def _classes(model: bytes, samples: NDArray[np.float32]) -> NDArray[np.int64]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    batches = [samples[start : start + 8] for start in range(0, SAMPLES, 8)]
    return np.concatenate([np.asarray(session.run([_OUTPUT], {_INPUT: batch})[0]).argmax(1) for batch in batches])


_FLIPS = 1.5  # of samples whose two best classes are as good as equal
