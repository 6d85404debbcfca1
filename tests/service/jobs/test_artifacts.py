from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.errors import InsufficientStorageError, NotFoundError
from service.jobs.artifacts import ArtifactStore, LocalArtifactStore

DATA = b"some bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()


class ArtifactStoreContract:
    """What every artifact store keeps; a test class for each store inherits it and gives the ``store``."""

    def test_file_is_read_back_under_the_digest_of_its_bytes(self, store: ArtifactStore) -> None:
        with store.writer() as writer:
            writer.write(DATA[:4])
            writer.write(DATA[4:])
            stored = writer.commit()
        assert (stored.sha256, stored.size_bytes, stored.id) == (DIGEST, len(DATA), f"sha256:{DIGEST}")
        with store.open(DIGEST) as file:
            assert file.read() == DATA

    def test_unfinished_file_is_not_there(self, store: ArtifactStore) -> None:
        with store.writer() as writer:
            writer.write(DATA)
        assert store.find(DIGEST) is None

    def test_failed_write_raises_its_own_error_and_stores_nothing(self, store: ArtifactStore) -> None:
        def write_and_fail() -> None:
            with store.writer() as writer:
                writer.write(DATA)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write_and_fail()
        assert store.find(DIGEST) is None

    def test_uploads_are_told_from_other_files(self, store: ArtifactStore) -> None:
        for data, expected in ((DATA, len(DATA)), (b"ours", None)):
            with store.writer(expected) as writer:
                writer.write(data)
                writer.commit()
        ours = next(file.sha256 for file in store.files() if file.sha256 != DIGEST)
        assert [store.is_upload(sha256) for sha256 in (DIGEST, ours, "0" * 64, "../x")] == [True, False, False, False]
        for sha256 in (ours, "0" * 64, "../x"):
            store.mark_upload(sha256)
        assert [store.is_upload(sha256) for sha256 in (ours, "0" * 64, "../x")] == [True, False, False]

    def test_removed_file_is_gone_and_the_others_stay(self, store: ArtifactStore) -> None:
        for data in (DATA, b"other"):
            with store.writer(len(data)) as writer:
                writer.write(data)
                writer.commit()
        assert {file.size_bytes for file in store.files()} == {len(DATA), 5}
        for sha256 in (DIGEST, DIGEST, "../x"):
            store.remove(sha256)
        assert store.find(DIGEST) is None
        assert not store.is_upload(DIGEST)
        assert [file.size_bytes for file in store.files()] == [5]

    def test_same_bytes_are_one_file(self, store: ArtifactStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(DATA)
        assert store.put(path) == store.put(path) == store.find(DIGEST)

    def test_fetched_file_has_the_same_bytes(self, store: ArtifactStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(DATA)
        store.put(path)
        store.fetch(DIGEST, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == DATA

    def test_removing_a_fetched_file_leaves_the_stored_one(self, store: ArtifactStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(DATA)
        store.put(path)
        store.fetch(DIGEST, tmp_path / "fetched")
        (tmp_path / "fetched").unlink()
        assert store.find(DIGEST) is not None

    @pytest.mark.parametrize("digest", [DIGEST, "", "../../etc/passwd", DIGEST.upper(), "0" * 63])
    def test_absent_or_malformed_digest_is_not_found(self, store: ArtifactStore, tmp_path: Path, digest: str) -> None:
        assert store.find(digest) is None
        with pytest.raises(NotFoundError), store.open(digest):
            pass
        with pytest.raises(NotFoundError):
            store.fetch(digest, tmp_path / "fetched")

    def test_empty_file_can_be_stored(self, store: ArtifactStore) -> None:
        with store.writer() as writer:
            assert writer.commit().size_bytes == 0


class TestLocalArtifactStore(ArtifactStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ArtifactStore:
        return LocalArtifactStore(tmp_path / "store")

    def test_no_unfinished_file_is_left(self, store: ArtifactStore, tmp_path: Path) -> None:
        with store.writer() as writer:
            writer.write(DATA)
        with store.writer() as first, store.writer() as second:
            first.write(DATA)
            second.write(DATA)
            first.commit()
            second.commit()
        assert list((tmp_path / "store" / "unfinished").iterdir()) == []

    def test_unfinished_files_of_a_killed_process_are_removed_at_start(self, tmp_path: Path) -> None:
        (tmp_path / "store" / "unfinished").mkdir(parents=True)
        (tmp_path / "store" / "unfinished" / "stale").write_bytes(DATA)
        LocalArtifactStore(tmp_path / "store")
        assert list((tmp_path / "store" / "unfinished").iterdir()) == []


def test_upload_for_which_there_is_no_room_is_refused_before_and_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalArtifactStore(tmp_path / "store", reserve_bytes=1000)
    free = 2 * 2**30
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(InsufficientStorageError, match=f"{free} bytes are free, {free} more are needed and 1000 have to stay free"):
        store.writer(free)
    with store.writer(0) as writer:
        writer.write(bytes(2**20))
        free = 900
        writer.write(bytes(2**20))  # the disk is not looked at for every piece
        with pytest.raises(InsufficientStorageError, match="900 bytes are free"):
            writer.write(bytes(2**25))
    assert list((tmp_path / "store" / "unfinished").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="says how Linux is asked")
def test_a_large_file_is_on_its_way_to_the_disk_while_it_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("os.posix_fadvise", lambda _descriptor, start, length, _advice: asked.append((start, length)))
    with LocalArtifactStore(tmp_path / "store").writer() as writer:
        for _ in range(7):
            writer.write(bytes(10 * 2**20))
        writer.commit()
    assert asked == [(0, 40 * 2**20)]  # in parts of 32 MiB or a little more; the last waits for the end


def test_files_of_our_own_may_take_what_uploads_leave_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalArtifactStore(tmp_path / "store", reserve_bytes=2**60)
    (tmp_path / "engine").write_bytes(DATA)
    assert store.put(tmp_path / "engine").sha256 == DIGEST
    with pytest.raises(InsufficientStorageError):
        store.writer(0)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is a file of Linux")
def test_disk_that_fills_up_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "store")
    writer = store.writer(5)
    with writer:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writer._file.fileno())
        os.close(full)
        with pytest.raises(InsufficientStorageError, match="1048576 more are needed"):
            writer.write(bytes(2**20))
    assert list((tmp_path / "store" / "unfinished").iterdir()) == []
