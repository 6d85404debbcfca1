from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from benchmarks.nncf_worker import Validation, read_items

IDENTITY = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2] x) => (float[n, 2] y) { y = Identity(x) }')
FIRST, SECOND = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


def test_top1_is_the_share_of_right_classes_and_each_pictures_own() -> None:
    items = [(FIRST, 0), (SECOND, 0), (SECOND, 1), (FIRST, 0)]
    assert Validation(4, "x")(IDENTITY, items) == (0.75, [1.0, 0.0, 1.0, 1.0])


def test_more_pictures_than_a_batch_are_all_scored() -> None:
    mean, each = Validation(70, "x")(IDENTITY, [(FIRST, 0)] * 69 + [(SECOND, 0)])
    assert (mean, len(each), each[-1]) == (69 / 70, 70, 0.0)


def test_runs_over_the_whole_set_are_told_from_parts() -> None:
    validate = Validation(2, "x")
    for items in ([(FIRST, 0)] * 2, [(FIRST, 0)], [(FIRST, 0)] * 2):
        validate(IDENTITY, items)
    assert (validate.whole_runs, validate.part_runs, validate.pictures) == (2, 1, 5)


def test_items_are_the_pictures_of_a_job_with_their_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", x=np.stack([FIRST, SECOND]), labels=np.array([3, 5]))
    assert [(picture.tolist(), label) for picture, label in read_items(tmp_path / "v.npz", "x")] == [([1.0, 0.0], 3), ([0.0, 1.0], 5)]
