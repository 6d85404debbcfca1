"""What a stage's result depends on besides its request: our own code, the libraries, the processor; and the machine, where it is a time."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path

from calibration.process.worker_threads import processors
from engine_builder.workspace.workspace import json_bytes
from service import __version__
from service.worker.stage_process import stage_environment

_OWN_PACKAGES = ("calibration", "engine_builder")
_LIBRARIES = (
    "ml-dtypes",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "protobuf",
    "rapidfuzz",
    "scipy",
    "tensorrt-cu13",
    "tensorrt-rtx-cu13",
)
_PROCESSOR_FIELDS = ("model name", "flags", "CPU implementer", "CPU part", "Features")
_TIMED_PREFIXES = ("OMP_", "OPENBLAS_", "MKL_", "KMP_", "MALLOC_", "CUDA_", "NVIDIA_", "LD_LIBRARY_PATH")  # of what may change a time
_MACHINE_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def result_identity(pipeline_version: str) -> str:
    """Return a digest that changes with whatever may change a measurement that is no time.

    Args:
        pipeline_version: The version of the sequence of stages.
    """
    found = {
        "pipeline": pipeline_version,
        "version": __version__,
        "code": _code_digest(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "processor": _processor(Path("/proc/cpuinfo")),
        "processors": processors(),
    }
    return hashlib.sha256(json_bytes(found)).hexdigest()


def machine_identity() -> str:
    """Return a digest of what may change a time, beside ``result_identity``: this machine, and what stages find in their environment."""
    names = [path.read_text().strip() for path in _MACHINE_FILES if path.is_file()]
    environment = {key: value for key, value in stage_environment().items() if key.startswith(_TIMED_PREFIXES)}
    found = {"machine": [platform.node(), *names[:1]], "system": platform.release(), "environment": environment}
    return hashlib.sha256(json_bytes(found)).hexdigest()


def _code_digest(root: Path) -> str:
    """Return the digest of the packages whose code makes results: a checkout changes without its version."""
    digest = hashlib.sha256()
    for package in _OWN_PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".json"):
                digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor(path: Path) -> list[str]:
    """Return what the first processor says of its kind."""
    try:
        first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return [platform.machine(), platform.processor()]
    return [platform.machine(), *(line for line in first.splitlines() if line.partition(":")[0].strip() in _PROCESSOR_FIELDS)]
