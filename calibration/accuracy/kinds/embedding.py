r"""Embeddings: vectors of which the direction is compared.

Evidence: vectors of norm 1, or a name; a linear layer may end one as well as classes. Judged by the cosine of each sample, and by the
squared error in units of the spread over the data, 1 - ||d||^2 / (2 E||r - mean||^2), which is the cosine about the mean: where all vectors
have a large part in common, the cosine itself sees little else. Probes take ||d||^2 / ||r||^2.
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import Array, Booleans, Doubles, Part
from calibration.accuracy.kinds.values import spread_scores, without_uncounted
from calibration.accuracy.measures.values import cosine
from calibration.accuracy.metrics import OutputKind

NAMES = ("emb", "feat", "descriptor", "vector", "hidden", "encod", "repr", "latent", "pooler", "pooled")


def embedding_parts(evidence: Evidence) -> tuple[Part, ...]:
    """Return the one part of an embedding."""
    return (Part(OutputKind.EMBEDDING),)


def embedding_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return the lower of the cosine and of that about the mean of each sample."""
    reference, output = without_uncounted(counted, reference, output)
    whole = Part(OutputKind.EMBEDDING)
    return np.asarray(np.minimum(cosine(reference, output), spread_scores(whole, reference, output, None)), dtype=np.float64)
