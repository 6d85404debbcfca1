"""Reports of jobs that ended in the ways that a reader must tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from calibration.accuracy.verdict import AccuracyVerdict, Answer
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.job_result import reported_verdict
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.stage_io.engines import JudgedTrial
from engine_builder.timing import RelativeLatency
from tests.engine_builder.report_body import BODY, BUDGET, FULL_VERDICT, NO_OFFERS, RESULT, trial


def verdict(over: float, answer: Answer = Answer.MET_ON_SAMPLE, score: float = 0.899) -> AccuracyVerdict:
    return replace(FULL_VERDICT, answer=answer, probability_over_budget=over, engine=score, drop=0.9 - score)


def tried(index: int, ratio: float, over: float) -> Trial:
    found = trial(index, 1, ratio, 0.001 if over < 0.5 else -0.01)
    assert found.on_all is not None
    return replace(found, on_all=replace(found.on_all, probability_over=over))


def decided(
    trials: Sequence[Trial],
    judged: Mapping[str, AccuracyVerdict],
    chosen: str,
    final: Mapping[str, RelativeLatency] | None = None,
) -> ReportBody:
    """Return the report of a job that tried these, judged some of them and chose one."""
    answer = judged[chosen]
    timed = {one.fingerprint: RelativeLatency(one.latency.ratio, 0.002) for one in trials if one.latency and one.fingerprint in judged}
    timed |= final or {}
    return replace(
        BODY,
        trials=(trial(0, 0, 1.0, 0.9 - BUDGET, "baseline"), *trials),
        finalists=tuple(JudgedTrial(name, one) for name, one in judged.items()),
        chosen=chosen,
        final_timing=replace(BODY.final_timing, relative=timed),
        result=replace(RESULT, verdict=reported_verdict(answer), speedup=1.0 / timed[chosen].ratio, speedup_spread=0.003, offers=NO_OFFERS),
    )
