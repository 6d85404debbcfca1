from __future__ import annotations

from service.worker.trial_line import trial_line


def test_failed_trial_says_why() -> None:
    assert trial_line({"index": 4, "order": "loss", "low_layers": 9, "failure": "the runtime crashed", "met": False}) == (
        "trial 4: loss, 9 layers quantized: failed: the runtime crashed"
    )


def test_tiny_score_keeps_its_digits() -> None:
    lines = [trial_line({"index": 0, "order": "baseline", "low_layers": 0, "accuracy": score}) for score in (9.45e-8, 0.0)]
    assert [line.split(", ")[-1] for line in lines] == ["score 9.45e-08", "score 0.0000"]


def test_one_quantized_layer_is_one_layer() -> None:
    assert trial_line({"index": 4, "order": "loss", "low_layers": 1}).startswith("trial 4: loss, 1 layer quantized")
