"""The command ``self-check``: runs the checks of ``engine_builder.self_check.run`` in child processes, prints them and writes them down.

What was found is written after every check, so that whoever ends the command early keeps it.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from calibration.errors import InvalidConfigError
from engine_builder.backends.atomic_file import write_atomically
from engine_builder.backends.gpu.state import driver_version
from engine_builder.backends.nvidia.tensorrt_api import OLDEST
from engine_builder.errors import EngineError, UnsupportedTargetError
from engine_builder.self_check.result import REPORT, RunStage, SelfCheck
from engine_builder.self_check.run import self_check
from engine_builder.self_check.table import check_lines, engine_lines, verdict_line
from service import __version__
from service.cli.gpu_tests import files_with_gpu_tests, run_gpu_tests
from service.worker.child_process import StageLimits, run_in_child

TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
DEFAULT_OUTPUT = Path("onnx-trt-optimizer-self-check.json")
STAGE_BYTES = 16 * 2**30
FIRST_SECONDS = 60.0  # of a step that only CUDA is needed for: the driver may take half a minute to start
STAGE_SECONDS = 1800.0  # of any other
HURRIED_SECONDS = 120.0  # the same, where the whole command has a limit
LEAST_SECONDS = 2.0  # with less left, no step begins
_PACKAGES = (
    *("onnx", "onnxruntime", "onnx-ir", "numpy", "tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx-cu13"),
    *("cuda-core", "cuda-bindings", "pycuda", "nvidia-ml-py", "nvidia-cublas"),
)
_STAGES = "engine_builder.self_check.stages"
_CUDA_STAGES = "engine_builder.self_check.first_contact.stages"


@dataclass(frozen=True, slots=True)
class Clock:
    """How much time the whole command has, in seconds; None: no limit."""

    seconds: float | None
    now: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)

    def for_step(self, usual: float) -> float:
        """Return the seconds that a step may take.

        Args:
            usual: Where nothing hurries.

        Raises:
            UnsupportedTargetError: Too little is left to begin.
        """
        if self.seconds is None:
            return usual
        left = self.seconds - (self.now() - self.started)
        if left < LEAST_SECONDS:
            raise UnsupportedTargetError(f"not begun: the {self.seconds:g} s of this command were over", fix="give it more with --seconds")
        return min(usual, HURRIED_SECONDS, left)


def run_self_check(
    output: Path,
    gpu: str | None,
    out: Callable[[str], None],
    progress: Callable[[str], None],
    *,
    seconds: float | None = None,
    tests: Path | None = None,
    run: RunStage | None = None,
) -> None:
    """Run every check, print them, and write them to ``output``, after each one what is known so far.

    Args:
        output: The file, JSON; it holds no path or name of this machine.
        gpu: What to build TensorRT-RTX plans for; the machine's own or a usual one by default.
        out: Prints a line of the result.
        progress: Told what runs now, and each check.
        seconds: For the whole command; a step that hangs is ended then, and those after it are skipped.
        tests: The folder of this project's tests, of which those marked gpu run too.
        run: Stands in for the child processes.

    Raises:
        EngineError: A check failed; all of them are printed and written first.
        InvalidConfigError: The file cannot be written, or there are no tests in the folder.
        UnsupportedTargetError: The GPU is not known.
    """
    _require_writable(output)
    files = () if tests is None else _gpu_test_files(tests)
    clock = Clock(seconds)
    for line in need_lines():
        out(line)

    def note(result: SelfCheck) -> None:
        _write(output, result, is_finished=False)
        check = result.checks[-1]
        progress(f"{check.outcome.value}  {check.name}: {check.found}")

    def more(result: SelfCheck) -> None:
        if tests is not None:
            _run_tests(result, files, tests, clock, progress)

    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-") as folder:
        steps = run if run is not None else _in_children(Path(folder), progress, clock)
        result = self_check(steps, gpu=gpu, on_change=note, more=more)
    _write(output, result, is_finished=True)
    for line in ("", *check_lines(result), "", *engine_lines(result), "", verdict_line(result), f"Written to {output}"):
        out(line)
    if result.failed:
        raise EngineError(
            f"self-check: {len(result.failed)} of {len(result.checks)} checks failed: {', '.join(check.name for check in result.failed)}",
            fix=f"Do what stands at each of them above; if that does not help, report it with {output}.",
        )


def need_lines() -> tuple[str, ...]:
    """Return what a whole check of a GPU needs, and what of it is here."""
    found = {name: _version(name) for name in ("cuda-core", "pycuda", "nvidia-ml-py", *TENSORRT)}
    here = [f"driver {driver_version() or 'none'}", *(f"{name} {version}" for name, version in found.items() if version is not None)]
    has_tensorrt = importlib.util.find_spec("tensorrt") is not None
    missing = () if has_tensorrt else ("TensorRT is not here: no engine is built, run or timed on a GPU; all else is checked.",)
    oldest = ".".join(map(str, OLDEST))
    return (
        f"For a GPU: a driver of branch 580 or newer, cuda-core (or pycuda), TensorRT {oldest} to 11.4 "
        "(pip install 'onnx-trt-optimizer[gpu]').",
        f"Here: {', '.join(here)}.",
        *missing,
    )


def _in_children(folder: Path, progress: Callable[[str], None], clock: Clock) -> RunStage:
    def run(stage: str, request: Mapping[str, object]) -> Mapping[str, object]:
        is_first = stage.startswith("cuda_")
        limits = StageLimits(
            STAGE_BYTES, clock.for_step(FIRST_SECONDS if is_first else STAGE_SECONDS), opens_gpu=is_first or stage.startswith("gpu_")
        )
        progress(" ".join([stage.replace("_", " "), *(str(value) for value in request.values())]))
        stages = _CUDA_STAGES if is_first else _STAGES
        return run_in_child(
            stage, request, folder, limits=limits, on_progress=lambda done, line: None, should_cancel=lambda: False, stages=stages
        )

    return run


def _gpu_test_files(folder: Path) -> tuple[Path, ...]:
    files = files_with_gpu_tests(folder) if folder.is_dir() else ()
    if not files:
        raise InvalidConfigError(
            f"--tests {folder}: no tests marked gpu found there", fix="Name the folder tests of this project's sources."
        )
    return files


def _run_tests(result: SelfCheck, files: Sequence[Path], folder: Path, clock: Clock, progress: Callable[[str], None]) -> None:
    if "visible" not in result.raw:
        result.skip("tests marked gpu", f"there is no GPU to run those of {len(files)} files on", "see the check 'driver'")
        return
    for file in files:
        name = f"gpu tests of {file.stem}"
        try:
            seconds = clock.for_step(STAGE_SECONDS)
        except UnsupportedTargetError as error:
            result.skip(name, error.detail, error.fix)
            continue
        progress(name)
        started = time.monotonic()
        found = run_gpu_tests(file, folder, seconds)
        result.seconds[name] = round(time.monotonic() - started, 3)
        result.raw[name] = asdict(found)
        if not found.has_failed and set(found.outcomes.values()) == {"SKIPPED"}:
            result.skip(name, found.in_words, "install what is missing, and repeat")
        else:
            result.add(name, not found.has_failed, found.in_words, REPORT)


def _write(output: Path, result: SelfCheck, *, is_finished: bool) -> None:
    text = json.dumps({**_report(result), "is_finished": is_finished}, indent=1) + "\n"
    write_atomically(output, text.encode())


def _report(result: SelfCheck) -> dict[str, object]:
    return {
        "about": "made by onnx-trt-optimizer self-check",
        "version": __version__,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "system": {
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "processors": os.cpu_count(),
        },
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "verdict": verdict_line(result),
        "checks": [{**asdict(check), "outcome": check.outcome.value} for check in result.checks],
        "seconds": result.seconds,
        "gpus_row": result.gpus_row,
        "found": result.raw,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _require_writable(output: Path) -> None:
    """Fail before minutes of work rather than after them, and leave nothing behind."""
    existed = output.exists()
    try:
        with output.open("a", encoding="utf-8"):
            pass
        if not existed:
            output.unlink()
    except OSError as exc:
        raise InvalidConfigError(f"{output}: cannot be written: {exc.strerror}", fix="Name another file with --output.") from exc
