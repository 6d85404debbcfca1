from __future__ import annotations

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace

import matplotlib
import pytest

from calibration.accuracy.metrics import Metric
from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.layer_facts import DependencyMap
from engine_builder.reporting.body.score_of_loss import ScoreOfLoss
from engine_builder.reporting.figures.drawing import BAD, INK, LETTER, MAX_LABEL, label_of, themed
from engine_builder.reporting.figures.engine_plots import FAILED as FAILED_MARK
from engine_builder.reporting.figures.engine_plots import OVER, WITHIN, front_plot, path_plot, prediction_plots
from engine_builder.reporting.figures.layer_plots import (
    MAX_BARS,
    ScoreScale,
    bars_left_out,
    dependency_plot,
    kernel_plot,
    kernel_totals,
    sensitivity_plot,
)
from tests.engine_builder.report_body import BODY, PREDICTION, failed, layer, prediction, trial

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
TRIALS, LAYERS, KERNELS_MS = BODY.trials, BODY.layers, PREDICTION.kernels_ms
FAILED = failed(3)
UNTIMED = replace(trial(3, 1, 0.8, 0.0), latency=None)


def texts(svg: str) -> list[str]:
    """Return the texts of a plot; one that is not well-formed XML fails."""
    root = ET.fromstring(svg.replace("<svg ", f"<svg {XLINK} ", 1))
    return [element.text or "" for element in root.iter("text")]


def front(trials: Sequence[Trial], metric: Metric = Metric.TOP1, chosen: str | None = "f2") -> str:
    return front_plot(trials, BODY.front, chosen, metric)


PLOTS: dict[str, Callable[[], str]] = {
    "front": lambda: front(TRIALS),
    "path": lambda: path_plot(TRIALS, "f2"),
    "predicted latency": lambda: prediction_plots(TRIALS, BODY.predictions)[0],
    "predicted loss": lambda: prediction_plots(TRIALS, BODY.predictions)[1],
    "sensitivity": lambda: sensitivity_plot(LAYERS),
    "kernel": lambda: kernel_plot(KERNELS_MS, LAYERS, Precision.FP32),
    "dependency": lambda: dependency_plot(BODY.dependency_map, BODY.dependencies),
}


@pytest.mark.parametrize("name", PLOTS)
def test_two_drawings_are_equal_byte_for_byte(name: str) -> None:
    assert PLOTS[name]() == PLOTS[name]()


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_holds_no_date_no_address_and_no_metadata(name: str) -> None:
    svg = PLOTS[name]()
    assert texts(svg)
    assert not any(word in svg for word in ("http", "<metadata", "<script", "<?xml", "<!"))


def test_errors_of_latencies_are_drawn_where_there_are_any() -> None:
    def wide(error: float) -> list[Trial]:
        return [replace(one, latency=replace(one.latency, ratio_error=error)) for one in TRIALS if one.latency is not None]

    for plot in (front, lambda trials: path_plot(trials, "f2")):
        none, narrow, broad = (plot(wide(error)) for error in (0.0, 0.01, 0.1))
        assert none == plot(list(TRIALS))
        assert len({none, narrow, broad}) == 3
        assert len(narrow) > len(none)


def test_drawing_leaves_the_users_settings_alone() -> None:
    def settings() -> dict[str, object]:
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}  # to ask for that one sets it

    before = settings()
    front(TRIALS)
    assert settings() == before


def test_drawing_imports_no_global_state() -> None:
    code = "import sys, engine_builder.reporting.page as p, tests.engine_builder.report_body as b; p.render(b.BODY)"
    assert subprocess.run([sys.executable, "-c", f"{code}; sys.exit('matplotlib.pyplot' in sys.modules)"], check=False).returncode == 0


def test_the_users_settings_do_not_change_a_plot() -> None:
    plain = front(TRIALS)
    with matplotlib.rc_context({"font.size": 30.0, "axes.grid": True, "svg.fonttype": "path"}):
        assert front(TRIALS) == plain


def test_a_stage_that_draws_nothing_does_not_pay_for_the_library() -> None:
    modules = "engine_builder.pipeline.stage_table, engine_builder.stages.trial, engine_builder.stages.verdict"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_front_shows_the_budget_the_chosen_engine_and_each_trial() -> None:
    shown = texts(front(TRIALS))
    assert {"budget: 0.8975", "chosen", "baseline", "0", "1", "2"} <= set(shown)


def test_a_kept_baseline_has_no_chosen_mark() -> None:
    assert "chosen" not in texts(front(TRIALS, chosen=None))
    assert "chosen" not in texts(path_plot(TRIALS, None))


def test_an_engine_that_lost_far_too_much_is_drawn_at_the_edge_with_its_score() -> None:
    hopeless = trial(7, 4, 0.6, -0.8)
    assert "7 (0.0975)" in texts(front([*TRIALS, hopeless]))


def test_trials_without_score_or_time_are_not_on_the_front() -> None:
    assert front([*TRIALS, FAILED, UNTIMED]) == front(TRIALS)
    assert front([FAILED]) == ""


def test_the_budget_of_an_error_is_above_the_errors_that_it_allows() -> None:
    one = trial(1, 1, 0.8, 0.0)
    assert one.on_all is not None
    errors = [replace(one, on_all=replace(one.on_all, score=0.003, excess=0.007))]
    assert "budget: 0.01" in texts(front(errors, Metric.NMSE))


def test_only_the_front_is_numbered_where_there_are_many_trials() -> None:
    many = [trial(index, 1, 0.5 + 0.01 * index, 0.0001) for index in range(3, 40)]
    shown = texts(front([*TRIALS, *many]))
    assert "2" in shown
    assert "33" not in shown


def test_a_failed_trial_is_on_the_path() -> None:
    assert {"failed", "3"} <= set(texts(path_plot([*TRIALS, FAILED], "f2")))


def test_the_path_names_an_order_where_it_takes_over() -> None:
    shown = texts(path_plot([*TRIALS, trial(3, 1, 0.8, 0.0), trial(4, 1, 0.8, 0.0, "refine")], "f2"))
    assert {"0 the baseline", "1 all layers quantized", "2 predicted frontier", "3", "4 frontier, predicted anew"} <= set(shown)


def test_a_search_of_failures_only_is_drawn() -> None:
    assert "failed" in texts(path_plot([FAILED], None))
    assert path_plot([], None) == ""


def test_predictions_without_measurements_are_left_out() -> None:
    assert prediction_plots([FAILED], [prediction(3, 0.1, 0.8)]) == ()
    assert prediction_plots(TRIALS, []) == ()


def test_a_search_without_a_time_model_shows_the_losses_only() -> None:
    (plot,) = prediction_plots(TRIALS, [prediction(1, 0.003)])
    assert "Loss of the outputs" in texts(plot)


def test_the_bars_of_a_large_model_are_limited_and_the_plot_says_so() -> None:
    layers = [layer(f"layer{index}", 0.1 / (index + 1)) for index in range(300)]
    shown = texts(sensitivity_plot(layers))
    assert f"The {MAX_BARS} most sensitive of 300 layers" in shown
    assert "layer39 · int8" in shown
    assert "layer40 · int8" not in shown
    assert bars_left_out(layers) == 260


def test_layers_that_were_not_probed_have_no_bar() -> None:
    assert not any("conv" in text for text in texts(sensitivity_plot([layer("conv", None), layer("gemm")])))
    assert sensitivity_plot([layer("conv", None)]) == ""


@pytest.mark.parametrize("loss", [0.0, -1e-9])
def test_a_layer_that_loses_nothing_is_drawn_on_the_logarithmic_axis(loss: float) -> None:
    assert "still · int8" in texts(sensitivity_plot([layer("still", loss), layer("loud", 0.1, hessian=0.1)]))
    assert "still · int8" in texts(sensitivity_plot([layer("still", loss)]))


def test_an_error_that_is_not_known_is_not_drawn() -> None:
    unbounded, unknown = (sensitivity_plot([replace(layer("conv"), loss_error=error)]) for error in (float("inf"), None))
    assert unbounded == unknown != sensitivity_plot([layer("conv")])


def test_kernels_that_took_no_time_are_left_out() -> None:
    shown = texts(kernel_plot({"conv": {"baseline": 1.0, "int8": 0.5}, "gemm": {"baseline": 0.0, "int8": 0.0}}, LAYERS, Precision.FP32))
    assert "conv · int8" in shown
    assert not any("gemm" in text for text in shown)
    assert kernel_plot({}, LAYERS, Precision.FP32) == ""


def test_the_kernels_of_the_chosen_engine_are_a_mix_of_both() -> None:
    assert kernel_totals(KERNELS_MS, LAYERS, Precision.FP32) == pytest.approx((1.4, 0.9))  # gemm stays


def test_a_map_of_one_layer_or_of_no_dependency_is_harmless() -> None:
    assert dependency_plot(DependencyMap(("conv",), ((),)), []) == ""
    assert {"conv", "gemm"} <= set(texts(dependency_plot(DependencyMap(("conv", "gemm"), ((), (0.0,))), [])))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a & b ]]>", "$\\frac{$", "层/卷积", "--><g>", "q\"uote'"])
def test_a_layers_name_stays_text(name: str) -> None:
    plots = [
        sensitivity_plot([layer(name)]),
        kernel_plot({name: {"baseline": 1.0, "int8": 0.5}}, [layer(name)], Precision.FP32),
        dependency_plot(DependencyMap((name, "gemm"), ((), (0.1,))), []),
        path_plot([trial(0, 1, 0.9, 0.1, name)], None),
    ]
    for svg in plots:
        assert any(name in text for text in texts(svg))
        assert "<script" not in svg


def test_control_characters_in_a_name_are_not_drawn() -> None:
    assert label_of("a\x00b\n\x1b\u202ec") == "a\ufffdb\ufffd\ufffd\ufffdc"
    assert texts(sensitivity_plot([layer("a\x00\ud800")]))


def test_a_long_name_keeps_its_end() -> None:
    label = label_of("/base/encoder/layer.11/attention/output/dense/MatMul")
    assert len(label) == MAX_LABEL
    assert label.endswith("ntion/output/dense/MatMul")


def test_marks_inside_and_over_the_budget_differ_in_shape_and_not_in_hue_alone() -> None:
    assert len({style for style, _ in (WITHIN, OVER, FAILED_MARK)}) == 3


def test_numbers_of_trials_that_lie_on_each_other_do_not_cover_each_other() -> None:
    crowd = [trial(index, 1, 0.8 + 1e-4 * index, 0.001) for index in range(10, 20)]
    root = ET.fromstring(front(crowd, chosen=None).replace("<svg ", f"<svg {XLINK} ", 1))
    places = []
    for element in root.iter("text"):
        if (element.text or "") in {str(one.index) for one in crowd}:
            found = re.search(r"translate\(([-0-9.]+) ([-0-9.]+)\)", element.get("transform", ""))
            x, y = (found[1], found[2]) if found else (element.get("x", "nan"), element.get("y", "nan"))
            places.append((float(x), float(y)))
    assert len(places) == len(crowd)
    wide, high = 2 * 7.0 * LETTER, 7.0
    assert not any(abs(a[0] - b[0]) < wide - 0.01 and abs(a[1] - b[1]) < high - 0.01 for a, b in itertools.combinations(places, 2))


def test_a_plot_takes_the_colours_of_its_page() -> None:
    plain = front(TRIALS)
    assert INK in plain
    assert INK not in themed(plain)
    assert "var(--ink)" in themed(plain)


LAW = ScoreOfLoss(0.05, 0.01, 0.75, 0.05, 0.2, 5)


def test_sensitivities_are_told_in_the_budgets_unit_where_it_is_known() -> None:
    shown = texts(sensitivity_plot(LAYERS, ScoreScale(LAW, Metric.TOP1, 0.01)))
    assert "drop of top1 in points, about (factor 1.2 either way)" in shown
    assert {"the whole budget, about", "1"} <= set(shown)  # 1 point is lost at the law's own loss
    assert not any("top1" in text for text in texts(sensitivity_plot(LAYERS)))
    assert "rise of nmse, about (factor 1.2 either way)" in texts(sensitivity_plot(LAYERS, ScoreScale(LAW, Metric.NMSE, 0.01)))


def test_a_budget_beyond_all_losses_is_drawn_inside_the_axes() -> None:
    dashed = [sensitivity_plot(LAYERS, ScoreScale(LAW, Metric.TOP1, budget)).count("stroke-dasharray") for budget in (0.01, 0.03)]
    assert dashed == [2, 2]  # the line, and its sample below the axes


def test_a_budget_far_beyond_all_losses_is_not_drawn() -> None:
    assert "the whole budget, about" not in texts(sensitivity_plot(LAYERS, ScoreScale(LAW, Metric.TOP1, 0.99)))
    assert "the whole budget, about" not in texts(sensitivity_plot(LAYERS, ScoreScale(LAW, Metric.TOP1, 0.0)))


def test_an_engine_that_is_likely_inside_is_drawn_so_though_its_samples_lost_more() -> None:
    one = trial(1, 2, 0.7, -0.001)
    assert one.on_all is not None
    likely = replace(one, on_all=replace(one.on_all, probability_over=0.3))
    over, inside, told = (
        front([TRIALS[0], other]).count(BAD) for other in (one, replace(one, on_all=replace(one.on_all, excess=0.001)), likely)
    )
    assert told == inside < over
    assert path_plot([TRIALS[0], likely], None).count(BAD) < path_plot([TRIALS[0], one], None).count(BAD)


def test_the_title_of_many_kernels_is_no_wider_than_their_axes() -> None:
    names = [f"layer{index}" for index in range(MAX_BARS + 1)]
    shown = texts(kernel_plot(dict.fromkeys(names, KERNELS_MS["conv"]), [layer(name) for name in names], Precision.FP32))
    assert f"The {MAX_BARS} slowest of {MAX_BARS + 1} layers" in shown
