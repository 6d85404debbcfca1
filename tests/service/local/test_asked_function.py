"""A metric that is a function, asked from another thread as a stage would from its process."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from calibration.accuracy.own_metrics.asked_metric import AskedMetric, asked_metric_text
from calibration.errors import InvalidMetricError
from service.local.asked_function import AskedFunction, MetricFunction
from tests.model_text import Array

OUTPUTS = {"y": np.linspace(0, 1, 20, dtype=np.float32).reshape(10, 2)}
CLASSES = np.arange(10) % 2


def asked(function: MetricFunction, folder: Path, labels: Array | None = CLASSES) -> Array | Exception:
    """Return what a stage gets for a question, or what it raises."""
    found: list[Array | Exception] = []
    with AskedFunction(function) as metric:
        (folder / "metric.json").write_text(asked_metric_text(metric.file))

        def stage() -> None:
            try:
                found.append(AskedMetric(folder / "metric.json").score({"y": OUTPUTS["y"] / 2}, OUTPUTS, labels))
            except InvalidMetricError as error:
                found.append(error)

        thread = threading.Thread(target=stage)
        thread.start()
        listener = metric.listener
        with selectors.DefaultSelector() as selector:
            selector.register(listener.socket, selectors.EVENT_READ)
            assert selector.select(10)
        listener.answer()
        thread.join(10)
    assert not Path(metric.file.socket).parent.exists()
    return found[0]


def test_the_function_gets_outputs_and_labels(tmp_path: Path) -> None:
    here = threading.get_ident()

    def metric(outputs: Mapping[str, Array], labels: Array) -> Array:
        assert threading.get_ident() == here
        np.testing.assert_array_equal(labels, CLASSES)
        scores: Array = outputs["y"][:, 0]
        return scores

    np.testing.assert_array_equal(asked(metric, tmp_path), OUTPUTS["y"][:, 0] / 2)


def test_a_third_argument_is_the_reference(tmp_path: Path) -> None:
    found = asked(lambda outputs, labels, reference: [[float(value)] for value in reference["y"][:, 1]], tmp_path, None)
    np.testing.assert_allclose(np.asarray(found), OUTPUTS["y"][:, 1])


def test_what_the_function_raises_is_told_and_kept(tmp_path: Path) -> None:
    def metric(outputs: object, labels: object) -> object:
        raise KeyError("logits")

    error = asked(metric, tmp_path)
    assert isinstance(error, InvalidMetricError)
    assert "raised KeyError: 'logits'" in error.detail


@pytest.mark.parametrize(
    ("returned", "words"), [(1.0, "shape () for 10 samples"), (np.ones((10, 2)), "shape (10, 2)"), ("text", "returned str"), (None, "")]
)
def test_what_is_no_score_for_each_sample_is_refused(returned: object, words: str, tmp_path: Path) -> None:
    error = asked(lambda outputs, labels: returned, tmp_path)
    assert isinstance(error, InvalidMetricError)
    assert words in error.detail


def test_a_function_of_other_arguments_is_refused_at_once() -> None:
    with pytest.raises(InvalidMetricError, match="the arguments \\(x\\) found"):
        AskedFunction(lambda x: x)


def test_a_long_folder_for_temporary_files_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert isinstance(asked(lambda outputs, labels: np.ones(len(labels)), tmp_path), np.ndarray)
