from __future__ import annotations

from dataclasses import replace

from calibration.accuracy.metrics import Metric
from engine_builder.reporting.body.report_body import ColumnChange
from engine_builder.reporting.body.score_of_loss import DropEstimate
from engine_builder.reporting.tables import (
    MAX_PAIRS,
    achieved_table,
    columns_table,
    dependencies_table,
    engines_table,
    layers_table,
    score,
    table,
    trials_table,
)
from engine_builder.stage_io.engines import FinalLatency
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.report_body import BODY, RESULT, failed, trial
from tests.engine_builder.reporting.page_reader import Page, rows_of


def test_the_engines_table_puts_both_side_by_side() -> None:
    baseline, chosen = rows_of(engines_table(RESULT))
    assert baseline == {
        "engine": "baseline",
        "median latency": "10.000 ms ± 0.050",
        "95th percentile": "11.000 ms",
        "calls": "100",
        "accuracy": "0.9000",
        "size": "4.00 MB",
        "layers per precision": "4 fp32",
    }
    assert (chosen["engine"], chosen["layers per precision"]) == ("chosen", "3 fp32, 1 int8")


def test_the_layers_table_shades_those_that_are_quantized() -> None:
    text = layers_table(BODY.layers, Metric.TOP1)
    conv, gemm = rows_of(text)
    assert conv == {
        "layer": "conv",
        "operator": "Conv",
        "precision": "int8",
        "loss alone": " 0.01 ± 0.002",
        "Hessian estimate": "0.02 ± 0.002",
        "MACs": "1,234,567",
    }
    assert gemm["precision"] == "fp32"
    assert [row[0] for row in Page(f"<h1></h1>{text}").low_rows] == ["conv"]


def test_the_trials_table_marks_the_front_and_who_kept_the_budget() -> None:
    rows = rows_of(trials_table((*BODY.trials, trial(3, 1, 0.9, 0.0), failed(4)), BODY.front))
    assert rows[2] == {
        "trial": "2 (front)",
        "proposed by": "predicted frontier",
        "quantized layers": "1",
        "accuracy": "0.8985",
        "median ms": "8.000",
        "of baseline": "0.800",
        "in budget": "yes",
    }
    assert [row["in budget"] for row in rows] == ["yes", "no", "yes", "yes", "no such kernel"]
    assert [row["trial"] for row in rows[3:]] == ["3", "4"]
    assert rows[4]["accuracy"] == rows[4]["median ms"] == rows[4]["of baseline"] == "-"


def test_the_trials_table_has_the_error_of_each_ratio_that_was_measured() -> None:
    one = trial(1, 1, 0.8, 0.0)
    assert one.latency is not None
    measured = replace(one, latency=replace(one.latency, ratio_error=0.0042))
    assert [row["of baseline"] for row in rows_of(trials_table((one, measured), ()))] == ["0.800", "0.800 ± 0.004"]


def test_the_trials_table_tells_engines_with_and_without_corrections_apart() -> None:
    one = trial(1, 1, 0.9, 0.0)
    rows = rows_of(trials_table((replace(one, made_with=FileRef("biases.json", "3" * 64)), one), ()))
    assert [row["proposed by"] for row in rows] == ["predicted frontier, with corrected biases alone", "predicted frontier"]


def test_the_strongest_dependencies_have_their_error() -> None:
    rows = rows_of(dependencies_table(BODY.dependencies))
    assert rows == [{"first layer": "conv", "second layer": "gemm", "extra loss": "0.1 ± 0.01"}]


def test_what_layers_got_is_listed_with_the_differences_first() -> None:
    assert BODY.reached is not None
    folded, got = rows_of(achieved_table(BODY.reached))
    assert (folded["layer"], folded["asked for"], folded["got"], folded["kernel"]) == ("gemm", "int8", "-", "-")
    assert folded["why they differ"].startswith("no kernel names it")
    assert tuple(got.values()) == ("conv", "int8", "int8", "integer kernel", "-")


def test_tactics_have_a_column_where_the_builder_says_any() -> None:
    assert BODY.reached is not None
    told = [replace(row, tactic="sm90_xmma") if row.kernel else row for row in BODY.reached]
    assert [row["tactic"] for row in rows_of(achieved_table(told))] == ["-", "sm90_xmma"]
    assert "tactic" not in rows_of(achieved_table(BODY.reached))[0]


def test_a_latency_that_is_predicted_has_no_spread() -> None:
    predicted = replace(RESULT, baseline=replace(RESULT.baseline, latency_ms=FinalLatency(10.0, None, None, 0)))
    row = rows_of(engines_table(predicted))[0]
    assert (row["median latency"], row["95th percentile"], row["calls"]) == ("10.000 ms (predicted)", "-", "0")


def test_only_the_strongest_pairs_are_listed() -> None:
    assert len(rows_of(dependencies_table(BODY.dependencies * (MAX_PAIRS + 1)))) == MAX_PAIRS


def test_columns_of_numbers_alone_are_set_from_the_right() -> None:
    text = table(
        ["name", "time", "share", "either"], [["1 conv", "0.677 ± 0.001 ms", "1.2%", "1.25x"], ["gemm", "-", "-", "nothing faster"]]
    )
    assert [name for name in ("name", "time", "share", "either") if f"<th class=n>{name}</th>" in text] == ["time", "share"]
    assert "<td>1 conv</td><td class=n>0.677 ± 0.001 ms</td>" in text


def test_a_row_that_is_picked_stands_out() -> None:
    assert table(["a"], [["x"], ["y"]], picked={1}).count("<tr class=picked><td>y</td></tr>") == 1


def test_the_layers_table_tells_what_a_layer_costs_in_the_metric_where_it_is_known() -> None:
    known = replace(BODY.layers[0], drop=DropEstimate(0.0123, 0.009, 0.0151))
    first, second = rows_of(layers_table((known, BODY.layers[1]), Metric.TOP1))
    assert [row["drop of top1 alone, about"] for row in (first, second)] == ["1.2 (0.90 to 1.5) points", "-"]
    assert "drop of top1 alone, about" not in rows_of(layers_table(BODY.layers, Metric.TOP1))[0]


def test_the_column_whose_error_grew_most_comes_first() -> None:
    rows = rows_of(columns_table((ColumnChange(0.1, 0.11, 0.5), ColumnChange(0.1, 0.3, 2.0), ColumnChange(0.1, None, None))))
    assert [row["column"] for row in rows] == ["2", "1", "0"]
    assert rows[0]["error of the engine"] == "not finite"
    assert rows[1] == {"column": "1", "error of the float model": "0.1", "error of the engine": "0.3", "largest change": "2"}
    assert columns_table(()) == ""


def test_a_score_in_decibels_has_its_unit_and_an_end() -> None:
    assert [score(value, Metric.PSNR) for value in (54.6282, 150.0)] == ["54.63 dB", "identical"]
    assert [score(value, Metric.TOP1) for value in (0.9, 0.0)] == ["0.9000", "0.0000"]
