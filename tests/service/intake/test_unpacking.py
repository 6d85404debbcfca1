from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from calibration.errors import InputError, InvalidModelError
from service.errors import TooLargeError
from service.intake import unpacking
from service.intake.unpacking import is_archive, unpack_model

LIMIT = 2**27


def zip_of(files: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], *extra: tarfile.TarInfo, pax: Mapping[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.pax_headers = dict(pax or {})
            archive.addfile(entry, io.BytesIO(data))
        for entry in extra:
            archive.addfile(entry)
    return buffer.getvalue()


@pytest.fixture
def unpack(tmp_path: Path):  # type: ignore[no-untyped-def]  # a closure, whose type says nothing here
    def unpack_bytes(data: bytes, limit: int = LIMIT) -> Path:
        path = tmp_path / "archive"
        path.write_bytes(data)
        assert is_archive(path)
        try:
            return unpack_model(path, tmp_path / "unpacked", limit)
        except InputError:
            assert sorted(tmp_path.iterdir()) == [path], "a refused archive leaves nothing behind"
            raise

    return unpack_bytes


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_model_and_its_external_data_are_unpacked_side_by_side(unpack, pack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    model = unpack(pack({"net/model.onnx": b"model", "net/data/weights.bin": b"weights", "__MACOSX/net/._model.onnx": b"shadow"}))
    assert model.read_bytes() == b"model"
    assert (model.parent / "data" / "weights.bin").read_bytes() == b"weights"


def test_compressed_zip_is_unpacked(unpack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    assert unpack(zip_of({"model.onnx": b"m" * 5000}, compression=zipfile.ZIP_DEFLATED)).stat().st_size == 5000


@pytest.mark.parametrize("name", ["../model.onnx", "/tmp/model.onnx", "a/../../model.onnx", "C:/model.onnx", "a\\model.onnx"])
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_name_that_leads_out_of_the_archive_is_refused(unpack, pack, name: str) -> None:  # type: ignore[no-untyped-def]  # see unpack
    with pytest.raises(InvalidModelError, match="leads out of the archive"):
        unpack(pack({name: b"model"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_link_or_device_in_a_tar_is_refused(unpack, kind: bytes) -> None:  # type: ignore[no-untyped-def]  # see unpack
    entry = tarfile.TarInfo("weights.bin")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with pytest.raises(InvalidModelError, match="link, a device"):
        unpack(tar_of({"model.onnx": b"model"}, entry))


def test_link_in_a_zip_is_refused(unpack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.onnx", b"model")
        link = zipfile.ZipInfo("weights.bin")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidModelError, match="link or a device"):
        unpack(buffer.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's warning while the bad archive is made
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_name_that_is_there_twice_is_refused(unpack, pack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    with pytest.raises(InvalidModelError, match="there twice"):
        unpack(pack({"model.onnx": b"model", "./model.onnx": b"other"}))


def test_bomb_is_refused_by_its_expansion(unpack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    bomb = zip_of({"model.onnx": b"model", "weights.bin": bytes(80 * 2**20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TooLargeError, match="unpacked"):
        unpack(bomb)


def test_bomb_that_lies_about_its_size_is_stopped_while_unpacking(unpack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    honest = zip_of({"model.onnx": bytes(3 * 2**20)}, compression=zipfile.ZIP_DEFLATED)
    lying = honest.replace(struct.pack("<L", 3 * 2**20), struct.pack("<L", 10))
    with pytest.raises(InputError):
        unpack(lying, limit=2**20)


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_more_bytes_than_the_limit_are_refused(unpack, pack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    with pytest.raises(TooLargeError):
        unpack(pack({"model.onnx": bytes(2000)}), limit=1000)


def test_huge_extended_header_is_refused_before_it_is_read(unpack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    with pytest.raises(InvalidModelError, match="extended header"):
        unpack(tar_of({"model.onnx": b"model"}, pax={"comment": "x" * 100_000}))


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_too_many_entries_are_refused(unpack, pack, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]  # see unpack
    monkeypatch.setattr(unpacking, "MAX_ENTRIES", 10)
    with pytest.raises(TooLargeError, match="entries"):
        unpack(pack({f"{index}.bin": b"" for index in range(30)}))


@pytest.mark.parametrize("files", [{"weights.bin": b"w"}, {"a.onnx": b"a", "b.onnx": b"b"}])
def test_archive_without_exactly_one_model_is_refused(unpack, files: Mapping[str, bytes]) -> None:  # type: ignore[no-untyped-def]  # see unpack
    with pytest.raises(InvalidModelError, match=r"expected one \.onnx file"):
        unpack(zip_of(files))


@pytest.mark.parametrize("cut", [30, 60, -30])
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_truncated_archive_is_refused(unpack, pack, cut: int) -> None:  # type: ignore[no-untyped-def]  # see unpack
    data = pack({"model.onnx": b"model" * 2000})
    size = cut if cut > 0 else len(data) + cut
    if pack is tar_of:
        size += 512  # past the first header, which tells that it is a tar
    with pytest.raises(InvalidModelError):
        unpack(data[: min(size, 5000)])


def test_encrypted_entry_is_refused(unpack) -> None:  # type: ignore[no-untyped-def]  # see unpack
    data = bytearray(zip_of({"model.onnx": b"model"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InvalidModelError, match="encrypted"):
        unpack(bytes(data))


def test_plain_model_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"\x08\x07\x12\x04test")
    assert not is_archive(path)


@pytest.mark.parametrize(
    ("files", "words", "fix"),
    [
        ({"archive/data.pkl": b"x", "archive/data/0": b"x"}, "found a PyTorch checkpoint", "torch.onnx.export"),
        ({"config.json": b"{}", "model.weights.h5": b"x"}, "found a Keras model", "format='onnx'"),
        ({"README": b"x"}, "found none", "Pack one model"),
    ],
)
def test_what_other_frameworks_save_is_named(files: Mapping[str, bytes], words: str, fix: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(zip_of(files))
    with pytest.raises(InvalidModelError, match=words) as caught:
        unpack_model(path, tmp_path / "unpacked", LIMIT)
    assert fix in caught.value.fix
