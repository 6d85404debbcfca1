"""Brings the row of a job up to what its branches are at, in the transaction of a branch's change.

So there is no moment at which all branches have ended and the job has not, whatever is killed. The rules:

1. The job runs once a branch has begun. Its progress is the mean of theirs, its stage that of the running branch which is behind.
2. It ends when all branches have: succeeded, if one of them has; else failed, if one has; else cancelled.
3. Its result has the outcome of each branch by its type of GPU, and its artifacts are theirs, each in the folder of its type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from calibration.codec import json_from_value
from service.jobs.branches.planning import folder_of
from service.jobs.job_table import JOBS, job_from_row
from service.jobs.live.events import Event
from service.jobs.live.file_uses import FileUses
from service.jobs.live.telling import Teller
from service.jobs.records import Job, JobState, StoredFile


def follow(connection: sa.Connection, parent: str, teller: Teller, file_uses: FileUses, now: float) -> tuple[Event, ...]:
    """Bring a job's row up to its branches, and return what there is to tell; of a finished job nothing.

    Args:
        connection: In the transaction in which a branch was changed.
        parent: The job's id.
        teller: Writes the events.
        file_uses: Is told the files of a job that has ended.
        now: Seconds since 1970.
    """
    # Two branches that end at the same moment: the second waits here, and then sees the end of the first.
    row = connection.execute(sa.select(JOBS).where(JOBS.c.id == parent).with_for_update()).mappings().first()
    if row is None:  # the database lost it
        return ()
    job = job_from_row(row)
    if job.state.is_finished:
        return ()
    branches = branches_of(connection, parent)
    events: list[Event] = []
    if job.state is JobState.QUEUED and any(branch.started_at is not None for branch in branches):
        _write(connection, parent, {"state": JobState.RUNNING.value, "started_at": now})
        events += teller.moved(connection, parent, JobState.RUNNING)
    if all(branch.state.is_finished for branch in branches):
        _write(connection, parent, {**ended(branches), "finished_at": now})
        file_uses.note(connection, parent, tuple(artifacts_of(branches).values()))
        return (*events, *teller.ended(connection, _read(connection, parent)))
    progress, stage = _progress(branches), _stage(branches)
    if progress > job.progress or stage not in (None, job.stage):
        _write(connection, parent, {"progress": max(progress, job.progress), "stage": stage or job.stage})
        events += teller.advanced(connection, _read(connection, parent), branches)
    return tuple(events)


def cancelled(connection: sa.Connection, parent: str, teller: Teller, file_uses: FileUses, now: float) -> dict[str, tuple[Event, ...]]:
    """Cancel all branches of a job that are not finished, and return what there is to tell of each.

    The job itself is cancelled already, in the same transaction; it has the files of branches that had ended before.
    """
    statement = sa.update(JOBS).where(JOBS.c.parent == parent, JOBS.c.state.in_(_UNFINISHED)).returning(JOBS.c.id)
    ids = connection.execute(statement.values(state=JobState.CANCELLED.value, finished_at=now)).scalars().all()
    branches = branches_of(connection, parent)
    _write(connection, parent, {"artifacts": json_from_value(artifacts_of(branches))})
    file_uses.note(connection, parent, tuple(artifacts_of(branches).values()))
    return {job_id: teller.ended(connection, _read(connection, job_id)) for job_id in ids}


def branches_of(connection: sa.Connection, parent: str) -> tuple[Job, ...]:
    """Return the branches of a job, in the order of its types."""
    query = sa.select(JOBS).where(JOBS.c.parent == parent).order_by(JOBS.c.sequence)
    return tuple(map(job_from_row, connection.execute(query).mappings()))


def ended(branches: Sequence[Job]) -> dict[str, object]:
    """Return the end of a job whose branches have ended, as values of its row."""
    states = {branch.state for branch in branches}
    state = next((one for one in (JobState.SUCCEEDED, JobState.FAILED) if one in states), JobState.CANCELLED)
    if not branches:
        state = JobState.FAILED
    values: dict[str, object] = {
        "state": state.value,
        "result": result_of(branches) if JobState.SUCCEEDED in states else None,
        "error": None,
        "artifacts": json_from_value(artifacts_of(branches)),
    }
    if state is JobState.SUCCEEDED:
        values["progress"] = 1.0
    elif state is JobState.FAILED:
        values["error"] = next((branch.error for branch in branches if branch.error is not None), _LOST)
    return values


def result_of(branches: Sequence[Job]) -> dict[str, object]:
    """Return the result of a job: its outcome, and for each type of GPU that of its branch, with the engine's name among the artifacts."""
    outcomes = [str(branch.result["outcome"]) for branch in branches if branch.result is not None and "outcome" in branch.result]
    outcome = next((one for one in outcomes if one != _KEPT), outcomes[0] if outcomes else None)
    return {"outcome": outcome, "engines": {_gpu(branch): _of_branch(branch) for branch in branches}}


def artifacts_of(branches: Sequence[Job]) -> dict[str, StoredFile]:
    """Return the files of all branches, each under the folder of its type of GPU."""
    return {f"{folder_of(_gpu(branch))}/{name}": file for branch in branches for name, file in branch.artifacts.items()}


def _of_branch(branch: Job) -> dict[str, object]:
    result: Mapping[str, object] = branch.result or {}
    facts = result.get("engine")
    engine = None
    if branch.engine is not None and isinstance(facts, Mapping):
        engine = {**facts, "name": f"{folder_of(_gpu(branch))}/{branch.engine}"}
    told = {name: result.get(name) for name in ("outcome", "speedup", "predicted_speedup", "reason")}
    return {"job": branch.id, "state": branch.state.value, **told, "engine": engine, "error": branch.error}


def _gpu(branch: Job) -> str:
    return str(branch.new.config.get("gpu"))


def _progress(branches: Sequence[Job]) -> float:
    return sum(1.0 if branch.state.is_finished else branch.progress for branch in branches) / len(branches)


def _stage(branches: Sequence[Job]) -> str | None:
    running = [branch for branch in branches if branch.state is JobState.RUNNING]
    return min(running, key=lambda branch: branch.progress).stage if running else None


def _write(connection: sa.Connection, job_id: str, values: Mapping[str, object]) -> None:
    connection.execute(sa.update(JOBS).where(JOBS.c.id == job_id).values(**values))


def _read(connection: sa.Connection, job_id: str) -> Job:
    return job_from_row(connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).mappings().one())


_KEPT = "baseline_kept"
_UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)
_LOST = {
    "type": "urn:onnx-trt-optimizer:problem:internal-error",
    "title": "Internal error",
    "detail": "the server lost the branches of the job",
    "fix": "Submit the job again.",
}
