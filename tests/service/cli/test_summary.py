from __future__ import annotations

import pytest

from service.cli.summary import summary_lines


def result(outcome: str, answer: str, selection: str) -> dict[str, object]:
    """Return the example of the HTTP contract."""
    return {
        "outcome": outcome,
        "latency_source": "measured",
        "baseline": {"latency_ms": {"median": 2.0, "p95": 2.5}, "accuracy": 0.9, "size_bytes": 4_000_000, "precisions": {"fp32": 22}},
        "chosen": {
            "latency_ms": {"median": 1.0, "p95": 1.25},
            "accuracy": 0.9,
            "size_bytes": 1_000_000,
            "precisions": {"fp32": 2, "int8": 20},
        },
        "speedup": 2.0,
        "verdict": {
            "answer": answer,
            "metric": "top1",
            "drop": 0.0001,
            "interval": [-0.0002, 0.0004],
            "confidence": 0.95,
            "n": 4000,
            "probability_over_budget": 0.07,
            "selection": selection,
        },
    }


def test_improvement_is_told_with_its_figures() -> None:
    lines = summary_lines(result("improved", "met", "held_out"))
    assert lines == (
        "A faster engine is inside the budget with probability 0.93.",
        "  latency   2.000 ms (p95 2.500) -> 1.000 ms (p95 1.250), 2.00 times as fast",
        "  size      4.00 MB -> 1.00 MB",
        "  layers    2 fp32, 20 int8",
        "  accuracy  budget met: top1, drop +0.00010, interval [-0.00020, +0.00040] (each end at 95%), on 4000 held-out samples",
    )


@pytest.mark.parametrize(("spread", "told"), [(0.031, "0.03"), (0.0027, "0.003"), (0.00001, "0.001")])
def test_a_speedup_is_told_with_its_spread(spread: float, told: str) -> None:
    lines = summary_lines({**result("improved", "met", "held_out"), "speedup_spread": spread})
    assert lines[1] == f"  latency   2.000 ms (p95 2.500) -> 1.000 ms (p95 1.250), 2.00 ± {told} times as fast"


def test_operators_beyond_the_standard_ones_are_told() -> None:
    needs = "  needs     the operators of com.microsoft, as onnxruntime has them"
    engine = {"name": "engine.onnx", "opsets": {"ai.onnx": 17, "com.microsoft": 1}}
    assert needs in summary_lines({**result("improved", "met", "held_out"), "engine": engine})
    assert needs not in summary_lines({**result("baseline_kept", "met", "held_out"), "engine": engine})
    assert needs not in summary_lines({**result("improved", "met", "held_out"), "engine": {**engine, "opsets": {"ai.onnx": 17}}})


def test_warnings_come_last() -> None:
    lines = summary_lines({**result("improved", "met", "held_out"), "warnings": ["3 samples are copies: remove them"]})
    assert lines[-1] == "  warning   3 samples are copies: remove them"


def test_what_other_budgets_give_is_told_with_the_files() -> None:
    engines = [
        {"speedup": 2.5, "in_words": "98.8%", "verdict": {"probability_over_budget": 0.31}, "file": {"name": "front/aa/engine.onnx"}},
        {"speedup": 1.5, "in_words": "99.9%", "verdict": {}, "file": None, "no_file": "it was not built once more"},
    ]
    offers = {"in_words": "at 99.9%: 1.50x; nothing faster is inside 99.99% (asked for)", "engines": engines}
    assert summary_lines({**result("baseline_kept", "met", "held_out"), "offers": offers})[-3:] == (
        "  offers    at 99.9%: 1.50x; nothing faster is inside 99.99% (asked for)",
        "            2.50x inside 98.8% (probability of being over it 31.0%): front/aa/engine.onnx",
        "            1.50x inside 99.9%: it was not built once more",
    )


@pytest.mark.parametrize(
    ("outcome", "is_reached", "headline"),
    [
        ("improved", True, "The most accurate engine that is at least 1.5x as fast as the baseline."),
        ("baseline_kept", False, "The baseline is kept: no engine is at least 1.5x as fast as the baseline."),
    ],
)
def test_an_objective_has_headlines_of_its_own(outcome: str, is_reached: bool, headline: str) -> None:
    objective = {"in_words": "is at least 1.5x as fast as the baseline", "is_reached": is_reached}
    assert summary_lines({**result(outcome, "met", "held_out"), "objective": objective})[0] == headline


def test_a_baseline_that_is_fast_enough_itself_is_said_to_be() -> None:
    objective = {"in_words": "takes at most 2 ms a call", "is_reached": True}
    lines = summary_lines({**result("baseline_kept", "met", "held_out"), "objective": objective})
    assert lines[0] == "The baseline is kept: it takes at most 2 ms a call itself."


def test_kept_baseline_is_said_to_be_kept() -> None:
    assert summary_lines(result("baseline_kept", "met", "held_out"))[0].startswith("The baseline is kept")


@pytest.mark.parametrize(
    ("answer", "selection", "expected"),
    [
        ("met_on_sample", "held_out", "likely met (too few samples to be certain)"),
        ("met", "shared", "the search used them too"),
        ("not_met", "held_out", "budget not met"),
    ],
)
def test_uncertainty_is_not_hidden(answer: str, selection: str, expected: str) -> None:
    assert expected in summary_lines(result("improved", answer, selection))[-1]


def test_latency_that_was_not_measured_is_not_invented() -> None:
    predicted = {**result("improved", "met", "held_out"), "speedup": None}
    predicted["chosen"] = {"size_bytes": 1}
    assert summary_lines(predicted)[1] == "  latency   2.000 ms (p95 2.500) -> not measured"


def test_a_kept_baseline_comes_with_the_reason() -> None:
    kept = {**result("baseline_kept", "met", "held_out"), "reason": "None was faster."}
    assert summary_lines(kept)[1] == "  reason    None was faster."
    assert not any("reason" in line for line in summary_lines({**kept, "outcome": "improved"}))


def test_a_fallback_baseline_is_said_to_be_one() -> None:
    found = result("improved", "met", "held_out")
    assert not any("fallback" in line for line in summary_lines(found))
    found["baseline"] = {"latency_ms": {"median": 2.0}, "precisions": {"fp32": 1}, "repaired": "fp16 misses the budget"}
    assert "  baseline  fallback: fp16 misses the budget" in summary_lines(found)


def test_a_plan_that_was_asked_for_without_weights_is_told_of() -> None:
    found = result("improved", "met", "held_out")
    assert "  plan      It has none." in summary_lines({**found, "stripped": {"in_words": "It has none."}})
    assert not any(line.startswith("  plan") for line in summary_lines(found))


def test_tiny_differences_keep_their_digits() -> None:
    found = result("improved", "met", "held_out")
    found["verdict"] = {"answer": "met", "metric": "nmse", "drop": 9.45e-08, "interval": [0.0, -1.5e-07], "n": 64, "selection": "held_out"}
    assert summary_lines(found)[-1] == (
        "  accuracy  budget met: nmse, rise +9.45e-08, interval [+0.00000, -1.50e-07], on 64 held-out samples"
    )


def test_psnr_is_told_in_decibels_and_an_error_rises() -> None:
    found = result("improved", "met", "held_out")
    verdict = found["verdict"]
    assert isinstance(verdict, dict)
    psnr = {**verdict, "metric": "psnr", "drop": 102.5, "interval": [102.0, 103.0]}
    assert "psnr, 47.50 dB, interval [47.00 dB, 48.00 dB]" in summary_lines({**found, "verdict": psnr})[-1]
    assert "nmse, rise +0.00010" in summary_lines({**found, "verdict": {**verdict, "metric": "nmse"}})[-1]


def test_of_the_users_own_model_nothing_is_estimated() -> None:
    kept = result("baseline_kept", "met", "held_out")
    kept["verdict"] = {"answer": "met", "method": "same_engine"}
    assert summary_lines(kept)[-1] == "  accuracy  budget met: the engine is the model that was given"


def test_where_an_engine_of_integers_is_exact_is_said() -> None:
    engine = {"name": "engine.onnx", "exact_on": "any x86-64 or ARM64 processor"}
    lines = summary_lines({**result("improved", "met", "held_out"), "engine": engine})
    assert "  exact on  any x86-64 or ARM64 processor" in lines
    kept = summary_lines({**result("baseline_kept", "met", "held_out"), "engine": {**engine, "exact_on": None}})
    assert not any("exact on" in line for line in kept)


def test_a_job_for_several_types_of_gpu_is_told_type_by_type() -> None:
    engine = {"name": "L4/engine.plan"}
    engines = {
        "L4": {"job": "a", "state": "succeeded", "outcome": "improved", "speedup": 1.5, "engine": engine, "error": None},
        "RTX 4090": {"job": "b", "state": "failed", "engine": None, "error": {"detail": "it did not build"}},
    }
    assert summary_lines({"outcome": "improved", "engines": engines}) == (
        "An engine for each of 2 types of GPU:",
        "  L4: improved, 1.50 times as fast; L4/engine.plan, job a",
        "  RTX 4090: failed: it did not build",
    )
