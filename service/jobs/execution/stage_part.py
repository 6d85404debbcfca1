"""A part of a stage on a worker that has nothing else to do: a workflow of its own.

A cpu worker takes it like a job. The worker of a GPU takes it behind all that needs a GPU, and gives it up for that; where CUDA works
there, it probes with that. A part that fails on CUDA is measured again on the CPU, and so are all further ones of its job on this worker.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping

import sqlalchemy as sa
from dbos import DBOS

from calibration.errors import CalibrationError
from calibration.execution.provider import Provider
from engine_builder.config.config import config_from_json
from engine_builder.errors import EngineError, GpuInUseError, StageCancelledError
from engine_builder.pipeline.parts import on_provider
from service.database.members import Member
from service.errors import RemovedError
from service.jobs.execution.giving_way import GivingWay
from service.jobs.execution.gpu_stage import CANCELLED
from service.jobs.execution.job_run import JobRun
from service.jobs.execution.placement import placed_on
from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import JobCancelled, ServerStopping, Tenure, why_ended
from service.jobs.faults.waiting import Patience
from service.jobs.records import Job, JobState
from service.jobs.resources import Deps

logger = logging.getLogger(__name__)

StagePart = Callable[[str, str, dict[str, object]], dict[str, object]]


def make_stage_part(deps: Deps, active: ActiveJobs) -> StagePart:
    """Return the workflow: from a job's id, the stage and the request of a part to its result, or that it was given up."""
    without_cuda = deque[str](maxlen=_MOST_JOBS)  # jobs of which a part failed on CUDA here

    def stage_part(job_id: str, stage: str, request: dict[str, object]) -> dict[str, object]:
        own_id = str(DBOS.workflow_id)
        with active.with_job(own_id):
            tenure = Tenure(deps)
            patience = Patience(deps, job_id, lambda: why_ended(deps, job_id, tenure))
            try:
                job = patience.run(lambda: deps.store.get(job_id))
                if job.state is not JobState.RUNNING:
                    return {CANCELLED: True}
                assert deps.membership is not None
                if (member := deps.membership.member).gpu is not None:
                    need = GivingWay(deps, job_id, own_id, tenure)
                    return _on_lent_worker(JobRun(deps, job, patience, tenure), job, stage, request, member, need, without_cuda, patience)
                is_placed = placed_on(config_from_json(dict(job.new.config)), deps.membership.members) is not None
                run = JobRun(deps, job, patience, tenure, may_open_gpu=not is_placed)
                return patience.run(lambda: run.part_in_child(stage, request, lambda fraction: None))
            except (JobCancelled, RemovedError):
                return {CANCELLED: True}
            except StageCancelledError:
                if tenure.is_over():
                    raise ServerStopping from None
                return {CANCELLED: True}
            except GpuInUseError as error:
                logger.info("job %s: a part of %s is left to others: %s", job_id, stage, error.detail)
                return {CANCELLED: True}
            except sa.exc.DBAPIError as error:  # of the engine: the dispatcher finds that nobody runs this
                raise ServerStopping from error

    return stage_part


def _on_lent_worker(
    run: JobRun,
    job: Job,
    stage: str,
    request: Mapping[str, object],
    member: Member,
    need: GivingWay,
    without_cuda: deque[str],
    patience: Patience,
) -> dict[str, object]:
    """Return what a part gives on the worker of a GPU, which it gives back as soon as somebody needs that.

    Raises:
        StageCancelledError: It was given up.
        GpuInUseError: Another process of this machine has the GPU.
    """

    def measured(provider: Provider) -> dict[str, object]:
        asked, lends = on_provider(request, provider), provider is Provider.CUDA
        return patience.run(lambda: run.beside_in_child(stage, asked, need.is_over, is_charged=True, lends_gpu=lends))

    if member.probes == Provider.CUDA and job.id not in without_cuda:
        try:
            return measured(Provider.CUDA)
        except GpuInUseError:
            raise
        except (CalibrationError, EngineError) as error:
            without_cuda.append(job.id)
            logger.warning("job %s: a part of %s failed on CUDA, and runs on the CPU: %s", job.id, stage, error.detail)
            run.say_once(f"warning: {stage}: a part failed on CUDA, and was measured again on the CPU: {error.detail}")
    return measured(Provider.CPU)


_MOST_JOBS = 1000  # that are remembered
