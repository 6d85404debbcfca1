"""Build routes of the leading engine: each is built, scored and timed beside it; those that help are engines like any other.

Part of the pipeline and like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from engine_builder.backends.base import Capabilities
from engine_builder.config.builder_options import BuildRoutes
from engine_builder.errors import EngineError
from engine_builder.pipeline.observer import Observer
from engine_builder.pipeline.routes.route_budget import RouteBudget
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.pipeline.stage_table import ROUTE
from engine_builder.records.build_route import Choice, Route, TriedRoute, TriedRoutes, route_text, routed_fingerprint
from engine_builder.records.trial import Accuracy, Trial
from engine_builder.search.measured_front import fast_enough, finalists, ratio_of
from engine_builder.search.moves.build_routes import helps, mixed_routes, single_routes
from engine_builder.stage_io.engines import EngineJob, RouteRequest, RouteResult
from engine_builder.timing import RelativeLatency

Seen = Callable[[Trial], Accuracy | None]
ALL_TRIED = "every route that may help was tried"


@dataclass(frozen=True, slots=True)
class Routed:
    """What the routes gave."""

    helped: tuple[Trial, ...] = ()  # engines that may ship
    scored: int = 0  # engines that were scored: among so many more one is chosen
    found: TriedRoutes | None = None  # None where none was tried
    notes: tuple[str, ...] = ()  # why none was tried, where the user would expect it


def with_routes(
    trials: Sequence[Trial],
    seen: Seen,
    largest_ratio: float | None,
    job: EngineJob,
    capabilities: Capabilities,
    driver: RunStage,
    seconds: Callable[[], float],
    observer: Observer,
) -> Routed:
    """Return what the build routes of the leading engine gave.

    Args:
        trials: Of the search.
        seen: Which accuracy of a trial the search may look at.
        largest_ratio: Latency that is fast enough, to the baseline's; None where the fastest engine is looked for.
        job: The job, with the knobs of its builder.
        capabilities: Of the target.
        driver: Runs a stage.
        seconds: What the job's stages so far took, as recorded.
        observer: Is told when routes begin.
    """
    wanted = job.config.builder.build_routes
    if wanted is BuildRoutes.OFF or job.config.assignment_only or not capabilities.has_build_routes:
        return Routed()
    if not job.knobs:
        return Routed(notes=("no build routes were tried: the TensorRT that is installed offers none",))
    origin = leading(trials, seen, largest_ratio)
    if origin is None:
        return Routed()
    observer.entered("routes", ROUTE.progress[0])
    attempts = _Attempts(job, origin, len(trials), seen, driver, RouteBudget(job.config, trials, origin, seconds))
    ended = attempts.singles()
    if ended is None and wanted is not BuildRoutes.FAST:
        ended = attempts.mixed()
    found = TriedRoutes(origin.fingerprint, len(job.knobs), tuple(attempts.tried), ended or ALL_TRIED)
    return Routed(tuple(attempts.helped), attempts.scored, found)


def leading(trials: Sequence[Trial], seen: Seen, largest_ratio: float | None) -> Trial | None:
    """Return the engine whose routes are worth trying: the fastest finalist, None where there is none.

    Where an engine must be fast enough: the fastest engine, if none is fast enough; else accuracy is what is looked for, and a route that
    makes an engine faster is no help.

    Args:
        trials: Of the search.
        seen: Which accuracy of a trial the search may look at.
        largest_ratio: Latency that is fast enough, to the baseline's; None where the fastest engine is looked for.
    """
    if largest_ratio is None:
        among: Iterable[Trial] = finalists(trials, seen)
    elif largest_ratio >= 1.0 or fast_enough(trials, seen, largest_ratio):
        among = ()
    else:
        among = (trial for trial in trials if trial.is_candidate and trial.latency is not None and trial.on_all is not None)
    return min((trial for trial in among if trial.engine is not None), key=ratio_of, default=None)


class _Attempts:
    """Tries routes and keeps what came of them. Not thread-safe."""

    def __init__(self, job: EngineJob, origin: Trial, index: int, seen: Seen, driver: RunStage, budget: RouteBudget) -> None:
        self._job, self._origin, self._seen, self._driver, self._budget = job, origin, seen, driver, budget
        self._index = index
        self._at, self._end = ROUTE.progress
        self._choices: dict[Choice, float] = {}  # ratio of each choice that helped by itself
        self.tried: list[TriedRoute] = []
        self.helped: list[Trial] = []
        self.scored = 0

    def singles(self) -> str | None:
        """Try one knob at a time; return why not all."""
        routes = single_routes(self._job.knobs)
        for place, route in enumerate(routes):
            if (ended := self._budget.ended()) is not None:
                return ended
            ratio = self._try(route, len(routes) - place)
            if ratio is not None:
                self._choices[route[0]] = ratio
        return None

    def mixed(self) -> str | None:
        """Try the product of what helped, while it is predicted to be faster than what was measured; return why not all."""
        best, combinations = min(self._choices.values(), default=1.0), list(mixed_routes(self._choices))
        for place, (route, predicted) in enumerate(combinations):
            if predicted >= best:
                return None
            if (ended := self._budget.ended()) is not None:
                return ended
            best = min(best, self._try(route, len(combinations) - place) or 1.0)
        return None

    def _try(self, route: Route, left: int) -> float | None:
        """Return the ratio to the engine that it came from where the route helped; ``left`` routes share the progress that is left."""
        text = route_text(route)
        fingerprint = routed_fingerprint(self._origin.fingerprint, text)
        low, self._at = self._at, self._at + (self._end - self._at) / (left + 1)
        most = self._budget.most_seconds()
        request = RouteRequest(self._job, self._origin, text, self._index, most)
        try:
            result = run(self._driver, ROUTE, request, key=f"route/{fingerprint}", span=(low, self._at))
        except EngineError as error:
            why = f"it did not end within {most:.3g} seconds" if error.seconds >= most else error.detail
            self._budget.told(error.seconds, failed=True)
            self.tried.append(TriedRoute(text, fingerprint, None, None, helped=False, why_not=why, seconds=error.seconds))
            return None
        return self._judged(text, result)

    def _judged(self, text: str, result: RouteResult) -> float | None:
        trial, relative = result.trial, result.relative
        self._budget.told(trial.seconds, failed=False)
        self.scored += 1
        why_not = self._why_not(trial, relative)
        score = None if trial.on_all is None else trial.on_all.score
        self.tried.append(TriedRoute(text, trial.fingerprint, relative, score, why_not is None, why_not, trial.seconds))
        if why_not is not None:
            return None
        self.helped.append(replace(trial, index=self._index))
        self._index += 1
        return relative.ratio

    def _why_not(self, trial: Trial, relative: RelativeLatency) -> str | None:
        accuracy = self._seen(trial)
        if accuracy is None or not accuracy.met:
            return "its engine is outside the budget"
        if not helps(relative):
            return "its engine is not faster beyond the error of the timing" if relative.ratio < 1.0 else "its engine is not faster"
        return None if trial.engine is not None else "its engine was not kept"
