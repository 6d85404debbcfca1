"""What self-check finds: a list of checks, each with its outcome, and what every stage returned."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from calibration.errors import OptimizerError
from engine_builder.errors import UnsupportedTargetError

RunStage = Callable[[str, Mapping[str, object]], Mapping[str, object]]

REPORT = "send us the file that this command writes"


class Outcome(enum.StrEnum):
    """What came of a check."""

    PASSED = "pass"
    FAILED = "FAIL"
    SKIPPED = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    name: str
    outcome: Outcome
    found: str
    todo: str = ""  # empty only for a check that passed


@dataclass(slots=True)
class SelfCheck:
    """All that was found; ``raw`` holds each stage's result by stage and case, ``seconds`` what each took, failed ones too."""

    checks: list[Check] = field(default_factory=list)
    raw: dict[str, Mapping[str, object]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    gpus_row: dict[str, object] | None = None  # the GPU's entry for gpus.json with the constants measured here
    on_change: Callable[[SelfCheck], None] = lambda result: None  # told after every check

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome is Outcome.FAILED)

    def add(self, name: str, passed: bool, found: str, todo: str) -> None:
        """Note a check that ran."""
        self.checks.append(Check(name, Outcome.PASSED, found) if passed else Check(name, Outcome.FAILED, found, todo))
        self.on_change(self)

    def skip(self, name: str, why: str, todo: str) -> None:
        """Note a check that did not run."""
        self.checks.append(Check(name, Outcome.SKIPPED, why, todo))
        self.on_change(self)

    def attempt(self, name: str, run: RunStage, stage: str, request: Mapping[str, object], key: str) -> Mapping[str, object] | None:
        """Return a stage's result; without one the check ``name`` is noted: skipped where the machine lacks something, else failed."""
        try:
            self.raw[key] = self._timed(run, stage, request, key)
        except UnsupportedTargetError as error:
            self.skip(name, error.detail, error.fix)
            return None
        except OptimizerError as error:
            self.add(name, False, error.detail, error.fix)
            return None
        return self.raw[key]

    def _timed(self, run: RunStage, stage: str, request: Mapping[str, object], key: str) -> Mapping[str, object]:
        start = time.monotonic()
        try:
            return run(stage, request)
        finally:
            self.seconds[key] = round(time.monotonic() - start, 3)
