"""A format of files of samples of somebody else's: a reader in a file and a row, and a job takes such files like any other."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import FastAPI

from calibration.data.readers import suffix_of
from service.__main__ import main
from service.api.jobs import jobs_router
from service.api.live.status import job_shown
from service.jobs.resources import Deps
from service.settings import Settings
from tests.driver import run_job
from tests.model_text import cnn, samples_for
from tests.seams.extended_copy import call, extended_copy

READER = '''"""Reads rows of numbers in JSON."""

from __future__ import annotations

import json
from typing import BinaryIO

import numpy as np

from calibration.data.formats.wanted import Found, Wanted

BEGINNING = b"ROWS\\n"


def size_of_rows(file: BinaryIO, name: str) -> int:
    """Return a bound on the bytes that the numbers take: each has a digit and a comma at least."""
    return 8 * file.seek(0, 2) // 2


def read_rows(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the arrays of the file, by name."""
    return Found({key: np.asarray(rows) for key, rows in json.loads(file.read().removeprefix(BEGINNING)).items()})
'''
ROWS = {
    "from calibration.errors": "from calibration.data.rows_files import BEGINNING, read_rows, size_of_rows\n",
    '    Reader(b"PK", ".npz"': '    Reader(BEGINNING, ".rows", "of one table per model input", size_of_rows, read_rows),\n',
}


def read_job(folder: Path) -> dict[str, object]:
    """Return what a job makes of samples in the new format, what it makes of the same ones in an .npz, and what users are told."""
    model, samples = cnn(), samples_for(cnn(), 40)
    rows = b"ROWS\n" + json.dumps({name: array.tolist() for name, array in samples.items()}).encode()
    config = {"accuracy": {"min_relative": 0.5}}
    read, plain = (run_job(folder / name, model, calibration=some, config=config) for name, some in (("rows", rows), ("npz", samples)))
    (folder / "upload").write_bytes(rows)
    words = io.StringIO()
    with contextlib.redirect_stdout(words), contextlib.suppress(SystemExit):
        main(["optimize", "--help"])
    api = FastAPI()
    deps = cast(Deps, SimpleNamespace(settings=Settings()))  # only the description of the routes is read
    api.include_router(jobs_router(deps, lambda job_id: None, lambda job_id: None, job_shown(deps)))
    return {
        "engines": [hashlib.sha256(job.engine.read_bytes()).hexdigest() for job in (read, plain)],
        "verdicts": [job.verdict for job in (read, plain)],
        "suffix": suffix_of(folder / "upload"),
        "help": " ".join(words.getvalue().split()),
        "api": json.dumps(api.openapi()),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("reader")
    copy = extended_copy(folder / "copy", "calibration/data/rows_files.py", READER, "calibration/data/readers.py", ROWS)
    return cast(dict[str, object], call(copy, read_job, folder / "work"))


@pytest.mark.long
@pytest.mark.parametrize("what", ["engines", "verdicts"])
def test_samples_of_the_new_format_give_the_same_job(found: dict[str, object], what: str) -> None:
    read, plain = cast(list[object], found[what])
    assert read == plain


@pytest.mark.long
def test_an_upload_is_named_after_the_new_format(found: dict[str, object]) -> None:
    assert found["suffix"] == ".rows"


@pytest.mark.long
@pytest.mark.parametrize("where", ["help", "api"])
def test_users_are_told_of_the_new_format(found: dict[str, object], where: str) -> None:
    assert ".rows of one table per model input, or .npz with one array per model input, or .npy for one input" in str(found[where])
