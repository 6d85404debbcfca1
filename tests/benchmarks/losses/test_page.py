from __future__ import annotations

from benchmarks.losses.page import Engine, is_within, page

ENVIRONMENT = dict.fromkeys(
    ("processor", "integer_instructions", "processors_used", "load_average", "system", "python", "onnx", "onnxruntime", "numpy"), "?"
)
ENGINES = (
    Engine("net", "all low", 4, 4, plain=0.06, said=0.011, error=0.002, measured=0.01),
    Engine("net", "50% random", 2, 4, plain=0.004, said=0.004, error=0.001, measured=0.005),
)


def test_a_prediction_is_right_within_a_factor_either_way() -> None:
    assert is_within(1.0, 1.5)
    assert is_within(1.5, 1.0)
    assert not is_within(1.0, 1.6)
    assert not is_within(1.6, 1.0)
    assert not is_within(0.0, 1.0)


def test_the_page_counts_engines_within_the_factor_and_shows_each() -> None:
    text = page(ENGINES, ENVIRONMENT)
    assert "Of 2 engines, 100% have a loss within a factor of 1.5" in text
    assert "50% where layers are probed without" in text
    assert "| net | all low | 4 of 4 | 0.06 | 0.011 | 0.002 | 0.01 | 6.00 | 1.10 |" in text
    assert "| all | 2 | 50% | 100% | 2.74 | 1.17 |" in text
