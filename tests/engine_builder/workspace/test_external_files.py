from __future__ import annotations

from pathlib import Path

import pytest

from engine_builder.workspace.external_files import external_files

BLOCK = 16 << 20


@pytest.mark.parametrize("before", [0, BLOCK - 13, BLOCK - 1, BLOCK, BLOCK + 1])
def test_an_entry_is_found_wherever_it_stands_in_a_large_file(before: int, tmp_path: Path) -> None:
    name = b"weights.data"
    (tmp_path / "model.onnx").write_bytes(bytes(before) + b"\x0a\x08location\x12" + bytes([len(name)]) + name + bytes(100))
    (tmp_path / "weights.data").touch()

    assert external_files(tmp_path / "model.onnx") == ("weights.data",)
