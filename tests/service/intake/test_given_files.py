"""What is given by mistake is seen before anything is loaded or sent."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError, InvalidCalibrationSetError, InvalidModelError
from service.intake.given_files import check_files, check_model

ONNX = b"\x08\x08\x12\x07pytorch:\x01"


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros(3))
    return file.getvalue()


def checkpoint() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02")
    return file.getvalue()


def refusal(folder: Path, model: bytes | None, samples: bytes | None) -> InputError:
    """Return what is said of a model and of samples; None: a folder in the place of the file."""
    paths = folder / "model.onnx", folder / "samples"
    for path, data in zip(paths, (model, samples), strict=True):
        path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        check_files(*paths, None, None)
    return raised.value


@pytest.mark.parametrize(
    ("model", "samples", "error", "detail", "fix"),
    [
        (npz(), ONNX, InvalidModelError, "holds arrays of numpy", "Swap the two"),
        (npz(), npz(), InvalidModelError, "holds arrays of numpy", "Give the model first"),
        (checkpoint(), npz(), InvalidModelError, "is a PyTorch file", "torch.onnx.export"),
        (b"\x80\x02}q", npz(), InvalidModelError, "is a PyTorch file", "torch.onnx.export"),
        (None, npz(), InvalidModelError, "it is a folder, a file expected", "Name the file itself"),
        (ONNX, ONNX, InvalidCalibrationSetError, "is an ONNX model, not samples", "swapped"),
        (ONNX, b"\x80\x02}q", InvalidCalibrationSetError, "is a Python pickle", "tensor.numpy()"),
    ],
)
def test_it_is_named_with_the_one_thing_to_do(
    model: bytes | None, samples: bytes, error: type[InputError], detail: str, fix: str, tmp_path: Path
) -> None:
    found = refusal(tmp_path, model, samples)
    assert isinstance(found, error)
    assert detail in found.detail
    assert fix in found.fix
    assert str(tmp_path) in found.detail  # the user's own path


def test_a_folder_with_one_model_names_it(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "a.onnx").write_bytes(ONNX)
    (tmp_path / "samples").write_bytes(npz())
    with pytest.raises(InvalidModelError) as raised:
        check_files(tmp_path / "net", tmp_path / "samples", None, None)
    assert raised.value.fix == f"Give the file: {tmp_path / 'net' / 'a.onnx'}"


def test_sound_files_pass(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(ONNX)
    (tmp_path / "samples").write_bytes(npz())
    check_files(tmp_path / "model.onnx", tmp_path / "samples", tmp_path / "samples", tmp_path / "model.onnx")


def test_a_model_alone_that_is_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "net").write_bytes(npz())
    with pytest.raises(InvalidModelError, match="holds arrays of numpy"):
        check_model(tmp_path / "net")
    (tmp_path / "net").write_bytes(ONNX)
    check_model(tmp_path / "net")
