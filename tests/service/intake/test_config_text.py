"""The text of a configuration that cannot be taken at its word is an error of the input, with a fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from service.__main__ import main
from service.intake.config_text import value_from_config_text


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("[" * 100_000, "config: it is not JSON that can be read: it is nested too deeply"),
        ('{"search": {"seed": 1, "seed": 2}}', "config: found the key 'seed' twice, expected it once"),
        ('{"target": ', "config: it is not JSON (Expecting value: line 1 column 12 (char 11))"),
        ('{"gpu": "\\ud800"}', "config: it is not JSON ('utf-8' codec can't encode character"),
    ],
)
def test_text_that_cannot_be_taken_at_its_word_is_refused(text: str, detail: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        value_from_config_text(text, "config", "Correct it.")
    assert caught.value.detail.startswith(detail)
    assert caught.value.fix in {"Correct it.", "Keep one of them."}


def test_a_key_may_be_in_two_objects() -> None:
    assert value_from_config_text('{"x": {"min": 1}, "y": {"min": 2}}', "config", "") == {"x": {"min": 1}, "y": {"min": 2}}


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe{", b'{"gpu": 1, "gpu": 2}'])
def test_a_file_of_such_text_exits_2(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    arguments = ["optimize", "model.onnx", "--calibration", "data.npz", "--output", str(tmp_path / "out"), "--config", str(path)]
    assert main(arguments) == 2
    assert capfd.readouterr().err.startswith(f"error: config {path}: ")
