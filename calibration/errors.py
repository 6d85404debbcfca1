"""The error tree that every folder shares, and its JSON form (RFC 9457 problem objects).

OptimizerError                     500  ours, unless a subclass says otherwise
├── InputError                     422  the user can fix it
│   ├── InvalidModelError               the ONNX file
│   ├── InvalidCalibrationSetError      the calibration or validation file
│   ├── InvalidMetricError              the user's own metric
│   └── InvalidConfigError              the configuration
├── CalibrationError               500  a measurement on the float model failed
├── EngineError                    500  see engine_builder/errors.py
└── ServiceError                   4xx  see service/errors.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from calibration.plain_text import plain_text

PROBLEM_TYPE_PREFIX = "urn:onnx-trt-optimizer:problem:"


class OptimizerError(Exception):
    """An error with a cause the reader can act on.

    Survives pickle and JSON with its fields, because child processes return errors as JSON and the workflow engine stores them.
    """

    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, *, fix: str) -> None:
        """Create the error.

        Args:
            detail: What is wrong: the thing, the value found and the value expected. Kept as ``plain_text``, as is ``fix``.
            fix: What the reader can do about it.
        """
        self.detail = plain_text(detail)
        self.fix = plain_text(fix)
        super().__init__(self.detail)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild through a function, since ``fix`` is keyword-only."""
        return (_rebuild, (type(self), self.detail, self.fix))

    def problem(self, hidden: Sequence[str] = ()) -> dict[str, str | int]:
        """Return the RFC 9457 object: type, title, status, detail, fix.

        Args:
            hidden: Folders of this machine that a reader elsewhere must not see; see ``calibration.plain_text``.
        """
        return {
            "type": PROBLEM_TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": plain_text(self.detail, hidden=hidden),
            "fix": plain_text(self.fix, hidden=hidden),
        }


class InputError(OptimizerError):
    """The user can fix it."""

    slug = "invalid-input"
    title = "Invalid input"
    status = 422


class InvalidModelError(InputError):
    """The ONNX model cannot be used."""

    slug = "invalid-model"
    title = "Invalid ONNX model"


class InvalidCalibrationSetError(InputError):
    """The calibration or validation set cannot be used."""

    slug = "invalid-calibration-set"
    title = "Invalid calibration set"


class InvalidMetricError(InputError):
    """The user's own metric cannot be used."""

    slug = "invalid-metric"
    title = "Invalid metric model"


class InvalidConfigError(InputError):
    """The configuration cannot be used."""

    slug = "invalid-config"
    title = "Invalid configuration"


class CalibrationError(OptimizerError):
    """A measurement on the float model failed."""

    slug = "calibration-failed"
    title = "Calibration failed"


def error_from_problem(problem: Mapping[str, object]) -> OptimizerError:
    """Return the error whose ``problem()`` gave this object; an unknown type becomes a plain OptimizerError."""
    slug = str(problem.get("type", "")).removeprefix(PROBLEM_TYPE_PREFIX)
    found = next((cls for cls in _tree(OptimizerError) if cls.slug == slug), OptimizerError)
    return found(str(problem.get("detail", "")), fix=str(problem.get("fix", "")))


def _tree(cls: type[OptimizerError]) -> list[type[OptimizerError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in _tree(sub))]


def _rebuild(cls: type[OptimizerError], detail: str, fix: str) -> OptimizerError:
    return cls(detail, fix=fix)
