"""From a folder of JPEG files to an engine that runs, by clicks alone, on a real server with the real pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from examples.server import running_server
from tests.picture_sets import PREPROCESS, labelled_folder, picture_model

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_folder_of_pictures_becomes_an_engine(page: Page, tmp_path: Path) -> None:
    model = picture_model()
    onnx.save(model, tmp_path / "model.onnx")
    labelled_folder(tmp_path / "pictures", model, 48)
    (tmp_path / "server").mkdir()
    with running_server(tmp_path / "server") as address:
        page.set_default_timeout(120_000)  # a job, not an answer
        page.goto(address)
        page.set_input_files("#file-model", tmp_path / "model.onnx")
        page.set_input_files("#file-calibration-folder", tmp_path / "pictures")
        page.get_by_text("48 pictures in 3 folders").wait_for()
        page.get_by_label("How the samples become").select_option("centred")
        assert page.get_by_label("Height and width").input_value() == "8"  # from the model's input
        page.get_by_label("Value of the budget").fill("0.5")
        page.get_by_text("Advanced").click()
        page.get_by_label("Most engines to try").fill("2")
        page.get_by_label("More configuration, as JSON").fill(json.dumps({"preprocess": PREPROCESS}))
        page.get_by_role("button", name="Start the job").click()

        page.get_by_role("heading", name="Result").wait_for()
        assert page.get_by_role("img", name="Engines tried").locator("g.point.baseline").count() == 1
        before = page.get_by_role("table", name="Before and after").get_by_role("row", name="Baseline")
        assert before.get_by_text("1.0000").count() == 1  # the labels came from the folders
        with page.expect_download() as engine:
            page.get_by_role("button", name="Download the engine").click()
        page.get_by_role("link", name="Open the report").click()
        page.frame_locator("iframe").get_by_role("heading", name="Verdict").wait_for()
        session = onnxruntime.InferenceSession(Path(engine.value.path()).read_bytes())
        (scores,) = session.run(None, {"input": np.zeros((1, 1, 8, 8), np.float32)})
        assert np.shape(scores) == (1, 3)
