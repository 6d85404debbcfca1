"""How the workflow engine keeps values and errors: as JSON."""

from __future__ import annotations

import json

from dbos import Serializer

from calibration.errors import OptimizerError, error_from_problem
from engine_builder.errors import EngineError


class JsonSerializer(Serializer):
    """Keeps values and errors as JSON: whoever can write the database cannot make us run code."""

    def name(self) -> str:
        """Return the name that is noted beside each value."""
        return "onnx-trt-optimizer-json"

    def serialize(self, data: object) -> str:
        """Return the JSON of a value or of an error."""
        if isinstance(data, OptimizerError):
            return json.dumps({_ERROR: data.problem(), _SECONDS: data.seconds if isinstance(data, EngineError) else 0.0})
        if isinstance(data, BaseException):
            return json.dumps({_ERROR: OptimizerError(f"{type(data).__name__}: {data}", fix=REPORT_IT).problem()})
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> object:
        """Return the value, or the error as the class it was, if that is one of ours."""
        data = json.loads(serialized_data)
        if not isinstance(data, dict) or _ERROR not in data or not set(data) <= {_ERROR, _SECONDS}:
            return data
        error = error_from_problem(data[_ERROR])
        if isinstance(error, EngineError):
            error.seconds = float(data.get(_SECONDS, 0.0))
        return error


_ERROR = "__error__"
_SECONDS = "__seconds__"
REPORT_IT = "This is a fault of the service: report it with the job's id and the server's log."
