from __future__ import annotations

from benchmarks.order_budgets import BUDGETS, BudgetResult
from benchmarks.order_measurements import Kind
from benchmarks.orders_page import CaseResult, OrderResult, Predicted, interval, page
from benchmarks.statistics import Difference
from tests.benchmarks.page_tables import table

SIZES = {"draws": 2, "samples": 64, "held_out": 100}
WHERE = {
    "processor": "p",
    "integer_instructions": [],
    "processors_used": 1,
    "load_average": 0.0,
    "system": "s",
    "python": "3",
    "onnx": "1",
    "onnxruntime": "1",
    "numpy": "2",
}


def case(kind: Kind, engine: str | None, predicted: tuple[float, ...]) -> CaseResult:
    difference = Difference(-0.2, -0.3, -0.1, 2)
    return CaseResult(
        "net",
        kind,
        4,
        (OrderResult("loss", (-3.0, -3.2), difference, 1000, 1.5),),
        (("loss", "hessian", difference),),
        tuple(BudgetResult("loss", budget, (3, 4), predicted, engine) for budget in BUDGETS),
        (Predicted(0.011, 0.01, 0.001, within=True), Predicted(0.03, 0.01, 0.001, within=False)),
        9,
        1.0,
    )


def test_the_page_tells_quality_differences_budgets_and_predictions() -> None:
    found = page(
        [case(Kind.INT8, "1", (0.5, 0.7))], {"net": {"1": (0.61, 0.02)}}, SIZES, WHERE, {"wall_seconds": 60.0, "cpu_seconds": 30.0}
    )
    of = {"network": "net", "precision": "int8", "order": "loss"}
    against = "-0.200 [-0.300, -0.100]"
    assert table(found, "quality") == [{**of, "quality": "-3.100", "minus random": against, "forwards": "1,000", "CPU s": "1.5"}]
    assert table(found, "the first is") == [{**of, "minus": "hessian", "difference": against, "the first is": "better"}]
    assert table(found, "99.00%") == [{**of, **dict.fromkeys(("99.00%", "99.90%", "99.99%"), "3.5 (3 to 4); 0.600; 0.610 ± 0.020")}]
    (row,) = table(found, "predictions")
    assert (row["predictions"], row["within"], row["bar over said, median"], row["off"]) == ("2", "50%", "0.10", "2.05")


def test_a_network_without_time_tells_its_layer_precisions_alone() -> None:
    found = page([case(Kind.INT4, None, ())], {"net": {}}, SIZES, WHERE, {"wall_seconds": 60.0, "cpu_seconds": 30.0})
    (row,) = table(found, "99.00%")
    assert {row[budget] for budget in ("99.00%", "99.90%", "99.99%")} == {"3.5 (3 to 4)"}


def test_an_interval_is_one_cell() -> None:
    assert interval(Difference(0.1, -0.1, 0.3, 5)) == "+0.100 [-0.100, +0.300]"
