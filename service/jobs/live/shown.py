"""The JSON in which callers see a job, and its row in a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from service.jobs.live.eta import branches_eta_seconds, eta_seconds
from service.jobs.records import Job, JobRow
from service.jobs.storage.holds import Hold


def job_json(job: Job, now: datetime, log_tail: Sequence[str] = (), branches: Sequence[Job] = ()) -> dict[str, object]:
    """Return the job as callers see it (the HTTP contract's one example).

    Args:
        job: The job.
        now: The present, for the estimate of the time left.
        log_tail: The last lines of its log.
        branches: The jobs that do its work, if it is one for several types of GPU.
    """
    link = f"/v1/jobs/{job.id}"
    return {
        "id": job.id,
        "state": job.state.value,
        "hold": None if job.hold is None else _hold_json(job.hold),
        "priority": job.new.priority,
        "stage": job.stage,
        "progress": round(job.progress, 4),
        "eta_seconds": branches_eta_seconds(branches, now) if branches else eta_seconds(job, now),
        "created_at": _time_text(job.created_at),
        "started_at": _time_text(job.started_at),
        "finished_at": _time_text(job.finished_at),
        "target": job.new.target,
        "tenant": job.new.tenant,
        "parent": job.new.parent,
        "branches": [_branch_json(branch) for branch in branches],
        "config": dict(job.new.config),
        "outputs": None if job.outputs is None else [dict(output) for output in job.outputs],
        "trials": [dict(trial) for trial in job.trials],
        "best": job.best,
        "result": job.result,
        "error": job.error,
        "log_tail": list(log_tail),
        "links": {"self": link, **{name: f"{link}/{name}" for name in ("engine", "artifacts", "events", "log")}},
    }


def row_json(row: JobRow) -> dict[str, object]:
    """Return the job as a list shows it: what tells it from others and how it went; the whole of it is at its link."""
    return {
        "id": row.id,
        "state": row.state.value,
        "stage": row.stage,
        "progress": round(row.progress, 4),
        "created_at": _time_text(row.created_at),
        "started_at": _time_text(row.started_at),
        "finished_at": _time_text(row.finished_at),
        "target": row.target,
        "tenant": row.tenant,
        "outcome": row.outcome,
        "speedup": row.speedup,
        "predicted_speedup": row.predicted_speedup,
        "links": {"self": f"/v1/jobs/{row.id}"},
    }


def _branch_json(branch: Job) -> dict[str, object]:
    return {
        "gpu": branch.new.config.get("gpu"),
        "id": branch.id,
        "state": branch.state.value,
        "stage": branch.stage,
        "progress": round(branch.progress, 4),
        "links": {"self": f"/v1/jobs/{branch.id}"},
    }


def _hold_json(hold: Hold) -> dict[str, object]:
    return {"reason": hold.reason, "fix": hold.fix, "since": _time_text(hold.since)}


def _time_text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
