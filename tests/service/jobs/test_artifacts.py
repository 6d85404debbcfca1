from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from service.errors import NotFoundError
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
