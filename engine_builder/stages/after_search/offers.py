"""The stage ``offers``: what other budgets would give, and the engines of the measured front for whoever takes one of them.

Engines come safest first, as the search saw them; at each budget they are judged in this order, and the first that is not accepted ends
the judging, as in the stage ``verdict``: the fastest of those accepted is what the budget gives. An engine is accepted when it is more
likely inside the budget than not, or, where a confidence is asked for, when the verdict says ``met``. The engine that is shipped anyway
has passed one test and is judged in any case.

Engines that another build would give again are built again; of the others the trial kept its file.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace

import numpy as np

from calibration.accuracy.budget import Budget
from calibration.accuracy.drop_posterior import changes_of, probabilities_over, slack_draws
from calibration.accuracy.margins.change_posterior import ChangeDraws
from calibration.accuracy.metrics import BudgetKey
from calibration.accuracy.offers.likely_inside import is_likely_inside
from calibration.accuracy.offers.offered_budgets import budget_key, budgets_around, is_looser, usual_budgets
from calibration.accuracy.verdict import DEFAULT_CONFIDENCE, AccuracyVerdict, Selection, drop_evidence, judge
from engine_builder.backends.base import Backend
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.quantized_engine import build, recipe_of
from engine_builder.errors import EngineError
from engine_builder.evaluation.measurement import read_scores, search_half
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.search.shipping_rule import is_accurate_enough
from engine_builder.stage_io.offers import FRONT, BudgetOffer, NotKept, OfferedEngine, OffersRequest, OffersResult
from engine_builder.workspace.model_files import keep_model
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace


def offers(
    request: OffersRequest,
    context: StageContext,
    *,
    building: Building = building_backend,
    clock: Callable[[], float] = time.perf_counter,
) -> OffersResult:
    """Judge the engines at every budget, and keep those that are offered.

    Args:
        request: The engines.
        context: Where they go.
        building: Gives the backend.
        clock: Seconds from any origin.
    """
    start = clock()
    job = request.job
    inspection = context.workspace.read_value(Inspection, job.inspection)
    panel = _Panel(request, inspection, context.workspace)
    key = budget_key(job.config.accuracy.budget)
    budgets = tuple(_given(budget, panel, request) for budget in usual_budgets(key, panel.baseline)) if panel.trials else ()
    context.progress(0.3, "judged at other budgets")
    backend = building(job.config, context, final=True)
    answers = {offer.fingerprint for offer in budgets}
    found = [_Offered(index, trial, kept) for index, trial in enumerate(panel.trials) if (kept := panel.tightest(index, key)) is not None]
    offered = []
    for one in sorted(found, key=lambda item: _rank(item.trial, request, answers)):
        trial, keeps = one.trial, one.keeps
        if trial.fingerprint not in {*answers, *request.always} and _is_beaten(one, found, request):
            continue
        engine: FileRef | None = None
        not_kept: NotKept | None = None
        if trial.fingerprint != request.shipped:
            engine, not_kept = _kept(trial, request, inspection, backend, context, has_time=clock() - start < request.seconds)
        assignment = PrecisionAssignment(tuple((inspection.baseline_precisions | trial.precisions).items()))
        written = context.workspace.write_json(f"{FRONT}/{trial.fingerprint}/assignment.json", assignment.as_json())
        counts = dict(sorted(Counter(precision.value for _, precision in assignment.choices).items()))
        assert trial.size_bytes is not None  # it was built
        answer = panel.verdict(keeps, one.index)
        offered.append(
            OfferedEngine(
                fingerprint=trial.fingerprint,
                latency=request.latency[trial.fingerprint],
                accuracy=answer.engine,
                keeps=keeps,
                verdict=answer,
                size_bytes=trial.size_bytes,
                precisions=counts,
                assignment=written,
                engine=engine,
                not_kept=not_kept,
            )
        )
    return OffersResult(tuple(sorted(offered, key=lambda one: one.latency.ratio)), budgets)


@dataclass(frozen=True, slots=True)
class _Offered:
    """A trial that some budget would give, and the tightest of these."""

    index: int  # among the trials that are judged
    trial: Trial
    keeps: Budget


class _Panel:
    """Judges all engines of a request together, as the stage ``verdict`` does: what one of them says of drops tells of the others."""

    def __init__(self, request: OffersRequest, inspection: Inspection, workspace: Workspace) -> None:
        self._request = request
        self._config = request.job.config
        self._metric = inspection.reference.metric
        reference = workspace.read_scores(inspection.reference.scores)
        used = np.arange(len(reference))
        if request.selection is Selection.HELD_OUT:
            used = np.setdiff1d(used, search_half(len(reference), self._config.search.seed))
        scored = [(trial, trial.scores) for trial in request.engines if trial.scores is not None]
        self.trials = tuple(trial for trial, _ in scored)
        self._reference = reference[used]
        self._engines = [
            read_scores(file, workspace, self._metric, are_outputs_equal=trial.are_outputs_equal).of(used) for trial, file in scored
        ]
        self._likely: dict[Budget, tuple[float, ...]] = {}
        self._accepted: dict[Budget, list[bool]] = {}
        self._verdicts: dict[tuple[Budget, int], AccuracyVerdict] = {}
        self._changes: ChangeDraws | None = None

    def accepted(self, budget: Budget) -> list[bool]:
        """Return whether each engine is accepted at a budget."""
        if budget not in self._accepted:
            self._accepted[budget] = [self._is_accepted(budget, index) for index in range(len(self._engines))]
        return self._accepted[budget]

    @property
    def baseline(self) -> float:
        """The float model's mean score."""
        return float(self._reference.mean())

    def tightest(self, index: int, key: BudgetKey) -> Budget | None:
        """Return the tightest budget at which an engine is accepted, which it is at all that are looser; None where there is none."""
        budgets = budgets_around(key, self.baseline, float(self._engines[index].scores.mean()))
        first = bisect.bisect_left(budgets, 1, key=lambda budget: int(self.accepted(budget)[index]))
        return budgets[first] if first < len(budgets) else None

    def verdict(self, budget: Budget, index: int) -> AccuracyVerdict:
        """Return all that there is to say of an engine at a budget."""
        if (budget, index) not in self._verdicts:
            self._verdicts[budget, index] = judge(
                self._metric,
                self._reference,
                self._engines[index].scores,
                budget,
                confidence=self._config.accuracy.confidence or DEFAULT_CONFIDENCE,
                selection=self._request.selection,
                rng=np.random.default_rng(self._config.search.seed),
                probability_over_budget=self._probabilities(budget)[index],
                chosen_from=self._request.tried if self._request.selection is Selection.SHARED else 1,
                counts_needed=False,
            )
        return self._verdicts[budget, index]

    def _is_accepted(self, budget: Budget, index: int) -> bool:
        probability, confidence = self._probabilities(budget)[index], self._config.accuracy.confidence
        if confidence is not None:  # the verdict is asked only where it may say ``met``
            return probability <= 1.0 - confidence and is_accurate_enough(self.verdict(budget, index), confidence)
        return is_likely_inside(
            self._metric,
            self._reference,
            self._engines[index].scores,
            budget,
            probability_over_budget=probability,
            rng=np.random.default_rng(self._config.search.seed),
        )

    def _probabilities(self, budget: Budget) -> tuple[float, ...]:
        """Return how likely each engine is over a budget, as all of them say together."""
        if budget not in self._likely:
            evidence = [
                drop_evidence(
                    self._metric, self._reference, one.scores, budget, margins=one.margins, are_outputs_equal=one.are_outputs_equal
                )
                for one in self._engines
            ]
            rng, are_chosen_from = np.random.default_rng(self._config.search.seed), len(evidence) > 1
            if not self._likely:  # the first budget: what is drawn of decisions holds for every other one
                self._changes = changes_of(evidence, rng, are_chosen_from=are_chosen_from)
            draws = slack_draws(evidence, rng, are_chosen_from=are_chosen_from, changes=self._changes)
            self._likely[budget] = probabilities_over(draws)
        return self._likely[budget]


def _rank(trial: Trial, request: OffersRequest, answers: Container[str | None]) -> tuple[bool, bool]:
    """Return what sorts the engines that are wanted most to the front, should there be no time to build all."""
    return trial.fingerprint not in request.always, trial.fingerprint not in answers


def _is_beaten(one: _Offered, found: Iterable[_Offered], request: OffersRequest) -> bool:
    """Return whether a faster engine keeps a budget that is as tight."""
    ratio = request.latency[one.trial.fingerprint].ratio
    return any(request.latency[other.trial.fingerprint].ratio < ratio and not is_looser(other.keeps, one.keeps) for other in found)


def _given(budget: Budget, panel: _Panel, request: OffersRequest) -> BudgetOffer:
    """Return what a budget gives: the fastest of the engines up to the first that is not accepted, or the one that is shipped."""
    accepted, is_over = [], False
    for index, (trial, is_accepted) in enumerate(zip(panel.trials, panel.accepted(budget), strict=True)):
        is_over = is_over or not is_accepted
        if is_accepted and (not is_over or trial.fingerprint == request.shipped):
            accepted.append((trial, index))
    if not accepted:
        return BudgetOffer(budget, None, None)
    fastest, place = min(accepted, key=lambda item: request.latency[item[0].fingerprint].ratio)
    return BudgetOffer(budget, fastest.fingerprint, panel.verdict(budget, place))


def _kept(
    trial: Trial, request: OffersRequest, inspection: Inspection, backend: Backend, context: StageContext, *, has_time: bool
) -> tuple[FileRef | None, NotKept | None]:
    """Return the engine's file under ``FRONT``, or why there is none."""
    name = f"{FRONT}/{trial.fingerprint}/{backend.capabilities.engine_name}"
    if trial.engine is not None:
        return context.workspace.copy(context.workspace.path(trial.engine), name), None
    if not has_time:
        return None, NotKept.NO_TIME
    folder = context.scratch / trial.fingerprint
    folder.mkdir()
    recipe = recipe_of(trial, inspection, request.job.calibrated)
    try:
        engine = build(recipe, backend, replace(context.part(0.3, 1.0), scratch=folder))
    except EngineError:
        return None, NotKept.FAILED
    return keep_model(engine.path, name, context.workspace), None
