"""What each command of the command line does."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.errors import InvalidConfigError, OptimizerError
from calibration.number_formats.precision import Precision
from calibration.process.lazy_import import defer
from engine_builder.config.config import Config, config_json
from service.cli.summary import summary_lines
from service.database.role import Role
from service.intake.common_keys import config_with, is_any_given
from service.intake.config_text import value_from_config_text
from service.intake.given_files import check_files
from service.local.progress import ProgressView, TrialLines, progress_view
from service.settings import PREFIX, Settings, check_guarded, settings_from_environment
from service.worker.child_process import StageLimits

if TYPE_CHECKING:
    from service.client.client import Client
    from service.client.views import JobView

DEFAULT_SERVER = "http://127.0.0.1:8000"
Output = Callable[[str], None]


def serve(arguments: argparse.Namespace, out: Output) -> None:
    """Run the server until it is told to stop."""
    del out
    settings = settings_of(arguments)
    check_guarded(settings, has_keys=settings.is_shared or settings.data_dir.is_dir())  # it may have keys: the server itself looks
    defer("onnxruntime")  # as in ``optimize``
    from service.api.app import serve as serve_forever  # the web framework takes a second; no other command needs it

    with contextlib.suppress(KeyboardInterrupt):  # the usual way to stop it, after it has shut down
        serve_forever(settings, rebuild=arguments.rebuild, role=Role(arguments.role))


def work(arguments: argparse.Namespace, out: Output) -> None:
    """Run jobs, or their GPU stages, that other processes take in; until it is told to stop."""
    del out
    given = {} if arguments.data_dir is None else {"data_dir": arguments.data_dir}
    settings = _with(settings_from_environment(os.environ), given)
    defer("onnxruntime")  # as in ``optimize``
    from service.distributed.worker_process import work_until_stopped  # the workflow engine takes a second

    work_until_stopped(settings, Role(arguments.role))


def optimize(arguments: argparse.Namespace, out: Output) -> None:
    """Optimize a model on this machine, without a server."""
    config = job_config(arguments)  # first: what is wrong with it is said before the rest is loaded
    if not arguments.has_own_process:
        defer("onnxruntime")  # its sessions are opened in child processes; here it would cost time and memory for nothing
    from service.local.local_job import LocalJob, optimize_locally  # loads onnx; the client's commands do without
    from service.local.reuse import default_cache_folder

    settings = settings_from_environment(os.environ)
    cache = None if arguments.no_cache or not settings.cache_bytes else arguments.cache or default_cache_folder(os.environ)
    job = LocalJob(
        model=arguments.model,
        calibration=arguments.calibration,
        validation=arguments.validation,
        config=config,
        output=arguments.output,
        limits=StageLimits(memory_bytes=settings.stage_memory_bytes, seconds=settings.stage_seconds),
        cache=cache,
        cache_bytes=settings.cache_bytes,
        metric_model=arguments.metric_model,
    )
    with progress_view(sys.stderr) as view:
        result = optimize_locally(job, view, forks=arguments.has_own_process)
    _print_result(result, out)
    out(f"  files     {arguments.output}")


def build(arguments: argparse.Namespace, out: Output) -> None:
    """Build exactly the engine of an assignment, and measure it beside the float model; no search."""
    asked = job_config(arguments)
    if not asked.assignment:
        raise InvalidConfigError("build: found no assignment", fix="Give --assignment FILE, such as a job's assignment.json.")
    config = dataclasses.replace(asked, assignment_only=True)
    if not arguments.has_own_process:
        defer("onnxruntime")  # as in ``optimize``
    from service.cli.build import build_engine  # loads onnx; the client's commands do without

    settings = settings_from_environment(os.environ)
    limits = StageLimits(memory_bytes=settings.stage_memory_bytes, seconds=settings.stage_seconds)
    with progress_view(sys.stderr) as view:
        built = build_engine(arguments, config, limits, view)
    _print_result(built.result, out)
    out(f"  assigned  fingerprint {built.fingerprint}")
    out(f"  files     {arguments.output}, {built.result_file}")


def submit(arguments: argparse.Namespace, out: Output) -> None:
    """Upload the files, submit a job and print its id; with --watch, wait for it too."""
    config = config_json(job_config(arguments)) if arguments.config or is_any_given(vars(arguments)) else {}
    check_files(arguments.model, arguments.calibration, arguments.validation, arguments.metric_model)
    with client_of(arguments) as client:
        model = client.upload_model(arguments.model)
        calibration = client.upload_samples(arguments.calibration, "calibration set")
        validation = None if arguments.validation is None else client.upload_samples(arguments.validation, "validation set")
        metric = None if arguments.metric_model is None else client.upload(arguments.metric_model)
        key, priority = arguments.idempotency_key, arguments.priority
        job = client.submit(model, calibration, validation, config, idempotency_key=key, metric_id=metric, priority=priority)
        out(job.id)
        if arguments.watch:
            _watch(client, job.id, out)


def watch(arguments: argparse.Namespace, out: Output) -> None:
    """Show a job's progress until it is finished, then its result."""
    with client_of(arguments) as client:
        _watch(client, arguments.job, out)


def download(arguments: argparse.Namespace, out: Output) -> None:
    """Download a job's engine and artifacts; of a job for several types of GPU those of all, each type in a folder of its own."""
    from service.client.downloads import write_result  # as in ``client_of``

    with client_of(arguments) as client:
        job = client.get(arguments.job)
        engine = None if job.branches and job.result is not None else client.download_engine(arguments.job, arguments.output)
        if engine is not None:
            out(str(engine))
        for artifact in client.artifacts(arguments.job):
            if engine is None or artifact.name != engine.name:
                out(str(client.download_artifact(arguments.job, artifact, arguments.output)))
        if job.result is not None:
            out(str(write_result(job.result, arguments.output)))


def cancel(arguments: argparse.Namespace, out: Output) -> None:
    """Cancel a job."""
    with client_of(arguments) as client:
        out(client.cancel(arguments.job).state)


def targets(arguments: argparse.Namespace, out: Output) -> None:
    """Print what a server, or this machine, can build for."""
    for target in _local_targets() if arguments.local else _server_targets(arguments):
        out(_target_line(target))


def recipe(arguments: argparse.Namespace, out: Output) -> None:
    """Write an assignment.json from what was settled for TensorRT 10, or an assignment as settings of other tools."""
    from service.cli.recipe import RecipeRequest, write_recipe  # loads onnx and the runtime; the client's commands need neither

    write_recipe(
        RecipeRequest(
            model=arguments.model,
            layer_precisions=arguments.layer_precisions,
            calibration_cache=arguments.calibration_cache,
            default=Precision(arguments.default),
            output=arguments.output,
            assignment=arguments.assignment,
            modelopt=arguments.modelopt,
            polygraphy=arguments.polygraphy,
        ),
        out,
    )


def self_check(arguments: argparse.Namespace, out: Output) -> None:
    """Prove on this machine what can be proved here: builds, precisions, accuracy and, on a GPU, time."""
    from service.cli.self_check import DEFAULT_OUTPUT, run_self_check  # loads onnx and the runtime; the client's commands need neither

    def progress(line: str) -> None:
        sys.stderr.write(f"... {line}\n")
        sys.stderr.flush()

    run_self_check(arguments.output or DEFAULT_OUTPUT, arguments.gpu, out, progress, seconds=arguments.seconds, tests=arguments.tests)


def compare(arguments: argparse.Namespace, out: Output) -> None:
    """Write one page that sets several finished jobs side by side."""
    from engine_builder.reporting.comparing.page import compare_page  # draws: no other command loads the library
    from engine_builder.reporting.comparing.read_jobs import read_jobs

    page = compare_page(read_jobs(arguments.outputs))
    arguments.output.write_text(page, encoding="utf-8")
    out(str(arguments.output))


def _watch(client: Client, job_id: str, out: Output) -> None:
    from service.client.client import job_error

    with progress_view(sys.stderr) as view:
        job = client.watch(job_id, _shower(view))
    if job.result is None:
        raise job_error(job)
    _print_result(job.result, out)


def _shower(view: ProgressView) -> Callable[[JobView], None]:
    trials = TrialLines(lambda text: view.line("     " + text))
    told: list[object] = []

    def show(job: JobView) -> None:
        for line in [output.get("in_words") for output in job.outputs or ()] if not told else ():
            told.append(line)
            view.line(f"     {line}")
        trials.show(job.trials)
        view.update(job.progress, job.in_words)

    return show


def _print_result(result: Mapping[str, object], out: Output) -> None:
    for line in summary_lines(result):
        out(line)


def client_of(arguments: argparse.Namespace) -> Client:
    """Return a client of the server that the arguments name; used with ``with``."""
    from service.client.client import Client  # the HTTP library takes a tenth of a second; a job without a server does without

    return Client(arguments.server, os.environ.get(PREFIX + "API_KEY") or None)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings of a server: those of the environment, with what flags say instead.

    Raises:
        InvalidConfigError: One is out of bounds.
    """
    given = {name: value for name in ("host", "port", "data_dir") if (value := getattr(arguments, name, None)) is not None}
    return _with(settings_from_environment(os.environ), given)


def job_config(arguments: argparse.Namespace) -> Config:
    """Return the configuration of a job: that of the file, with what flags say instead; a flag of a budget takes the place of any other.

    Args:
        arguments: Of ``optimize`` or ``submit``.

    Raises:
        InvalidConfigError: The file or a flag is wrong, or flags contradict each other or the file's objective.
    """
    return config_with({} if arguments.config is None else _json_from_file(arguments.config), vars(arguments))


def _json_from_file(path: Path) -> object:
    fix = "Correct the file; every key is optional, so {} is a start."
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InvalidConfigError(f"config {path}: {exc.strerror}", fix="Check the path.") from exc
    except ValueError as exc:
        raise InvalidConfigError(f"config {path}: it is not JSON, which is text in UTF-8 ({exc})", fix=fix) from exc
    return value_from_config_text(text, f"config {path}", fix)


def _with(settings: Settings, given: Mapping[str, object]) -> Settings:
    return dataclasses.replace(settings, **given)  # type: ignore[arg-type]  # argparse made each value of its field's type


def _server_targets(arguments: argparse.Namespace) -> Sequence[Mapping[str, object]]:
    with client_of(arguments) as client:
        return client.targets()


def _local_targets() -> Sequence[Mapping[str, object]]:
    from engine_builder.backends.registry import targets as known_targets  # loads the runtimes; no other command needs them here

    return [dict(target) for target in known_targets()]


def _target_line(target: Mapping[str, object]) -> str:
    parts = [str(target["target"])]
    for key in ("precisions", "gpus"):
        names = target.get(key)
        if isinstance(names, list | tuple) and names:
            parts.append(f"{key}: " + ", ".join(str(name) for name in names))
    parts.append(f"latency {target.get('latency_source')}")
    return "  ".join(parts)


def exit_status(error: OptimizerError) -> int:
    """Return 2 where the user can fix it, else 1."""
    return 1 if error.status >= _SERVER_ERRORS else 2


_SERVER_ERRORS = 500
