"""What the verdict is about: the engines of the search, or, where those were built at a lower level, the baseline and the finalists anew.

Part of the pipeline and like it deterministic: it asks for stages and handles their JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from calibration.codec import json_from_value, value_from_json
from engine_builder.config.builder_options import BuilderConfig
from engine_builder.errors import EngineError, StageCancelledError
from engine_builder.records.trial import Trial

Run = Callable[[str, str, Mapping[str, object], tuple[float, float]], dict[str, object]]  # see ``pipeline.RunStage``


@dataclass(frozen=True, slots=True)
class FinalEngines:
    """What is judged and timed."""

    basics: dict[str, object]  # the request of every stage, with the baseline that ships
    finalists: tuple[Trial, ...]  # safest first
    notes: tuple[str, ...]  # what could not be built again


def final_engines(
    finalists: Sequence[Trial], builder: BuilderConfig, basics: Mapping[str, object], run: Run, span: tuple[float, float]
) -> FinalEngines:
    """Return the engines that may ship.

    A finalist that cannot be built at the final level is none. If the baseline cannot, there is nothing fair to compare with at that
    level, and the engines of the search are judged.

    Args:
        finalists: Trials, safest first.
        builder: The job's settings.
        basics: The request of every stage.
        run: Runs a stage.
        span: The part of the job's progress.
    """
    if not builder.rebuilds:
        return FinalEngines(dict(basics), tuple(finalists), ())
    level = f"at optimization level {builder.optimization_level}"
    step = (span[1] - span[0]) / (len(finalists) + 1)
    try:
        built = run("final/baseline", "baseline", {**basics, "final": True}, (span[0], span[0] + step))
    except StageCancelledError:
        raise
    except EngineError as error:
        note = f"the baseline could not be built {level}, so the engines of the search, built at {builder.search_level}, were judged: "
        return FinalEngines(dict(basics), tuple(finalists), (note + error.detail,))
    final = {**basics, "inspection": built["inspection"], "model": built["baseline"]}
    trials, notes = [], []
    for index, trial in enumerate(finalists, start=1):
        place = (span[0] + step * index, span[0] + step * (index + 1))
        try:
            found = run(f"final/{trial.fingerprint}", "rebuild", {**final, "finalist": json_from_value(trial)}, place)
        except StageCancelledError:
            raise
        except EngineError as error:
            notes.append(f"finalist {trial.fingerprint} could not be built {level}: {error.detail}")
        else:
            trials.append(value_from_json(Trial, found["trial"]))
    return FinalEngines(final, tuple(trials), tuple(notes))
