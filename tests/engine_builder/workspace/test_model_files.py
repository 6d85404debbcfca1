"""Models in more than one file stay whole."""

from __future__ import annotations

from pathlib import Path

import onnx

from calibration.onnx_model.model_io import read_model, save_model
from engine_builder.workspace.model_files import keep_model, model_size_bytes, move_model
from engine_builder.workspace.workspace import Workspace
from tests.model_text import cnn


def test_a_kept_model_brings_its_external_data(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    save_model(cnn(), tmp_path / "scratch" / "big.onnx", limit_bytes=0)
    workspace = Workspace(tmp_path / "job")
    ref = keep_model(tmp_path / "scratch" / "big.onnx", "engines/big.onnx", workspace)
    assert (workspace.root / "engines" / "big.onnx.data").exists()
    kept = {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in read_model(workspace.path(ref)).graph.initializer}
    assert kept == {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in cnn().graph.initializer}


def test_the_size_of_a_model_counts_all_its_files(tmp_path: Path) -> None:
    save_model(cnn(), tmp_path / "one.onnx")
    save_model(cnn(), tmp_path / "two.onnx", limit_bytes=0)
    assert model_size_bytes(tmp_path / "one.onnx") == (tmp_path / "one.onnx").stat().st_size
    data = (tmp_path / "two.onnx.data").stat().st_size
    assert data > 0
    assert model_size_bytes(tmp_path / "two.onnx") == (tmp_path / "two.onnx").stat().st_size + data


def test_a_moved_model_is_the_same_files_under_other_names(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "job")
    scratch = workspace.root / "scratch-1"
    scratch.mkdir()
    save_model(cnn(), scratch / "big.onnx", limit_bytes=0)
    places = {name: (scratch / name).stat().st_ino for name in ("big.onnx", "big.onnx.data")}
    ref = move_model(scratch / "big.onnx", "engines/big.onnx", workspace)
    assert {path.name: path.stat().st_ino for path in (workspace.root / "engines").iterdir()} == places  # none was copied
    assert not list(scratch.iterdir())
    assert ref == workspace.adopt("engines/big.onnx")
    read_model(workspace.path(ref))
