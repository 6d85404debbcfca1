from __future__ import annotations

import base64
from pathlib import Path

import pytest

from service.access.encryption import Encryption
from service.access.key_places import KEY_NAME, KeyFile
from service.errors import EncryptionKeyError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / KEY_NAME


@pytest.fixture
def encryption(path: Path) -> Encryption:
    encryption = Encryption(KeyFile(path))
    encryption.make_key()
    return encryption


def test_text_comes_back_for_its_purpose_and_cannot_be_seen_meanwhile(encryption: Encryption) -> None:
    token = encryption.encrypt("hush ü", "webhook of job one")
    assert b"hush" not in base64.urlsafe_b64decode(token)
    assert encryption.encrypt("hush ü", "webhook of job one") != token  # who sees two cannot tell that they are alike
    assert encryption.decrypt(token, "webhook of job one") == "hush ü"


def test_text_that_was_moved_to_another_row_is_refused(encryption: Encryption) -> None:
    token = encryption.encrypt("hush", "webhook of job one")
    with pytest.raises(EncryptionKeyError, match="of something else"):
        encryption.decrypt(token, "webhook of job two")


@pytest.mark.parametrize("place", [5, 30, -5])
def test_changed_text_is_refused(encryption: Encryption, place: int) -> None:
    token = bytearray(base64.urlsafe_b64decode(encryption.encrypt("hush", "one")))
    token[place] ^= 1
    with pytest.raises(EncryptionKeyError):
        encryption.decrypt(base64.urlsafe_b64encode(token).decode(), "one")


def test_without_a_key_nothing_is_encrypted(path: Path) -> None:
    encryption = Encryption(KeyFile(path))
    assert not encryption.has_key()
    with pytest.raises(EncryptionKeyError, match="there is none"):
        encryption.encrypt("hush", "one")


def test_lost_key_is_named_with_what_to_do(encryption: Encryption, path: Path) -> None:
    token = encryption.encrypt("hush", "webhook of job one")
    path.unlink()
    encryption.make_key()
    with pytest.raises(EncryptionKeyError, match=r"webhook of job one: .* another key") as caught:
        encryption.decrypt(token, "webhook of job one")
    assert KEY_NAME in caught.value.fix
    with pytest.raises(EncryptionKeyError):
        encryption.renewed(token)


@pytest.mark.parametrize("text", ["", "\n", "short", "A" * 43 + "= short", "ü" * 44])
def test_what_is_no_key_is_refused_and_not_shown(encryption: Encryption, path: Path, text: str) -> None:
    path.write_text(text)
    for work in (encryption.check_key, lambda: encryption.encrypt("hush", "one"), lambda: encryption.decrypt("x", "one")):
        with pytest.raises(EncryptionKeyError, match="expected keys of 44 characters") as caught:
            work()
        assert "short" not in str(caught.value)


def test_replaced_key_reads_what_the_one_before_wrote_and_is_the_one_that_writes(encryption: Encryption, path: Path) -> None:
    old, token = path.read_text().split(), encryption.encrypt("hush", "one")
    encryption.replace_key(lambda: None)
    new = path.read_text().split()
    assert len(new) == 2
    assert new[1:] == old
    assert encryption.decrypt(token, "one") == "hush"
    renewed = encryption.renewed(token)
    assert renewed is not None
    assert encryption.renewed(renewed) is None
    path.write_text(new[0])
    assert encryption.decrypt(renewed, "one") == "hush"


def test_keys_before_the_last_one_go_only_once_all_is_encrypted_anew(encryption: Encryption, path: Path) -> None:
    encryption.replace_key(lambda: None)
    before, seen = path.read_text().split(), []
    encryption.replace_key(lambda: seen.extend(path.read_text().split()))
    assert seen[1:] == before  # while it is encrypted anew, every key is there: a crash then loses nothing
    assert path.read_text().split() == seen[:2]


def test_first_key_is_made_where_one_is_to_be_replaced_and_there_is_none(path: Path) -> None:
    Encryption(KeyFile(path)).replace_key(lambda: None)
    assert len(path.read_text().split()) == 1
