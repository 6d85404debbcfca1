from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from engine_builder.workspace.workspace import file_sha256
from service.errors import DamagedArtifactError, NotFoundError, ObjectStoreError
from service.jobs.artifacts import ArtifactStore
from service.jobs.objects.object_artifacts import ObjectArtifactStore
from service.object_store.objects import Objects
from tests.service.jobs.objects.conftest import Bench
from tests.service.jobs.test_artifacts import DATA, DIGEST, ArtifactStoreContract


def stored(store: ObjectArtifactStore, data: bytes = DATA, expected: int | None = None) -> str:
    with store.writer(expected) as writer:
        writer.write(data)
        return writer.commit().sha256


def read(store: ObjectArtifactStore, sha256: str = DIGEST) -> bytes:
    with store.open(sha256) as file:
        return file.read()


class TestObjectArtifactStore(ArtifactStoreContract):
    @pytest.fixture
    def store(self, bench: Bench) -> ArtifactStore:
        return bench.process()


def test_what_one_process_stores_another_reads(bench: Bench, tmp_path: Path) -> None:
    one, other = bench.process("one"), bench.process("other")
    stored(one)
    assert other.find(DIGEST) is not None
    other.require(DIGEST)
    assert read(other) == DATA
    other.fetch(DIGEST, tmp_path / "linked")
    other.copy(DIGEST, tmp_path / "copied")
    assert (tmp_path / "linked").read_bytes() == (tmp_path / "copied").read_bytes() == DATA
    assert (tmp_path / "copied").stat().st_nlink == 1


@pytest.mark.long
def test_a_large_file_is_uploaded_in_parts_and_comes_back_whole(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for number in range(110):
            file.write(bytes([number]) * 2**20)
    sha256 = bench.process("one").put(path).sha256
    bench.process("other").fetch(sha256, tmp_path / "back")
    assert file_sha256(tmp_path / "back") == sha256


def test_a_damaged_object_is_never_served_and_is_said(bench: Bench, tmp_path: Path) -> None:
    stored(bench.process("one"))
    bench.filesystem.pipe_file(bench.path(DIGEST), b"some BYTES")
    other = bench.process("other")
    for use in (lambda: other.require(DIGEST), lambda: read(other), lambda: other.fetch(DIGEST, tmp_path / "file")):
        with pytest.raises(DamagedArtifactError, match=f"sha256:{DIGEST}: the object store lost it, or has other bytes"):
            use()
    assert not (tmp_path / "file").exists()
    assert other.find(DIGEST) is None  # so that its uploader is asked to send it again


def test_an_object_that_the_store_lost_is_said(bench: Bench) -> None:
    stored(bench.process("one"))
    bench.filesystem.rm_file(bench.path(DIGEST))
    with pytest.raises(DamagedArtifactError):
        read(bench.process("other"))


def test_the_same_bytes_sent_again_mend_a_damaged_object(bench: Bench) -> None:
    one, other = bench.process("one"), bench.process("other")
    stored(one, expected=len(DATA))
    bench.filesystem.pipe_file(bench.path(DIGEST), b"damaged")
    with pytest.raises(DamagedArtifactError):
        read(other)
    stored(bench.process("third"), expected=len(DATA))
    assert read(other) == DATA
    assert other.is_upload(DIGEST)


def test_an_object_that_was_read_badly_once_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(bench.process("one"))
    readings: list[Path] = []
    get = bench.objects.get

    def faulty(key: str, path: Path) -> None:
        readings.append(path)
        get(key, path)
        if len(readings) == 1:
            path.write_bytes(b"cut")

    monkeypatch.setattr(bench.objects, "get", faulty)
    assert read(bench.process("other")) == DATA
    assert len(readings) == 2


def test_a_damaged_file_of_an_earlier_process_is_fetched_again(bench: Bench) -> None:
    stored(bench.process("one"))
    kept = bench.root / "one" / DIGEST[:2] / DIGEST
    kept.chmod(0o644)
    kept.write_bytes(b"some BYTES")
    assert read(bench.process("one")) == DATA


def test_an_upload_that_fails_leaves_nothing_that_is_found(bench: Bench) -> None:
    class Away:
        def __getattr__(self, name: str) -> object:
            raise ConnectionError("the store is away")

    one = bench.process("one")
    one._objects = Objects(Away(), bench.folder, sleep=lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(ObjectStoreError, match="the store is away"):
        stored(one)
    assert bench.catalogue.find(DIGEST) is None
    assert list(bench.catalogue.files()) == []
    with pytest.raises(NotFoundError):
        read(bench.process("other"))
    stored(bench.process("other"))
    assert read(bench.process("third")) == DATA


def test_the_files_of_a_process_stay_within_their_room_and_come_back_when_they_are_needed(bench: Bench) -> None:
    one = bench.process("one", max_bytes=250)
    digests = [stored(one, bytes([number]) * 100) for number in range(4)]
    here = {path.name for path in (bench.root / "one").glob("??/*")}
    assert here == set(digests[-2:])
    assert [read(one, sha256) for sha256 in digests] == [bytes([number]) * 100 for number in range(4)]
    assert len(list((bench.root / "one").glob("??/*"))) == 2


def test_a_link_gives_the_file_to_whoever_has_it(bench: Bench) -> None:
    one = bench.process("one")
    stored(one)
    link = one.link(DIGEST, ResponseContentType="text/plain", ResponseContentDisposition="attachment; filename*=UTF-8''a.txt")
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert answer.read() == DATA
        assert answer.headers["Content-Type"] == "text/plain"
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a.txt"
    with pytest.raises(NotFoundError):
        one.link("0" * 64)
