from __future__ import annotations

import pytest

from service.access.key_text import KeyText, holds_key, key_from_text, new_key, without_secrets

KEY = KeyText("0123456789ab", "c" * 64)


@pytest.mark.parametrize(
    "text", ["", "secret", f"{KEY} ", f" {KEY}", f"{KEY}\n", str(KEY).upper(), f"{KEY}0", str(KEY)[:-1], f"{KEY},{KEY}"]
)
def test_what_is_not_exactly_a_key_is_none(text: str) -> None:
    assert key_from_text(text) is None


def test_another_secret_may_have_the_same_id() -> None:
    again = new_key(KEY.id)
    assert again.id == KEY.id
    assert again.secret != KEY.secret
    assert again.is_of(again.secret_sha256)
    assert not again.is_of(KEY.secret_sha256)


def test_texts_lose_the_secrets_of_keys() -> None:
    text = f"GET /v1/jobs/{KEY}?key={KEY}"
    assert holds_key(text)
    assert without_secrets(text) == f"GET /v1/jobs/oto_{KEY.id}_...?key=oto_{KEY.id}_..."
    assert not holds_key(f"of key {KEY.id}")
