"""Reads rows of tokens: .jsonl, an object of lists a line, and .parquet, a row of lists, padded to one length.

A row holds lists under the names of the model's inputs and, where there are labels, ``label`` or ``labels``: a number for the row, or a
list of one a token, of which those behind the row's end do not count. An attention mask that the model takes and no row has is made: 1 for
the tokens of a row, 0 for what it is filled up with.
"""

from __future__ import annotations

import codecs
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from calibration.accuracy.measures.token_classes import IGNORED
from calibration.data.formats.json_text import value_from_json_text
from calibration.data.formats.wanted import Array, Found, Wanted
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

MAX_ROWS = 1_000_000
MASKS = ("attention_mask", "input_mask")
TOKENS = ("input_ids", "ids", "tokens")
_LINE_BYTES = 64 * 2**20
_LABELS = ("label", "labels", "__labels__")
_ZERO_FILLED = ("mask", "type_ids")  # ends of names
_FIX = 'Write one JSON object a line: {"input_ids": [101, 7592, 102], "label": 1}.'
Row = Mapping[str, object]


def read_json_lines(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the rows of a .jsonl as arrays.

    Args:
        file: At its start.
        name: Of the file, for a message.
        wanted: What the model takes, and the token that rows are filled up with.

    Raises:
        InvalidCalibrationSetError: A line is no object of lists of numbers, or rows do not fit each other.
        InvalidConfigError: Rows differ in length, and it is not stated what they are filled up with.
    """
    return _found(_json_rows(file, name), wanted, name)


def read_parquet(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the rows of a .parquet as arrays; as ``read_json_lines``.

    Raises:
        InvalidCalibrationSetError: Also where the package that reads it is not installed.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as exc:
        raise InvalidCalibrationSetError(
            f"{name}: is a .parquet file, which only the package pyarrow reads, and that is not installed here",
            fix="Install it: pip install 'onnx-trt-optimizer[parquet]'. Or write the rows as .jsonl: frame.to_json(path, orient='records', "
            "lines=True).",
        ) from exc
    table = parquet.ParquetFile(file)
    if table.metadata.num_rows > MAX_ROWS:
        raise _too_many(name)
    known = [column for column in table.schema_arrow.names if column in {*wanted.names, *_LABELS}]
    if not known:
        raise InvalidCalibrationSetError(
            f"{name}: columns {', '.join(map(repr, table.schema_arrow.names[:8]))} found, the model's inputs expected: "
            f"{', '.join(map(repr, wanted.names))}",
            fix="Name the columns as the model's inputs.",
        )
    rows = (row for batch in table.iter_batches(batch_size=1024, columns=known) for row in batch.to_pylist())
    return _found(rows, wanted, name)


def with_masks(arrays: Mapping[str, Array], wanted: Wanted) -> dict[str, Array]:
    """Return arrays with the attention mask that the model takes and the file leaves out, where the padding token is stated.

    Args:
        arrays: By name; tokens are (samples, tokens), whole numbers.
        wanted: What the model takes, and what rows are filled up with.
    """
    found = dict(arrays)
    tokens = next((arrays[name] for name in (*TOKENS, *wanted.names) if name in arrays and _are_tokens(arrays[name])), None)
    for mask in MASKS:
        if mask in wanted.names and mask not in arrays and tokens is not None and wanted.tokens.pad is not None:
            found[mask] = (tokens != wanted.tokens.pad).astype(np.int64)
    return found


def _are_tokens(array: Array) -> bool:
    return array.ndim == 2 and array.dtype.kind in "iu"  # samples and tokens


def _json_rows(file: BinaryIO, name: str) -> Iterator[Row]:
    number = 0
    while line := file.readline(_LINE_BYTES + 1):
        number += 1
        if len(line) > _LINE_BYTES:
            raise InvalidCalibrationSetError(f"{name}: line {number} has more than {_LINE_BYTES} bytes", fix=_FIX)
        if not line.removeprefix(codecs.BOM_UTF8).strip():
            continue
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace")
        value = value_from_json_text(text, name, f"line {number}", _FIX)
        if not isinstance(value, Mapping):
            raise InvalidCalibrationSetError(f"{name}: line {number} is no JSON object", fix=_FIX)
        yield value


def _found(rows: Iterable[Row], wanted: Wanted, name: str) -> Found:
    columns: dict[str, list[Array]] = {}
    count = 0
    for count, row in enumerate(rows, start=1):
        if count > MAX_ROWS:
            raise _too_many(name)
        if columns and set(row) != set(columns):
            odd = sorted(set(row) ^ set(columns))[0]
            raise InvalidCalibrationSetError(f"{name}: row {count} and the rows before it do not both have '{odd}'", fix=_FIX)
        for key, value in row.items():
            columns.setdefault(key, []).append(_numbers(value, f"{name}: '{key}' of row {count}"))
    if not count:
        raise InvalidCalibrationSetError(f"{name}: holds no rows", fix=_FIX)
    if len(labels := [key for key in columns if _named(key, wanted) == wanted.label_name]) > 1:
        raise InvalidCalibrationSetError(
            f"{name}: rows have {' and '.join(map(repr, labels))}, one of them expected", fix="Keep one of them."
        )
    is_ragged = any(len({array.shape for array in arrays}) > 1 for arrays in columns.values())
    if is_ragged and wanted.tokens.pad is None:
        raise InvalidConfigError(
            f"tokens.pad: missing, and the rows of {name} differ in length", fix='Add the padding token: "tokens": {"pad": 0}.'
        )
    lengths = {key: np.array([len(array) if array.ndim else 0 for array in arrays]) for key, arrays in columns.items()}
    arrays = {_named(key, wanted): _padded(arrays, key, wanted, name) for key, arrays in columns.items()}
    tokens = next((key for key in (*TOKENS, *wanted.names) if key in columns and columns[key][0].ndim == 1), None)
    for mask in MASKS:
        if mask in wanted.names and mask not in arrays and tokens is not None:
            arrays[mask] = (np.arange(arrays[tokens].shape[1])[None, :] < lengths[tokens][:, None]).astype(np.int64)
    return Found(arrays)


def _numbers(value: object, what: str) -> Array:
    fix = "Give numbers, lists of numbers, or lists of such lists of one length; for words the indices of the tokens or the classes."
    try:
        array = np.asarray(value)
    except ValueError as exc:
        raise InvalidCalibrationSetError(f"{what} has rows of different lengths", fix=fix) from exc
    if array.dtype.kind not in "fiub":
        found = "text" if array.dtype.kind in "US" else "something else"
        raise InvalidCalibrationSetError(f"{what} holds {found}, numbers expected", fix=fix)
    return array


def _padded(arrays: Sequence[Array], key: str, wanted: Wanted, name: str) -> Array:
    """Return one array of rows, filled up at their ends where they differ in length."""
    ranks = {array.ndim for array in arrays}
    shapes = {array.shape for array in arrays}
    most = max((shape[0] for shape in shapes if shape), default=0)
    fixed = next((spec.shape[1] for spec in wanted.inputs if spec.name == key and len(spec.shape) > 1), None)
    if ranks == {1} and isinstance(fixed, int) and wanted.tokens.pad is not None and most <= fixed:
        most = fixed
    if len(shapes) == 1 and (ranks != {1} or most == len(arrays[0])):
        return np.stack(arrays)
    if ranks != {1}:
        raise InvalidCalibrationSetError(
            f"{name}: '{key}' has rows of different shapes, such as {', '.join(map(str, sorted(shapes)[:3]))}", fix="Give all one shape."
        )
    fill = IGNORED if key in _LABELS else 0 if key.endswith(_ZERO_FILLED) else wanted.tokens.pad
    whole = np.full((len(arrays), most), fill, dtype=np.result_type(*(array.dtype for array in arrays)))
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
    return whole


def _named(key: str, wanted: Wanted) -> str:
    return wanted.label_name if key in _LABELS and key not in wanted.names else key


def _too_many(name: str) -> InvalidCalibrationSetError:
    return InvalidCalibrationSetError(f"{name}: holds more than {MAX_ROWS} rows", fix="Give fewer; a few hundred are usual.")
