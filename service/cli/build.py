"""The command ``build``: the engine of one assignment, in a file; beside a plan without weights, what puts them back."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calibration.codec import as_object, value_from_json
from calibration.errors import InvalidConfigError
from engine_builder.config.config import Config
from engine_builder.interchange.refit_script import SCRIPT_NAME
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.workspace import Workspace, json_bytes
from service.local.local_job import LocalJob, optimize_locally
from service.local.progress import ProgressView
from service.worker.child_process import StageLimits


@dataclass(frozen=True, slots=True)
class Built:
    """What was built."""

    result: Mapping[str, object]  # as of a job
    fingerprint: str  # of the assignment that the engine has
    result_file: Path


def build_engine(arguments: argparse.Namespace, config: Config, limits: StageLimits, view: ProgressView) -> Built:
    """Build, measure and write the engine, and what was measured as JSON beside it; nothing else is left but weights that it ships without.

    Args:
        arguments: Of the command: the files that are given, and ``output``.
        config: The job's settings, the assignment among them.
        limits: Of each stage.
        view: Shows the progress.

    Raises:
        OptimizerError: The input cannot be used, or the engine cannot be built.
    """
    output: Path = arguments.output
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InvalidConfigError(f"output {output}: it is a folder, or in none", fix="Name a file in a folder that is there.")
    if config.builder.strip_weights and not _NAME_OF_STRIPPED.fullmatch(output.name):
        raise InvalidConfigError(
            f"output {output.name}: expected a name of letters, digits, '.', '_' and '-' that ends with .plan, since {SCRIPT_NAME}, which "
            "puts weights back into the plan, has its name in it",
            fix="Call it engine.plan.",
        )
    with tempfile.TemporaryDirectory(prefix=".build-", dir=output.absolute().parent) as folder:
        job = LocalJob(
            model=arguments.model,
            calibration=arguments.calibration,
            validation=arguments.validation,
            config=config,
            output=Path(folder) / "job",
            limits=limits,
            metric_model=arguments.metric_model,
        )
        result = optimize_locally(job, view, forks=arguments.has_own_process)
        engine = result["engine"]
        assert isinstance(engine, Mapping)  # of every result
        source = job.output / str(engine["name"])
        target = Workspace(output.absolute().parent, temporary=Path(folder))
        for name in external_files(source) if source.suffix == ".onnx" else ():
            target.copy(source.parent / name, name)
        target.copy(source, output.name)
        _leave_weights(result, job.output, target, output.name)
        assignment = PrecisionAssignment.from_json(json.loads((job.output / "assignment.json").read_bytes()))
        result_file = output.with_name(output.name + ".json")
        target.write_bytes(result_file.name, json_bytes({"result": result, "assignment": assignment.as_json()}))
    return Built(result, assignment.fingerprint, result_file)


def _leave_weights(result: Mapping[str, object], made: Path, target: Workspace, plan: str) -> None:
    """Write what a plan's weights are put back from and with, where it ships without them; ``plan`` is what it is called in ``target``."""
    stripped, engine = result.get("stripped"), as_object(result["engine"])
    if not isinstance(stripped, Mapping) or not stripped["is_stripped"]:
        return
    for name in value_from_json(tuple[str, ...], stripped["weights"]):
        target.copy(made / name, name)
    script = (made / SCRIPT_NAME).read_text(encoding="utf-8").replace(str(engine["name"]), plan)
    target.write_bytes(SCRIPT_NAME, script.encode())


_NAME_OF_STRIPPED = re.compile(r"[A-Za-z0-9._-]+\.plan")
