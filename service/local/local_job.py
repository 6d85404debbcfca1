"""Runs one job on the command line, without a server: the same pipeline, its stages in child processes, its files in a folder."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.own_metrics.asked_metric import SUFFIX, asked_metric_text
from calibration.data.given.packed_folder import pack_folder
from calibration.errors import CalibrationError, InputError, InvalidConfigError, OptimizerError
from engine_builder.backends.registry import opens_gpu
from engine_builder.backends.target_checks import check_config, require_one_type, with_metric_model
from engine_builder.config.config import Config
from engine_builder.pipeline.observer import Observer
from engine_builder.pipeline.optimize import PIPELINE_VERSION, JobRequest, optimize
from engine_builder.pipeline.stage import RunStage
from engine_builder.records.assignment import FINGERPRINT_LENGTH
from engine_builder.stage_io.measuring import JobFiles
from engine_builder.stage_io.offers import FRONT
from engine_builder.stage_io.outcome import JobOutcome
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import FileRef, Workspace, json_bytes
from service.intake.given_files import check_files
from service.intake.unpacking import is_archive, unpack_model
from service.local.asked_function import AskedFunction
from service.local.progress import ProgressView, TrialLines
from service.local.reuse import job_record
from service.worker.child_process import STAGE_TABLE, StageLimits, run_in_child
from service.worker.job_record import JobRecord
from service.worker.kernel_times import FOLDER as KERNEL_TIMES
from service.worker.kernel_times import shared_kernel_times
from service.worker.stage_cache import DEFAULT_MAX_BYTES
from service.worker.stage_log import LOG_NAME, JobLog, versions
from service.worker.warm_parent import WarmParent

RESULT_NAME = "result.json"
WORK_PREFIX = ".work-"
_MAX_UNPACKED_BYTES = 64 * 2**30
Pipeline = Callable[[JobRequest, RunStage, Observer], JobOutcome]


@dataclass(frozen=True, slots=True)
class LocalJob:
    """What to optimize and where the files go.

    ``cache`` is a folder in which ranges, sensitivities and dependencies are kept for further jobs, and all that an interrupted job had
    done for its next run; nothing is kept without it.
    """

    model: Path
    calibration: Path
    validation: Path | None
    config: Config
    output: Path
    limits: StageLimits
    cache: Path | None = None
    cache_bytes: int = DEFAULT_MAX_BYTES
    metric_model: Path | None = None  # the user's own metric
    asked: AskedFunction | None = None  # the user's own metric, as a function of this process; in the place of a metric model

    @property
    def has_own_metric(self) -> bool:
        """Whether the metric is the user's own."""
        return self.metric_model is not None or self.asked is not None


def optimize_locally(
    job: LocalJob, view: ProgressView, *, pipeline: Pipeline = optimize, stages: str = STAGE_TABLE, forks: bool = False
) -> Mapping[str, object]:
    """Run the job, write the engine, the artifacts and ``result.json`` into its output folder, and return the result.

    No other file is left there, whatever happens; only ``log.txt`` when the job failed by no fault of the input.

    Args:
        job: The job.
        view: Shows the progress.
        pipeline: The whole job.
        stages: The module that holds the stages.
        forks: Whether the parent of stages may be a fork of this process: where that is a command's own.

    Raises:
        OptimizerError: The input cannot be used, or a stage failed.
    """
    require_one_type(job.config)
    check_config(with_metric_model(job.config, is_given=job.has_own_metric))
    check_files(job.model, job.calibration, job.validation, job.metric_model)
    with (
        _output_folder(job.output) as output,
        tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=output, ignore_cleanup_errors=True) as folder,
        closing(WarmParent(stages, forks_itself=forks)) as parent,
    ):
        parent.start()
        workspace = Workspace(Path(folder))
        log = JobLog(workspace.root, lambda: datetime.now(UTC))
        log.line(f"begins: {versions(PIPELINE_VERSION)}")
        try:
            request = _request(job, workspace)
            kernel_times = None if job.cache is None or job.cache_bytes == 0 else job.cache / KERNEL_TIMES
            with (
                shared_kernel_times(kernel_times, workspace.root, job.config),
                job_record(job.cache, job.cache_bytes, request, workspace, view) as record,
            ):
                outcome = pipeline(request, _StageRunner(job, workspace, view, log, stages, parent, record), _ViewObserver(view, log))
                log.line(f"ends: {outcome.result.get('outcome')}")
                return _deliver(outcome, workspace, output)
        except InputError:
            raise
        except Exception as error:
            log.line(f"failed: {error.detail if isinstance(error, OptimizerError) else error}")
            _deliver_log(workspace, output)
            raise


class _StageRunner:
    """The pipeline's ``RunStage``: every stage in a child process."""

    def __init__(
        self,
        job: LocalJob,
        workspace: Workspace,
        view: ProgressView,
        log: JobLog,
        stages: str,
        parent: WarmParent,
        record: JobRecord | None,
    ) -> None:
        self._limits = replace(job.limits, opens_gpu=opens_gpu(job.config.target, job.config.gpu))
        self._workspace = workspace
        self._view = view
        self._log = log
        self._stages = stages
        self._parent = parent
        self._record = record
        self._listener = None if job.asked is None else job.asked.listener

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        def show(fraction: float, message: str) -> None:
            self._view.update(span[0] + fraction * (span[1] - span[0]), f"{name}: {message}" if message else name)

        def compute() -> Mapping[str, object]:
            return run_in_child(
                stage,
                request,
                self._workspace.root,
                limits=self._limits,
                on_progress=show,
                should_cancel=lambda: False,
                stages=self._stages,
                parent=self._parent,
                listener=self._listener,
            )

        begun = time.monotonic()
        found, is_kept = (compute(), False) if self._record is None else self._record.run(name, stage, request, self._workspace, compute)
        show(1.0, "kept from an earlier run" if is_kept else "done")
        self._log.line(f"{name}: {'kept from an earlier run' if is_kept else f'took {time.monotonic() - begun:.1f} s'}")
        return found


class _ViewObserver:
    """The pipeline's ``Observer``: tells the view and the log."""

    def __init__(self, view: ProgressView, log: JobLog) -> None:
        self._view = view
        self._log = log
        self._trials = TrialLines(self._tell)

    def entered(self, stage: str, progress: float) -> None:
        self._view.update(progress, stage)

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        for output in outputs:
            self._tell(output.sentence)

    def noted(self, text: str) -> None:
        self._log.line(f"note: {text}")
        self._view.line(f"note: {text}")

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        """Nobody is idle who could begin them."""

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        del best  # the summary at the end tells which one was chosen
        self._trials.show(trials)

    def _tell(self, text: str) -> None:
        self._log.line(text)
        self._view.line("     " + text)


def _request(job: LocalJob, workspace: Workspace) -> JobRequest:
    validation = None if job.validation is None else _copy_samples(job.validation, "validation", workspace)
    files = JobFiles(
        model=_copy_model(job.model, workspace),
        calibration=_copy_samples(job.calibration, "calibration", workspace),
        validation=validation,
        metric_model=_copy_metric(job, workspace),
    )
    return JobRequest(files, with_metric_model(job.config, is_given=job.has_own_metric))


def _copy_metric(job: LocalJob, workspace: Workspace) -> FileRef | None:
    if job.asked is not None:
        return workspace.write_bytes("metric/metric" + SUFFIX, asked_metric_text(job.asked.file).encode())
    return None if job.metric_model is None else workspace.copy(job.metric_model, "metric/metric.onnx")


def _copy_model(model: Path, workspace: Workspace) -> FileRef:
    if is_archive(model):
        unpacked = unpack_model(model, workspace.root / "model", _MAX_UNPACKED_BYTES)
        return workspace.adopt(unpacked.relative_to(workspace.root).as_posix())
    for name in external_files(model):
        workspace.copy(model.parent / name, f"model/{name}")
    # Its own name cannot be that of its external data.
    return workspace.copy(model, f"model/{model.name}" if "\\" not in model.name else "model/model.onnx")


def _copy_samples(path: Path, folder: str, workspace: Workspace) -> FileRef:
    """Bring samples in under the user's own name, which errors then say; a folder as a .zip."""
    own = path.resolve().name if path.name in {"", ".", ".."} else path.name
    name = f"{folder}/{own if own and not set(own) & set(_NO_NAME) else folder}"
    if not path.is_dir():
        return workspace.copy(path, name)
    packed = workspace.path(name)
    packed.parent.mkdir(parents=True, exist_ok=True)
    pack_folder(path, packed, f"{folder} set")
    return workspace.adopt(name)


def _deliver(outcome: JobOutcome, workspace: Workspace, output: Path) -> Mapping[str, object]:
    artifacts = {name: ref for name, ref in outcome.artifacts.items() if name != LOG_NAME}
    target = Workspace(output, temporary=workspace.root)
    for stale in target.path(FRONT).glob("[0-9a-f]" * FINGERPRINT_LENGTH):  # offers of an earlier run into the same folder
        remove_tree(stale)
    for name, ref in {**artifacts, outcome.engine_name: outcome.engine}.items():
        source = workspace.path(ref)
        for external in external_files(source) if ref.file.endswith(".onnx") else ():
            target.copy(source.parent / external, (PurePosixPath(name).parent / external).as_posix())
        if target.copy(source, name).sha256 != ref.sha256:
            raise CalibrationError(f"file {name}: its content changed after it was written", fix="Run the job again on a sound disk.")
    _deliver_log(workspace, output)  # last: it grows with every stage
    target.write_bytes(RESULT_NAME, json_bytes(outcome.result))
    return outcome.result


def _deliver_log(workspace: Workspace, output: Path) -> None:
    log = workspace.path(LOG_NAME)
    if log.exists():
        Workspace(output, temporary=workspace.root).copy(log, LOG_NAME)


@contextmanager
def _output_folder(output: Path) -> Iterator[Path]:
    """Make and lock the folder; clear what a killed run left in it; remove it again if we made it and it stayed empty."""
    existed = output.is_dir()
    try:
        output.mkdir(parents=True, exist_ok=True)
        handle = os.open(output, os.O_RDONLY)
    except OSError as exc:
        found = "it is a file" if output.exists() and not output.is_dir() else exc.strerror
        raise InvalidConfigError(f"output folder {output}: {found}", fix="Choose a folder that you may write to.") from exc
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise InvalidConfigError(f"output folder {output}: another run writes to it", fix="Choose another folder, or wait.") from exc
        if not os.access(output, os.W_OK):
            raise InvalidConfigError(f"output folder {output}: it is not writable", fix="Choose a folder that you may write to.")
        for stale in output.glob(WORK_PREFIX + "*"):
            remove_tree(stale)
        yield output
    finally:
        os.close(handle)
        if not existed and not any(output.iterdir()):
            output.rmdir()


_NO_NAME = "\\\0"  # characters that a name inside a workspace may not have
