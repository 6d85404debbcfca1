"""The files that go with a plan: what the runtime says of its layers, what they take, kernel times, and how its weights are put back."""

from __future__ import annotations

from calibration.codec import value_from_json
from engine_builder.backends.kernels import KernelTime
from engine_builder.config.builder_options import BuilderConfig
from engine_builder.interchange.refit_script import SCRIPT_NAME, refit_script
from engine_builder.interchange.trtexec_profile import trtexec_profile
from engine_builder.records.stripped_plan import StrippedPlan
from engine_builder.stage_io.engines import VerdictResult
from engine_builder.workspace.workspace import FileRef, Workspace

PACKAGES = ("tensorrt", "tensorrt_rtx")  # keys of an environment, with the version, and the modules' names


def plan_files(
    judged: VerdictResult,
    stripped: StrippedPlan | None,
    builder: BuilderConfig,
    workspace: Workspace,
    *,
    layers: FileRef | None,
    timing_cache: FileRef | None,
) -> dict[str, FileRef]:
    """Return the files by the names under which they are downloaded; none for what is no plan.

    Args:
        judged: The verdict on what ships.
        stripped: What came of the plan without its weights; None where none was asked for.
        builder: How the job builds.
        workspace: Where files are.
        layers: What the runtime says of the layers of the whole plan.
        timing_cache: Kernel times.
    """
    files = {"engine.layers.json": layers, "timing.cache": timing_cache}
    if judged.profile is not None:
        times = value_from_json(tuple[KernelTime, ...], workspace.read_json(judged.profile))
        files["engine.profile.json"] = workspace.write_json("engine.profile.json", trtexec_profile(times))
    if stripped is not None and stripped.ships:
        assert judged.engine is not None  # the plan without its weights
        if stripped.layers is not None:
            files["engine.layers.json"] = stripped.layers
        module = next(name for name in PACKAGES if name in judged.environment)
        script = refit_script(
            stripped,
            builder,
            plan=workspace.path(judged.engine).name,
            plan_sha256=judged.engine.sha256,
            module=module,
            version=str(judged.environment[module]),
        )
        files[SCRIPT_NAME] = workspace.write_bytes(SCRIPT_NAME, script.encode())
    return {name: ref for name, ref in files.items() if ref is not None}
