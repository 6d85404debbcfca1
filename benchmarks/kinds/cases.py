"""The table of networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.kinds.case import Case
from benchmarks.kinds.detectors import ssd_form, yolo_form
from benchmarks.kinds.embeddings import linear, unit_length
from benchmarks.kinds.recognisers import samples_first, time_first
from benchmarks.kinds.regressor import regressor
from benchmarks.kinds.scores import classifier, several_labels
from benchmarks.kinds.segmenter import segmenter
from benchmarks.kinds.voice import sequences, single_steps

CASES: Mapping[str, Callable[[], Case]] = {
    "detector-yolo": yolo_form,
    "detector-ssd": ssd_form,
    "segmenter": segmenter,
    "ctc-time-first": time_first,
    "ctc-samples-first": samples_first,
    "embedding-linear": linear,
    "embedding-unit": unit_length,
    "voice-single-steps": single_steps,
    "voice-sequences": sequences,
    "sigmoid-one": classifier,
    "sigmoid-several": several_labels,
    "regressor": regressor,
}
