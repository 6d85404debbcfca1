"""Rows of tokens."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from calibration.data.formats.preprocess import TokenOptions
from calibration.data.formats.wanted import Found, Wanted
from calibration.data.readers import read_arrays
from calibration.errors import InputError, InvalidCalibrationSetError, InvalidConfigError
from calibration.onnx_model.model_io import TensorSpec

IDS, MASK = (TensorSpec(name, "int64", ("N", "T")) for name in ("input_ids", "attention_mask"))


def read(folder: Path, rows: object, *inputs: TensorSpec, pad: int | None = 9) -> Found:
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows if isinstance(rows, list))  # type: ignore[attr-defined]  # a list of rows, as the next words say
    (folder / "rows.jsonl").write_text(text)
    return read_arrays(folder / "rows.jsonl", Wanted(inputs or (IDS, MASK), tokens=TokenOptions(pad)))


def refusal(folder: Path, rows: object, pad: int | None = 9) -> InputError:
    with pytest.raises(InputError) as raised:
        read(folder, rows, pad=pad)
    return raised.value


def test_rows_are_filled_up_and_the_mask_is_made(tmp_path: Path) -> None:
    found = read(tmp_path, [{"input_ids": [1, 9, 3], "label": 1}, {"input_ids": [4], "label": 0}]).arrays
    assert found["input_ids"].tolist() == [[1, 9, 3], [4, 9, 9]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]  # by the rows' lengths: a token may equal the padding
    assert found["labels"].tolist() == [1, 0]


def test_masks_that_are_given_are_filled_with_zeros(tmp_path: Path) -> None:
    rows = [{"input_ids": [1, 2], "attention_mask": [1, 1]}, {"input_ids": [1], "attention_mask": [1]}]
    assert read(tmp_path, rows).arrays["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_labels_of_tokens_do_not_count_behind_the_end(tmp_path: Path) -> None:
    rows = [{"input_ids": [1, 2], "labels": [5, 6]}, {"input_ids": [1], "labels": [7]}]
    assert read(tmp_path, rows).arrays["labels"].tolist() == [[5, 6], [7, -100]]


def test_rows_reach_the_length_that_the_model_fixes(tmp_path: Path) -> None:
    found = read(tmp_path, [{"input_ids": [1, 2]}, {"input_ids": [1]}], TensorSpec("input_ids", "int64", ("N", 4))).arrays
    assert found["input_ids"].tolist() == [[1, 2, 9, 9], [1, 9, 9, 9]]


def test_rows_of_one_length_need_no_padding(tmp_path: Path) -> None:
    assert read(tmp_path, [{"input_ids": [1, 2]}] * 2, IDS, pad=None).arrays["input_ids"].tolist() == [[1, 2], [1, 2]]


def test_what_fills_rows_up_must_be_stated(tmp_path: Path) -> None:
    error = refusal(tmp_path, [{"input_ids": [1, 2]}, {"input_ids": [1]}], pad=None)
    assert isinstance(error, InvalidConfigError)
    assert error.detail == "tokens.pad: missing, and the rows of calibration file 'rows.jsonl' differ in length"
    assert '"tokens": {"pad": 0}' in error.fix


@pytest.mark.parametrize(
    ("rows", "detail"),
    [
        ('{"input_ids": [1, 2\n', "line 1 is not JSON"),
        ('{"input_ids": [1, 2]}\n[3]\n', "line 2 is no JSON object"),
        ([{"input_ids": ["a"]}], "'input_ids' of row 1 holds text, numbers expected"),
        ([{"input_ids": None}], "holds something else, numbers expected"),
        ([{"input_ids": [[1], [2, 3]]}], "has rows of different lengths"),
        ([{"input_ids": [1]}, {"ids": [1]}], "do not both have 'ids'"),
        ([{"input_ids": [[1]]}, {"input_ids": [[1, 2]]}], "has rows of different shapes"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, rows: object, detail: str) -> None:
    error = refusal(tmp_path, rows)
    assert isinstance(error, InvalidCalibrationSetError)
    assert detail in error.detail


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed, so that nothing is missing")
def test_a_parquet_file_names_the_package_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1....PAR1")
    with pytest.raises(InvalidCalibrationSetError, match="which only the package pyarrow reads") as raised:
        read_arrays(tmp_path / "rows.parquet", Wanted((IDS,)))
    assert "pip install 'onnx-trt-optimizer[parquet]'" in raised.value.fix


@pytest.mark.parametrize("before", ["\ufeff", "\n", "\ufeff\r\n \n"])
def test_a_mark_of_utf8_and_empty_lines_may_come_first(tmp_path: Path, before: str) -> None:
    found = read(tmp_path, before + '{"input_ids": [1, 2], "label": 1}\r\n{"input_ids": [3, 4], "label": 0}').arrays
    assert found["labels"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ('{"input_ids": [1], "input_ids": [2]}', "line 1 is not JSON: the key 'input_ids' stands twice"),
        ('{"input_ids": [1], "label": 0, "labels": 1}', "rows have 'label' and 'labels'"),
    ],
)
def test_what_is_said_twice_is_refused(tmp_path: Path, row: str, detail: str) -> None:
    assert detail in refusal(tmp_path, row).detail


def test_a_list_of_rows_is_told_the_form_of_rows(tmp_path: Path) -> None:
    error = refusal(tmp_path, json.dumps([{"input_ids": [1, 2], "label": 1}]))
    assert "'input_ids' of call 0 is no array as Polygraphy writes it" in error.detail
    assert ".jsonl, one object a line" in error.fix
