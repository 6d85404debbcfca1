"""Scores in 0..1 that share an output with boxes in pixels, as detectors give them: each is judged by itself.

Evidence: along one axis some places hold values in 0..1 on all samples and the others do not, and these are at least
``measures.parts.APART`` times as large (root mean square); scores first if several axes do. Judged together, the scores have next to none
of the energy, and a cosine of the whole stays 1 whatever they say.
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.columns import column_parts
from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import Part
from calibration.accuracy.kinds.scores import score_parts
from calibration.accuracy.measures.parts import parts_of


def mixed_parts(evidence: Evidence) -> tuple[Part, ...]:
    """Return the parts of scores and of other columns; none where the output is of one piece."""
    parts = parts_of(evidence.values)
    if not parts:
        return ()
    axis = int(np.argmax(parts[0].shape)) + 1
    scores, others = (tuple(int(place) for place in np.flatnonzero(part.reshape(-1))) for part in parts)
    return (*column_parts(evidence, others, axis), *score_parts(evidence, scores, axis))
