"""Weights that a stand-in's plan is built without, and how they come back, as in TensorRT: whoever forgets them gets zeros, and no word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx

from tests.tensorrt_stand_in.building import rtx
from tests.tensorrt_stand_in.orders import Step, harm
from tests.tensorrt_stand_in.plan_file import with_weights
from tests.tensorrt_stand_in.running import ICudaEngine


class Refitter:
    """Puts weights into an engine."""

    def __init__(self, engine: ICudaEngine, log: Any) -> None:
        self.engine, self.log = engine, log
        self.given: dict[str, bytes] = {}

    def get_missing_weights(self) -> list[str]:
        """Return the weights that were not given."""
        return [name for name in self.engine.plan.header.stripped if name not in self.given]

    def refit_cuda_engine(self) -> bool:
        """Put them in; False, as in life, where one is missing."""
        if self.get_missing_weights():
            return False
        if harm(Step.REFIT, is_quantized=self.engine.plan.header.is_quantized) is not None:
            self.log.log(rtx.ILogger.Severity.ERROR, "IRefitter::refitCudaEngine: Error Code 1: Myelin (ordered: told to refuse it)")
            return False
        self.engine.plan = with_weights(self.engine.plan, self.given)
        return True


class OnnxParserRefitter:
    """Reads weights from a model."""

    def __init__(self, refitter: Refitter, log: Any) -> None:
        self._refitter = refitter
        self._errors: list[str] = []

    def refit_from_file(self, path: str) -> bool:
        """Give the refitter the weights of a model; False where it has not all that the engine lacks."""
        found = {tensor.name: tensor for tensor in onnx.load_model(path).graph.initializer}
        wanted = {tensor.name: tensor for tensor in onnx.load_model_from_string(self._refitter.engine.plan.model).graph.initializer}
        for name in self._refitter.engine.plan.header.stripped:
            if name in found and (found[name].data_type, found[name].dims) == (wanted[name].data_type, wanted[name].dims):
                self._refitter.given[name] = found[name].SerializeToString()
        whole, put = len(self._refitter.engine.plan.header.stripped), len(self._refitter.given)
        if put < whole:
            self._errors.append(f"Only successfully refitted {put} weights out of {whole}")
        return put == whole

    @property
    def num_errors(self) -> int:
        """How many errors there were."""
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        """Return one."""
        return SimpleNamespace(desc=lambda: self._errors[index])
