"""The command ``build``: the engine of one assignment, in a file."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import InvalidConfigError
from engine_builder.config.config import Config
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
    """Build, measure and write the engine, and what was measured as JSON beside it; nothing else is left.

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
        result = optimize_locally(job, view)
        engine = result["engine"]
        assert isinstance(engine, Mapping)  # of every result
        source = job.output / str(engine["name"])
        target = Workspace(output.absolute().parent, temporary=Path(folder))
        for name in external_files(source) if source.suffix == ".onnx" else ():
            target.copy(source.parent / name, name)
        target.copy(source, output.name)
        assignment = PrecisionAssignment.from_json(json.loads((job.output / "assignment.json").read_bytes()))
        result_file = output.with_name(output.name + ".json")
        target.write_bytes(result_file.name, json_bytes({"result": result, "assignment": assignment.as_json()}))
    return Built(result, assignment.fingerprint, result_file)
