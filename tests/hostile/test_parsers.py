"""Each parser of uploads against sound files with damage: it reads them, or says what is wrong in its own error, and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.data.formats.wanted import Wanted
from calibration.data.readers import read_arrays
from calibration.errors import InputError, InvalidCalibrationSetError, InvalidConfigError
from calibration.onnx_model.model_io import TensorSpec
from engine_builder.config.config import config_from_json, config_json
from service.intake.config_text import submitted_value
from service.intake.unpacking import is_archive, unpack_model
from tests.hostile import tars, zips
from tests.hostile.samples import npy, npz

ARCHIVES = {
    "stored": zips.named(b"model.onnx", b"a/weights.bin"),
    "deflate": zips.bomb(zips.DEFLATE, zips.zeros_deflated(1), zips.MIB),
    "bzip2": zips.bomb(zips.BZIP2, zips.zeros_in_bzip2(1), zips.MIB),
    "lzma": zips.bomb(zips.LZMA, zips.zeros_in_lzma(1), zips.MIB),
    "zip64": zips.zip64(1, 56),
    "tar": tars.with_model(tars.pax(b"path", b"other"), tars.entry(b"weights.bin")),
    "tar.gz": gzip.compress(tars.with_model(tars.entry(b"weights.bin")), mtime=0),
}
SAMPLES = {"npz": npz(x=npy(np.arange(40.0)), y=npy(np.arange(4))), "npy": npy(np.arange(40.0))}
DAMAGE = st.lists(st.tuples(st.integers(0, 99_999), st.integers(0, 255)), max_size=6)  # bytes by place, modulo the length
CUT = st.one_of(st.just(10**6), st.integers(0, 3000))
KEYS = sorted(config_json(config_from_json({})))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
    max_leaves=20,
)


def damaged(data: bytes, damage: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(data)
    for at, value in damage:
        changed[at % len(changed)] = value
    return bytes(changed[:cut])


@contextlib.contextmanager
def written(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "upload").write_bytes(data)
        yield Path(folder, "upload")


@pytest.mark.parametrize("kind", list(ARCHIVES))
@settings(max_examples=60)
@given(damage=DAMAGE, cut=CUT)
def test_archives(kind: str, damage: list[tuple[int, int]], cut: int) -> None:
    with written(damaged(ARCHIVES[kind], damage, cut)) as path:
        if not is_archive(path):
            return
        try:
            model = unpack_model(path, path.parent / "unpacked", 2**22)
        except InputError as error:
            said, model = error.detail, None
        if model is None:
            assert str(path.parent) not in said
            assert [one.name for one in path.parent.iterdir()] == ["upload"]
        else:
            assert model.resolve().is_relative_to((path.parent / "unpacked").resolve())


WANTED = Wanted((TensorSpec("x", "float32", ("N", 4)),))


@pytest.mark.parametrize("kind", list(SAMPLES))
@settings(max_examples=100)
@given(damage=DAMAGE, cut=CUT)
def test_samples(kind: str, damage: list[tuple[int, int]], cut: int) -> None:
    with written(damaged(SAMPLES[kind], damage, cut)) as path, contextlib.suppress(InvalidCalibrationSetError):
        assert all(isinstance(array, np.ndarray) for array in read_arrays(path, WANTED).arrays.values())


@given(header=st.text(alphabet="{}()[]'\",:<>=|fF0123456789 -descrfortran_ordershapeTrueFalse", max_size=200))
def test_headers_of_arrays(header: str) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header.encode()).to_bytes(2, "little") + header.encode() + bytes(64)
    with written(npz(x=content)) as path, contextlib.suppress(InvalidCalibrationSetError):
        read_arrays(path, WANTED)


@given(text=st.text(max_size=200) | JSON.map(json.dumps))
def test_configurations(text: str) -> None:
    try:
        config = config_from_json(submitted_value(text))
    except InvalidConfigError:
        return
    assert config_from_json(json.loads(json.dumps(config_json(config)))) == config
