from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.models import CALIBRATION_TEXTS, LeftOutError, Prepared, fortunes, prepare_models, read_fortunes, read_listing, split_texts

LONG = "A text that is long enough to be told from a mere name."


def test_texts_are_split_at_percent_lines_and_put_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "wisdom").write_text(f"{LONG}\nAnd more.\n%\nshort\n%\n{LONG}\n", encoding="utf-8")
    assert read_fortunes(tmp_path) == [f"{LONG} And more.", LONG]


def test_indexes_and_repeated_texts_are_passed_over(tmp_path: Path) -> None:
    for name in ("one", "two", "two.dat"):
        (tmp_path / name).write_text(LONG, encoding="utf-8")
    assert read_fortunes(tmp_path) == [LONG]


def test_without_apt_the_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LeftOutError, match="apt-get and dpkg-deb not found"):
        fortunes(tmp_path)


def test_networks_of_a_folder_are_taken_and_what_is_missing_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.onnx").write_bytes(b"bytes")
    found = prepare_models(tmp_path / "out", (), tmp_path / "mine", tmp_path / "environment", tmp_path)
    assert read_listing(tmp_path / "out") == found.models == (Prepared("net", "net.onnx", "as given"),)
    assert list(found.left_out) == ["texts"]
    assert (tmp_path / "out" / "net.onnx").read_bytes() == b"bytes"


def test_calibration_and_validation_texts_are_different_ones(tmp_path: Path) -> None:
    ids = np.arange(CALIBRATION_TEXTS + 5)[:, np.newaxis]
    np.savez(tmp_path / "texts.npz", input_ids=ids)
    split_texts(tmp_path / "texts.npz", tmp_path)
    with np.load(tmp_path / "texts_calibration.npz") as first, np.load(tmp_path / "texts_validation.npz") as second:
        assert np.concatenate([first["input_ids"], second["input_ids"]]).tolist() == ids.tolist()
        assert len(second["input_ids"]) == 5
