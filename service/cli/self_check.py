"""The command ``self-check``: runs the checks of ``engine_builder.self_check.run`` in child processes, prints them and writes them down."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from calibration.errors import InvalidConfigError
from engine_builder.errors import EngineError
from engine_builder.self_check.run import RunStage, SelfCheck, self_check
from engine_builder.self_check.table import check_lines, engine_lines, verdict_line
from service import __version__
from service.worker.child_process import StageLimits, run_in_child

DEFAULT_OUTPUT = Path("onnx-trt-optimizer-self-check.json")
STAGE_SECONDS = 1800.0
STAGE_BYTES = 16 * 2**30
GPU_STAGE_BYTES = 2**46  # CUDA reserves addresses for all memory of the machine and its GPUs; that is no memory in use
_PACKAGES = ("onnx", "onnxruntime", "onnx-ir", "numpy", "tensorrt-cu13", "tensorrt-rtx-cu13", "cuda-core", "cuda-bindings", "pycuda")
_STAGES = "engine_builder.self_check.stages"


def run_self_check(
    output: Path, gpu: str | None, out: Callable[[str], None], progress: Callable[[str], None], *, run: RunStage | None = None
) -> None:
    """Run every check, print them, and write them to ``output``.

    Args:
        output: The file, JSON; it holds no path or name of this machine.
        gpu: What to build TensorRT-RTX plans for; the machine's own or a usual one by default.
        out: Prints a line of the result.
        progress: Told what runs now.
        run: Stands in for the child processes.

    Raises:
        EngineError: A check failed; all of them are printed and written first.
        InvalidConfigError: The file cannot be written.
        UnsupportedTargetError: The GPU is not known.
    """
    _require_writable(output)
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-") as folder:
        result = self_check(run if run is not None else _in_children(Path(folder), progress), gpu=gpu)
    output.write_text(json.dumps(_report(result), indent=1) + "\n", encoding="utf-8")
    for line in ("", *check_lines(result), "", *engine_lines(result), "", verdict_line(result), f"Written to {output}"):
        out(line)
    if result.failed:
        raise EngineError(
            f"self-check: {len(result.failed)} of {len(result.checks)} checks failed: {', '.join(check.name for check in result.failed)}",
            fix=f"Do what stands at each of them above; if that does not help, report it with {output}.",
        )


def _in_children(folder: Path, progress: Callable[[str], None]) -> RunStage:
    def run(stage: str, request: Mapping[str, object]) -> Mapping[str, object]:
        progress(" ".join([stage.replace("_", " "), *(str(value) for value in request.values())]))
        limits = StageLimits(_gpu_bytes() if stage.startswith("gpu_") else STAGE_BYTES, STAGE_SECONDS)
        return run_in_child(
            stage, request, folder, limits=limits, on_progress=lambda done, line: None, should_cancel=lambda: False, stages=_STAGES
        )

    return run


def _gpu_bytes() -> int:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    return GPU_STAGE_BYTES if hard == resource.RLIM_INFINITY else min(GPU_STAGE_BYTES, hard)


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
