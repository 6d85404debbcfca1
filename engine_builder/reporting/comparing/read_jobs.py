"""Reads the reports of jobs that are to be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import InvalidConfigError
from engine_builder.reporting.body.report_body import ReportBody, body_from_json

REPORT_NAME = "report.json"


@dataclass(frozen=True, slots=True)
class ComparedJob:
    """A job's report under a short name that no other has."""

    name: str
    body: ReportBody


def read_jobs(paths: Sequence[Path]) -> tuple[ComparedJob, ...]:
    """Return the jobs in the order given.

    Args:
        paths: Output folders, or their files report.json.

    Raises:
        InvalidConfigError: A file is missing, is no report, or was written by a version that knew less.
    """
    return tuple(ComparedJob(name, _body(path)) for name, path in zip(_names(paths), paths, strict=True))


def _body(path: Path) -> ReportBody:
    file = path / REPORT_NAME if path.is_dir() else path
    try:
        return body_from_json(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidConfigError(
            f"{file}: {error.strerror or error}, a folder with a {REPORT_NAME} expected",
            fix="Give output folders of `optimize` or `download`.",
        ) from error
    except (ValueError, TypeError) as error:  # no JSON, or of another form
        raise InvalidConfigError(
            f"{file}: no report of this version: {error}",
            fix=f"Give the {REPORT_NAME} of a job of this version; run the job again for one.",
        ) from error


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the ends of the paths that tell them apart; of the same path twice, with a number."""
    folders = [path if path.is_dir() else path.parent for path in map(Path.resolve, paths)]
    for count in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [f"{folder.name} ({place})" for place, folder in enumerate(folders, 1)]
