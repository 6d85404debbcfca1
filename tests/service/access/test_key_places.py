from __future__ import annotations

import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from service.access.encryption import KeyPlace, new_key
from service.access.key_places import KEY_NAME, KeyFile, KeyObject, KeySetting, key_place
from service.errors import EncryptionKeyError, ObjectStoreError
from service.object_store.objects import Objects
from service.settings import Settings
from tests.service.object_store.test_objects import FaultyFileSystem


class KeyPlaceContract:
    @pytest.fixture
    def place(self) -> KeyPlace:
        raise NotImplementedError

    def test_first_keys_stay(self, place: KeyPlace) -> None:
        place.write_first("one")
        first = place.read()
        place.write_first("two")
        assert first is not None
        assert place.read() == first

    def test_place_has_a_name(self, place: KeyPlace) -> None:
        assert place.where


class WrittenPlaceContract(KeyPlaceContract):
    def test_keys_are_none_then_written_then_replaced(self, place: KeyPlace) -> None:
        assert place.read() is None
        place.write_first("one")
        assert str(place.read()).split() == ["one"]
        place.replace("two\none")
        assert str(place.read()).split() == ["two", "one"]


class TestKeyFile(WrittenPlaceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> KeyFile:
        return KeyFile(tmp_path / KEY_NAME)

    def test_only_its_user_may_read_the_file_and_no_other_is_left(self, place: KeyFile, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            place.write_first("one")
            place.replace("two")
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]

    def test_of_many_that_make_it_at_once_all_read_the_same(self, tmp_path: Path) -> None:
        found: list[str | None] = []
        start = threading.Barrier(8)

        def make() -> None:
            mine = KeyFile(tmp_path / KEY_NAME)
            start.wait()
            mine.write_first(new_key())
            found.append(mine.read())

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(found)) == 1

    def test_file_system_without_links_will_do(self, place: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refuse)
        place.write_first("one")
        place.write_first("two")
        assert str(place.read()).split() == ["one"]

    def test_file_that_others_may_read_is_told_of_once(self, place: KeyFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        place.write_first("one")
        place.read()
        assert not caplog.records
        (tmp_path / KEY_NAME).chmod(0o640)
        for _ in range(3):
            place.read()
        assert len(caplog.records) == 1
        assert "chmod 600" in caplog.text

    def test_what_cannot_be_read_or_written_says_why(self, tmp_path: Path) -> None:
        (tmp_path / KEY_NAME).mkdir()
        with pytest.raises(EncryptionKeyError, match="cannot be read: Is a directory"):
            KeyFile(tmp_path / KEY_NAME).read()
        with pytest.raises(EncryptionKeyError, match="cannot be written: No such file"):
            KeyFile(tmp_path / "gone" / KEY_NAME).write_first("one")
        (tmp_path / "bytes").write_bytes(b"\xff\xfe")
        with pytest.raises(EncryptionKeyError, match="it is no text"):
            KeyFile(tmp_path / "bytes").read()


class TestKeyObject(WrittenPlaceContract):
    @pytest.fixture
    def files(self) -> FaultyFileSystem:
        return FaultyFileSystem()

    @pytest.fixture
    def place(self, files: FaultyFileSystem) -> KeyObject:
        return KeyObject(Objects(files, "bucket/part", sleep=lambda _: None), "s3://bucket/part/")

    def test_object_lies_beside_the_others(self, place: KeyObject, files: FaultyFileSystem) -> None:
        place.write_first("one")
        assert files.stored == {f"bucket/part/{KEY_NAME}": b"one"}
        assert place.where == f"s3://bucket/part/{KEY_NAME}"

    def test_store_that_is_away_is_no_missing_key(self, place: KeyObject, files: FaultyFileSystem) -> None:
        files.errors = [ConnectionError("away")] * 9
        with pytest.raises(ObjectStoreError):
            place.read()


class TestKeySetting(KeyPlaceContract):
    @pytest.fixture
    def place(self) -> KeySetting:
        return KeySetting("one,two")

    def test_setting_is_the_operators_to_change(self, place: KeySetting) -> None:
        with pytest.raises(InvalidConfigError, match="ENCRYPTION_KEYS"):
            place.replace("other")
        assert place.read() == "one,two"


def test_place_is_that_of_the_files_unless_the_setting_is_there(tmp_path: Path) -> None:
    url = "postgresql+psycopg://user@host/jobs"
    objects = Objects(FaultyFileSystem(), "bucket/part")
    alone = Settings(data_dir=tmp_path / "data")
    shared = Settings(data_dir=tmp_path / "data", database_url=url, shared_dir=tmp_path / "shared")
    stored = Settings(data_dir=tmp_path / "data", database_url=url, object_store="s3://bucket/part")
    assert key_place(alone, None).where == str(tmp_path / "data" / KEY_NAME)
    assert key_place(shared, None).where == str(tmp_path / "shared" / KEY_NAME)
    assert key_place(stored, objects).where == f"s3://bucket/part/{KEY_NAME}"
    for settings in (alone, shared, stored):
        assert key_place(replace(settings, encryption_keys=new_key()), objects).where == "ONNX_TRT_OPTIMIZER_ENCRYPTION_KEYS"
