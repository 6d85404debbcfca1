from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import onnxruntime
import pytest

from service.worker import result_identity as module
from service.worker.result_identity import machine_identity, result_identity


def test_it_is_the_same_each_time() -> None:
    assert result_identity("1") == result_identity("1")
    assert machine_identity() == machine_identity()


def test_another_sequence_of_stages_gives_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert result_identity("1") != result_identity("2")


@pytest.mark.parametrize("library", ["onnxruntime", "numpy", "onnx-ir", "tensorrt-rtx-cu13"])
def test_another_version_of_a_library_gives_another(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = result_identity("1"), importlib.metadata.version
    assert real("onnxruntime") == onnxruntime.__version__
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0" if name == library else real(name))
    assert result_identity("1") != before


def test_another_version_of_ours_gives_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = result_identity("1")
    monkeypatch.setattr(module, "__version__", "99.0")
    assert result_identity("1") != before


def test_changed_code_gives_another(tmp_path: Path) -> None:
    (tmp_path / "calibration" / "a").mkdir(parents=True)
    (tmp_path / "engine_builder").mkdir()
    digests = []
    for name, text in (("calibration/a/x.py", "1"), ("calibration/a/x.py", "2"), ("engine_builder/gpus.json", "{}")):
        (tmp_path / name).write_text(text)
        digests.append(module._code_digest(tmp_path))
    assert len(set(digests)) == 3
    (tmp_path / "calibration" / "a" / "notes.txt").write_text("no code")
    assert module._code_digest(tmp_path) == digests[-1]


CPU = """processor	: 0
model name	: {model}
cpu MHz		: {mhz}
flags		: {flags}

processor	: 1
"""


def test_processors_are_told_apart_by_kind_and_not_by_clock(tmp_path: Path) -> None:
    def kind(model: str, flags: str, mhz: float) -> list[str]:
        (tmp_path / "cpuinfo").write_text(CPU.format(model=model, flags=flags, mhz=mhz))
        return module._processor(tmp_path / "cpuinfo")

    one = kind("Xeon", "avx2 avx512_vnni", 2000.0)
    assert kind("Xeon", "avx2 avx512_vnni", 2100.0) == one
    assert kind("Xeon", "avx2", 2000.0) != one
    assert kind("EPYC", "avx2 avx512_vnni", 2000.0) != one


def test_fewer_processors_give_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = result_identity("1")
    monkeypatch.setattr(module, "processors", lambda: 99)
    assert result_identity("1") != before


def test_times_belong_to_a_machine_and_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine_identity()
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert machine_identity() != before
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "") + "1")
    assert machine_identity() != before
