"""Jobs as the server tells them, for what the fake pipeline does not find: scores, latencies, verdicts, hostile names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from engine_builder.config.config import Config, config_json
from service.jobs.records import JobState

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "<img src=x onerror=\"window.hacked='yes'\"><script>window.hacked='yes'</script>"
ID = "0d6f1b1e-6f0b-4a55-9f0c-0f6a3f0c2c55"


def trial(index: int, accuracy: float, median: float, *, met: bool, order: str = "loss") -> dict[str, object]:
    latency = {"median": median, "p95": median * 1.1, "runs": 60}
    facts = {"index": index, "fingerprint": f"{index:016x}", "order": order, "low_layers": 7 * index, "accuracy": accuracy}
    return {**facts, "latency_ms": latency, "met": met, "failure": None, "seconds": 2.5}


TRIALS = [
    trial(0, 0.9, 4.0, met=True, order="baseline"),
    trial(1, 0.85, 1.5, met=False, order="all_low"),
    trial(2, 0.898, 2.0, met=True),
    trial(3, 0.899, 3.0, met=True),
    {
        "index": 4,
        "fingerprint": "4",
        "order": "loss",
        "low_layers": 5,
        "accuracy": None,
        "latency_ms": None,
        "met": None,
        "failure": "it crashed",
    },
]


def side(accuracy: float, median: float) -> dict[str, object]:
    return {"accuracy": accuracy, "latency_ms": {"median": median, "p95": median * 1.1}, "precisions": {"int8": 14}, "size_bytes": 263163}


def result(name: str = "") -> dict[str, object]:
    verdict = {"answer": "met_on_sample", "metric": "top1", "drop": 0.002, "interval": [-0.001, 0.004], "confidence": 0.95, "n": 10000}
    verdict |= {"selection": "held_out", "flips": 34, "budget": 0.009, "probability_over_budget": 0.33, "samples_needed": 162516}
    return {
        "outcome": "improved",
        "reason": f"The fastest engine that keeps the accuracy budget. {name}",
        "latency_source": "measured",
        "speedup": 2.0,
        "speedup_spread": 0.01,
        "baseline": side(0.9, 4.0),
        "chosen": side(0.898, 2.0),
        "verdict": {**verdict, "method": "score_and_exact"},
        "engine": {"name": "engine.onnx", "sha256": "5f3f", "size_bytes": 263163},
        "warnings": [f"the machine was busy {name}"],
    }


def shown_job(state: JobState = JobState.SUCCEEDED, name: str = "", **more: object) -> dict[str, object]:
    """Return a job; ``name`` stands wherever a name out of the user's files may."""
    is_running = state is JobState.RUNNING
    outputs = [{"name": name, "kinds": ["logits"], "in_words": f"output '{name}' is taken for logits"}]
    trials = [*TRIALS[:4], {**TRIALS[4], "failure": f"it crashed {name}", "order": f"loss{name}"}]
    problem = {"type": "urn:x", "title": "Invalid ONNX model", "status": 422, "detail": f"model {name}: no", "fix": f"Send another {name}"}
    return {
        "id": ID,
        "state": state.value,
        "stage": "search",
        "progress": 0.53 if is_running else 1.0,
        "eta_seconds": 31 if is_running else None,
        "created_at": "2026-11-29T10:00:00Z",
        "started_at": "2026-11-29T10:00:01Z",
        "finished_at": None if is_running else "2026-11-29T10:01:41Z",
        "target": "onnxruntime-cpu",
        "config": config_json(Config()),
        "outputs": outputs,
        "trials": trials,
        "best": 2,
        "result": result(name) if state is JobState.SUCCEEDED else None,
        "error": problem if state is JobState.FAILED else None,
        "links": {},
        **more,
    }


def let_server_tell(page: Page, job: dict[str, object], log: str = "") -> None:
    """Let the page get this job in the place of the server's own answer; call again for a newer one."""
    artifacts = [{"name": "log.txt", "sha256": "0" * 64, "size_bytes": len(log), "link": f"/v1/jobs/{job['id']}/artifacts/log.txt"}]
    page.unroute_all()
    page.route(f"**/v1/jobs/{job['id']}", lambda route: route.fulfill(json=job))
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": [job], "next_cursor": None}))
    page.route(f"**/v1/jobs/{job['id']}/artifacts", lambda route: route.fulfill(json={"artifacts": artifacts}))
    page.route(f"**/v1/jobs/{job['id']}/artifacts/log.txt", lambda route: route.fulfill(body=log))
    page.route(f"**/v1/jobs/{job['id']}/events*", lambda route: route.fulfill(status=404, body=json.dumps({"status": 404})))
