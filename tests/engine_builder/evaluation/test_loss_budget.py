from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.sensitivity.task_losses import losses
from engine_builder.evaluation.loss_budget import allowed_loss

LOGITS, VALUES = [OutputKind.LOGITS], [OutputKind.VALUES]
RELATIVE = Budget(min_relative=0.999)


def test_a_budget_of_classes_allows_the_loss_that_costs_it_where_the_float_model_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    z = rng.uniform(-8, 8, 400_000)  # log-odds of two classes, spread evenly
    moved = z + rng.normal(0, 0.4, len(z))
    right = 1 / (1 + np.exp(-np.abs(z)))  # of float's choice; the expected labels, so that no labels need to be drawn
    drop = float(np.mean(np.where((z > 0) == (moved > 0), 0.0, 2 * right - 1)))
    logits, shifted = (np.stack([np.zeros_like(x), x], axis=1) for x in (z, moved))
    loss = float(np.mean(losses(LOGITS, [logits], [shifted])))
    assert allowed_loss(Budget(min_relative=1 - drop), Metric.TOP1, LOGITS) == pytest.approx(loss, rel=0.05)


def test_a_budget_of_cosine_allows_the_loss_that_costs_it() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 400))
    moved = z + rng.normal(0, 0.05, z.shape)
    cosine = np.sum(z * moved, axis=1) / np.linalg.norm(z, axis=1) / np.linalg.norm(moved, axis=1)
    loss = float(np.mean(losses(VALUES, [z], [moved])))
    assert allowed_loss(Budget(min_relative=float(cosine.mean())), Metric.COSINE, VALUES) == pytest.approx(loss, rel=0.02)


def test_a_budget_of_squared_error_is_the_loss() -> None:
    assert allowed_loss(Budget(max_nmse=0.02), Metric.NMSE, VALUES) == 0.02
    assert allowed_loss(Budget(max_kl=0.02), Metric.KL, LOGITS) == 0.02


@pytest.mark.parametrize(
    ("budget", "metric", "kinds"),
    [
        (RELATIVE, Metric.CUSTOM, LOGITS),
        (Budget(min_psnr=40.0), Metric.PSNR, VALUES),
        (RELATIVE, Metric.COSINE, LOGITS),
        (Budget(max_nmse=0.02), Metric.NMSE, LOGITS),
        (RELATIVE, Metric.AGREEMENT, [OutputKind.LOGITS, OutputKind.VALUES]),
    ],
)
def test_a_metric_that_tells_nothing_of_the_loss_allows_none_that_is_known(budget: Budget, metric: Metric, kinds: list[OutputKind]) -> None:
    assert allowed_loss(budget, metric, kinds) is None
