"""Errors of building, running and searching.

EngineError                    500
├── BuildError                      the explicit graph or the engine could not be built
│   └── RefusedModelError               the target's own builder takes a node or the model in no such form
├── GpuInUseError                   another process holds the GPU
├── StageError                      a child process ended without a result
│   ├── StageCrashedError               a signal or a native crash
│   ├── StageTimeoutError               past its deadline
│   └── StageMemoryError                past its memory limit
StageCancelledError            500  (OptimizerError) the job was cancelled: no failure, so that nothing that survives failures survives it
StageStorageError              503  (OptimizerError) the disk failed under a stage: no failure of the stage, which can run again
UnsupportedTargetError         422  (InputError) a target or precision this deployment cannot build
UnsupportedModelError          422  (InputError) a model that the target cannot build in any precision
"""

from __future__ import annotations

from calibration.errors import InputError, OptimizerError


class EngineError(OptimizerError):
    """Building, running or timing an engine failed.

    ``seconds`` is what the stage took that failed, set by whoever ran it; 0 where nobody measured it.
    """

    slug = "engine-failed"
    title = "Engine failed"
    seconds: float = 0.0

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with the seconds."""
        return (*super().__reduce__(), {"seconds": self.seconds})


class BuildError(EngineError):
    """The explicit graph or the engine could not be built."""

    slug = "build-failed"
    title = "Engine build failed"


class RefusedModelError(BuildError):
    """The target's own builder takes a node, or the model, in no such form; ``nodes`` are those that it names."""

    slug = "model-refused"
    title = "Model refused by the target's builder"

    def __init__(self, detail: str, *, fix: str, nodes: tuple[str, ...] = ()) -> None:
        """Create the error with the names of the nodes."""
        super().__init__(detail, fix=fix)
        self.nodes = nodes

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with the nodes."""
        return (*super().__reduce__()[:2], {"seconds": self.seconds, "nodes": self.nodes})


class GpuInUseError(EngineError):
    """Another process holds the GPU for longer than it was waited for."""

    slug = "gpu-in-use"
    title = "GPU in use"


class StageError(EngineError):
    """A child process ended without a result."""

    slug = "stage-failed"
    title = "Stage failed"


class StageCrashedError(StageError):
    """A child process was ended by a signal or a native crash."""

    slug = "stage-crashed"
    title = "Stage crashed"


class StageTimeoutError(StageError):
    """A child process ran past its deadline."""

    slug = "stage-timeout"
    title = "Stage ran too long"


class StageMemoryError(StageError):
    """A child process needed more memory than its limit."""

    slug = "stage-out-of-memory"
    title = "Stage ran out of memory"


class StageCancelledError(OptimizerError):
    """A child process was ended because its job was cancelled."""

    slug = "stage-cancelled"
    title = "Stage cancelled"


class StageStorageError(OptimizerError):
    """The disk is full, read-only or failing: the stage is not at fault and can run again when the cause is gone."""

    slug = "stage-storage"
    title = "Disk failed under a stage"
    status = 503


class UnsupportedTargetError(InputError):
    """This deployment cannot build for the target, GPU or precision asked for."""

    slug = "unsupported-target"
    title = "Unsupported target"


class UnsupportedModelError(InputError):
    """The target cannot build the model, whatever its precisions."""

    slug = "unsupported-model"
    title = "Model not supported by the target"
