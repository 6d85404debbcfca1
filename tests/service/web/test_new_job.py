"""The form, clicked: files chosen, sent, refused and asked for again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from tests.fakes import fake_model
from tests.picture_sets import picture_model
from tests.service.conftest import Server
from tests.service.web.shown_jobs import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Page


def address(server: Server, path: str = "/") -> str:
    return str(server.client.base_url).rstrip("/") + path


def choose(page: Page, role: str, name: str, data: bytes) -> None:
    page.set_input_files(f"#file-{role}", {"name": name, "mimeType": "application/octet-stream", "buffer": data})


def test_job_is_started_by_clicks_and_its_engine_downloaded(server: Server, page: Page) -> None:
    model = fake_model(trials=2, mark="by clicks")
    page.goto(address(server))
    choose(page, "model", "net.onnx", model)
    choose(page, "calibration", "samples.npz", b"numbers")
    page.get_by_text("✓ Sent.").first.wait_for()
    page.get_by_label("Accuracy budget").select_option("max_drop")
    page.get_by_label("Value of the budget").fill("0.02")
    page.get_by_label("Batch size").fill("16")
    page.get_by_label("Metric", exact=True).select_option("top5")
    page.get_by_role("button", name="Start the job").click()

    page.get_by_role("heading", name="Result").wait_for()
    assert "net.onnx" in page.locator("h1").inner_text()
    with page.expect_download() as engine:
        page.get_by_role("button", name="Download the engine").click()
    assert Path(engine.value.path()).read_bytes() == b"engine of " + model
    with page.expect_download() as log:
        page.get_by_role("button", name="Download log.txt").click()
    assert log.value.suggested_filename == "log.txt"
    newest = server.client.get("/v1/jobs").json()["jobs"][0]["id"]
    config = server.client.get(f"/v1/jobs/{newest}").json()["config"]
    assert (config["batch_size"], config["accuracy"]["max_drop"], config["accuracy"]["metric"]) == (16, 0.02, "top5")
    assert config["accuracy"]["min_relative"] is None


def test_what_the_server_tells_of_a_model_stands_in_the_form(server: Server, page: Page) -> None:
    page.goto(address(server))
    choose(page, "model", "net.onnx", picture_model().SerializeToString())
    panel = page.get_by_label("Before you start")
    panel.get_by_role("table").wait_for()
    assert "can take a lower precision" in panel.inner_text()
    assert panel.get_by_role("row").filter(has_text="onnxruntime-cpu").filter(has_text="int8").count() == 1
    assert "A job for onnxruntime-cpu with 1,000 samples takes about" in panel.inner_text()
    choose(page, "model", "notes.onnx", b"no model")
    panel.get_by_text("What to do").wait_for()
    assert panel.get_by_role("table").count() == 0
    assert page.get_by_role("button", name="Start the job").is_enabled()


def test_file_that_the_server_has_is_not_sent(server: Server, page: Page) -> None:
    data = b"samples that are here"
    server.client.post("/v1/files", content=data)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method) if request.url.endswith("/v1/files") else None)
    page.goto(address(server))
    choose(page, "calibration", "samples.npz", data)
    page.get_by_text("The server has it already").wait_for()
    assert sent == []


def test_upload_that_breaks_is_tried_again(server: Server, page: Page) -> None:
    page.goto(address(server))
    page.route("**/v1/files", lambda route: route.abort())
    choose(page, "model", "net.onnx", b"a file whose connection breaks")
    page.get_by_text("The connection broke").wait_for()
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("✓ Sent.").wait_for()


def test_refusal_is_shown_in_the_words_of_the_server(server: Server, page: Page) -> None:
    page.goto(address(server))
    choose(page, "model", "net.onnx", fake_model(trials=0))
    choose(page, "calibration", "samples.npz", b"numbers")
    page.get_by_text("Advanced").click()
    page.get_by_label("More configuration, as JSON").fill('{"acuracy": {}}')
    page.get_by_role("button", name="Start the job").click()
    problem = page.get_by_role("alert")
    assert "found the unknown key 'acuracy'" in problem.inner_text()
    assert "Did you mean `accuracy`?" in problem.inner_text()


def test_json_that_cannot_be_read_is_never_sent(server: Server, page: Page) -> None:
    before = len(server.deps.store.list())
    page.goto(address(server))
    choose(page, "model", "net.onnx", fake_model(trials=0))
    choose(page, "calibration", "samples.npz", b"numbers")
    page.get_by_text("Advanced").click()
    page.get_by_label("More configuration, as JSON").fill("{")
    page.get_by_role("button", name="Start the job").click()
    assert "The JSON cannot be read" in page.get_by_role("alert").inner_text()
    assert len(server.deps.store.list()) == before


@pytest.mark.parametrize(
    ("json_text", "expected"),
    [
        ('{"threads": 4}', {"min_relative": 0.99}),
        ('{"accuracy": {"max_nmse": 0.01}}', {"max_nmse": 0.01}),
        ('{"objective": {"min_speedup": 1.5}}', {}),
    ],
)
def test_json_wins_over_the_fields(server: Server, page: Page, json_text: str, expected: dict[str, float]) -> None:
    page.goto(address(server))
    page.get_by_text("Advanced").click()
    page.get_by_label("More configuration, as JSON").fill(json_text)
    sent = json.loads(page.get_by_label("Configuration that will be sent").inner_text())
    assert sent["accuracy"] == expected
    for key, value in json.loads(json_text).items():
        assert sent[key] == value


def test_facts_of_model_and_arrays_are_shown_before_anything_is_sent(server: Server, page: Page, tmp_path: Path) -> None:
    onnx.save(picture_model(), tmp_path / "model.onnx")
    np.savez(tmp_path / "plain.npz", input=np.zeros((40, 1, 8, 8), np.float32), labels=np.zeros(40, np.int64))
    np.savez_compressed(tmp_path / "packed.npz", input=np.zeros((24, 1, 8, 8), np.float32))
    page.goto(address(server))
    page.set_input_files("#file-model", tmp_path / "model.onnx")
    page.set_input_files("#file-calibration", tmp_path / "plain.npz")
    page.set_input_files("#file-validation", tmp_path / "packed.npz")
    page.get_by_text("24 samples").wait_for()
    shown = page.locator("form.new-job").inner_text()
    assert "Input input (N, 1, 8, 8), float32" in shown
    assert "Output logits (N, 3), float32" in shown
    assert "4 operators: 2 Gemm, 1 Flatten, 1 Relu" in shown
    assert 'Array "input": (40, 1, 8, 8), float32' in shown
    assert 'Array "labels": (40), int64' in shown
    assert "40 samples" in shown


@pytest.mark.long
def test_several_files_are_packed_into_one_archive_that_others_can_read(server: Server, page: Page, tmp_path: Path) -> None:
    (tmp_path / "set" / "cats").mkdir(parents=True)
    contents = {"cats/ü.jpg": b"one", "cats/2.jpg": b"", "dogs.jpg": bytes(range(256)) * 99}
    for name, data in contents.items():
        (tmp_path / "set" / name).write_bytes(data)
    page.goto(address(server))
    with page.expect_request(lambda request: request.url.endswith("/v1/jobs") and request.method == "POST") as request:
        page.set_input_files("#file-calibration-folder", tmp_path / "set")
        choose(page, "model", "net.onnx", fake_model(trials=0))
        page.get_by_text("3 pictures in 2 folders").wait_for()
        page.get_by_role("button", name="Start the job").click()
    stored = server.deps.artifacts.open(json.loads(request.value.post_data or "")["calibration_id"].removeprefix("sha256:"))
    with stored as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == contents  # without the folder's own name: names are labels
    page.get_by_role("heading", name="Result").wait_for()


@pytest.mark.long
def test_digest_is_that_of_hashlib(server: Server, page: Page) -> None:
    page.goto(address(server))
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 70_001):
        data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
        found = page.evaluate(
            """async ([bytes, cut]) => {
                const { Sha256 } = await import("/web/sha256.js");
                const all = Uint8Array.from(bytes);
                return Array.from(new Sha256().update(all.subarray(0, cut)).update(all.subarray(cut)).digest());
            }""",
            [list(data), size // 3],
        )
        assert bytes(found) == hashlib.sha256(data).digest(), size


def test_hostile_name_of_a_file_is_text(server: Server, page: Page) -> None:
    page.goto(address(server))
    choose(page, "model", f"{HOSTILE.replace('/', '')}.onnx", b"no model")
    page.get_by_text("✓").wait_for()
    assert "<img src=x" in page.locator(".picked").first.inner_text()
    assert page.evaluate("window.hacked ?? null") is None


def test_form_without_files_says_what_is_missing(server: Server, page: Page) -> None:
    page.goto(address(server))
    page.get_by_role("button", name="Start the job").click()
    assert page.evaluate("document.activeElement.id") == "file-model"


def test_target_that_runs_on_gpus_asks_for_one(server: Server, page: Page) -> None:
    facts = {"target": "tensorrt-rtx", "precisions": ["fp16", "int8"], "latency_source": "predicted", "gpus": ["L4", "RTX 4090"]}
    page.route("**/v1/targets", lambda route: route.fulfill(json={"targets": [facts]}))
    page.goto(address(server))
    assert "Latency is predicted" in page.locator("#target-facts").inner_text()
    page.get_by_label("GPU", exact=True).select_option("L4")
    assert '"gpu": "L4"' in (page.get_by_label("Configuration that will be sent").text_content() or "")


def test_mean_and_deviation_of_ones_own_are_sent(server: Server, page: Page) -> None:
    page.goto(address(server))
    page.get_by_label("How the samples become").select_option("own")
    page.get_by_label("Mean", exact=True).fill("0.49, .48,0.45")
    page.get_by_label("Deviation", exact=True).fill("0.25")
    page.get_by_label("Height and width").fill("32")
    sent = json.loads(page.get_by_label("Configuration that will be sent").text_content() or "")
    assert sent["preprocess"] == {"resize": {"size": [32, 32]}, "mean": [0.49, 0.48, 0.45], "std": [0.25]}
    for wrong in ("", "half", "0.5,"):
        page.get_by_label("Deviation", exact=True).fill(wrong)
        assert page.locator("#picture-std:invalid").count() == 1, wrong


def test_wrong_value_in_a_field_that_is_not_seen_keeps_no_job_from_starting(server: Server, page: Page) -> None:
    page.goto(address(server))
    choose(page, "model", "net.onnx", fake_model(trials=0))
    choose(page, "calibration", "samples.npz", b"numbers")
    how = page.get_by_label("How the samples become")
    how.select_option("unit")
    page.get_by_label("Height and width").fill("0")
    how.select_option("none")
    page.get_by_text("Advanced").click()
    page.get_by_label("Most engines to try").fill("0")
    page.get_by_text("Advanced").click()
    page.get_by_role("button", name="Start the job").click()
    assert page.evaluate("document.activeElement.id") == "max-trials"  # in view again, with the browser's own words beside it
    page.get_by_label("Most engines to try").fill("3")
    page.get_by_role("button", name="Start the job").click()
    page.get_by_role("heading", name="Result").wait_for()


def test_server_that_could_not_read_a_model_is_asked_again(server: Server, page: Page) -> None:
    page.goto(address(server))
    page.route("**/preflight?*", lambda route: route.abort())
    choose(page, "model", "net.onnx", picture_model().SerializeToString())
    panel = page.get_by_label("Before you start")
    panel.get_by_text("The server did not answer").wait_for()
    page.unroute_all()
    panel.get_by_role("button", name="Ask again").click()
    panel.get_by_role("table").wait_for()


def test_model_on_the_field_of_samples_is_called_one(server: Server, page: Page) -> None:
    page.goto(address(server))
    choose(page, "calibration", "net.onnx", picture_model().SerializeToString())
    page.get_by_text("This looks like a model, not like samples.").wait_for()
