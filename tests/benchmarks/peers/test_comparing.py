from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from benchmarks.kinds.case import Case, Quality
from benchmarks.kinds.network_builder import Network
from benchmarks.peers.comparing import FLOAT, Comparison, Row, job_config, measured, ratios
from benchmarks.peers.networks import NETWORKS
from benchmarks.peers.page import behind, page, plot
from benchmarks.peers.quantizers import QUANTIZERS, dynamic

FLOAT_ROW = Row(FLOAT, 0.0, quality=Quality(1.0, 0.8), ratio=1.0)
PEER = Row("quantize_dynamic", 1.0, quality=Quality(0.995, 0.79), ratio=0.4, ratio_error=0.01)
OURS = Row("this project, 99%", 9.0, 0.99, quality=Quality(0.992, 0.79), ratio=0.5, ratio_error=0.01)
ENVIRONMENT = dict.fromkeys(
    ("processor", "integer_instructions", "processors_used", "load_average", "system", "python", "onnx", "onnxruntime", "numpy"), "?"
)


@pytest.mark.parametrize(
    ("peer", "is_ahead"),
    [
        (PEER, True),
        (replace(PEER, ratio=0.48), False),  # within two standard errors
        (replace(PEER, quality=Quality(0.98, 0.70)), False),  # outside the budget
        (replace(PEER, quality=Quality(0.98, 0.80)), True),  # as right as the float model, though by other answers
        (Row("quantize_dynamic", 1.0, message="no"), False),
    ],
)
def test_a_peer_is_ahead_where_it_keeps_the_budget_and_is_faster_beyond_the_error(peer: Row, is_ahead: bool) -> None:
    one = Comparison("net", "top-1", (FLOAT_ROW, peer, OURS), has_labels=True)
    assert bool(one.ahead_of(OURS)) == is_ahead
    assert ("net, this project, 99%" in behind([one])) == is_ahead


def test_labels_that_no_job_was_given_keep_no_budget() -> None:
    by_labels = replace(PEER, quality=Quality(0.98, 0.80))
    assert [Comparison("net", "top-1", (FLOAT_ROW,), has_labels=has).keeps(by_labels, 0.99) for has in (True, False)] == [True, False]


def test_a_job_without_an_engine_is_behind_every_engine_that_is_faster_than_float() -> None:
    failed = Row("this project, 99%", 9.0, 0.99, message="exit 2")
    assert Comparison("net", "top-1", (FLOAT_ROW, PEER, failed)).ahead_of(failed) == (PEER,)


def test_page_and_plot_show_every_tool_of_every_network() -> None:
    one = Comparison("net", "top-1", (FLOAT_ROW, PEER, OURS, Row("broken", 0.1, message="RuntimeError: no")))
    text = page([one, one], ENVIRONMENT)
    assert text.count("| net | quantize_dynamic | 0.400 ± 0.010 |") == 2
    assert "none: RuntimeError: no" in text
    drawn = plot([one, one])
    assert drawn.startswith("<svg xmlns=")
    assert drawn.count("net</text>") == 2


@pytest.fixture(scope="module")
def case() -> Case:
    return NETWORKS["embedding-linear"]()


def test_a_job_has_the_networks_own_keys_its_batch_and_the_budget() -> None:
    made = job_config(NETWORKS["mobilenetv2-1"](), 0.999)
    assert made == {"batch_size": 1, "accuracy": {"metric": "top1", "min_relative": 0.999}}


@pytest.mark.long
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantizer_writes_a_network_that_plain_onnxruntime_runs(name: str, case: Case, tmp_path: Path) -> None:

    folder = tmp_path
    onnx.save(case.model, folder / "model.onnx")
    QUANTIZERS[name](folder / "model.onnx", folder / "made.onnx", case.data.calibration, case.batch)
    few = replace(case, data=replace(case.data, unseen={key: array[:64] for key, array in case.data.unseen.items()}))
    network = Network((folder / "made.onnx").read_bytes())
    assert len(next(iter(network.run(few.data.unseen).values()))) == 64


@pytest.mark.long
def test_an_engine_that_does_not_load_has_a_message_and_the_others_are_measured(case: Case, tmp_path: Path) -> None:

    folder = tmp_path
    onnx.save(case.model, folder / "model.onnx")
    dynamic(folder / "model.onnx", folder / "dynamic.onnx", case.data.calibration, case.batch)
    (folder / "broken.onnx").write_bytes(b"no model")
    made = {name: (folder / f"{file}.onnx", Row(name, 0.0)) for name, file in ((FLOAT, "model"), ("one", "dynamic"), ("two", "broken"))}
    rows = {row.tool: row for row in measured(case, made)}
    quality = rows[FLOAT].quality
    assert quality is not None
    assert quality.kept == 1.0
    assert rows["one"].ratio is not None
    assert rows["two"].quality is None
    assert rows["two"].message


def test_the_float_models_ratio_is_one(case: Case) -> None:
    networks = {FLOAT: [Network(case.model.SerializeToString()) for _ in range(2)]}
    feeds = {key: array[: case.batch] for key, array in case.data.calibration.items()}
    assert ratios(networks, feeds) == {FLOAT: (1.0, 0.0)}
