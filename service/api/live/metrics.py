"""/metrics: the server's figures in the text format of Prometheus.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from service import __version__
from service.api.every_answer import RequestCounts
from service.api.live.readiness import Readiness
from service.jobs.records import JobState
from service.jobs.resources import Deps

Samples = Sequence[tuple[Mapping[str, str], float]]


def metrics_router(deps: Deps, counts: RequestCounts, readiness: Readiness) -> APIRouter:
    """Return the route of figures."""
    router = APIRouter(tags=["health"])

    @router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    def get_metrics() -> PlainTextResponse:
        """Return figures of jobs, requests and the disk in the text format of Prometheus."""
        text = "\n".join(_lines(deps, counts, is_ready=not readiness.problems())) + "\n"
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _lines(deps: Deps, counts: RequestCounts, *, is_ready: bool) -> Iterator[str]:
    jobs, durations = deps.store.counts(), deps.store.durations()
    answers = counts.answers()
    uploads = sum(count for answer, count in answers.items() if (answer.route, answer.status) == ("/v1/files", _CREATED))
    yield from _metric("info", "gauge", "The version of this program.", [({"version": __version__}, 1)])
    yield from _metric("ready", "gauge", "Whether the server takes jobs.", [({}, int(is_ready))])
    yield from _metric("jobs", "gauge", "Jobs by state.", [({"state": state.value}, jobs.get(state, 0)) for state in JobState])
    yield from _metric("queue_length", "gauge", "Jobs that wait for their turn.", [({}, jobs.get(JobState.QUEUED, 0))])
    ended = [(state, durations[state]) for state in JobState if state in durations]
    name, about = "job_duration_seconds", "Seconds from begin to end of the jobs that are kept, by how they ended."
    yield from _summary(name, about, [({"state": state.value}, count, seconds) for state, (count, seconds) in ended])
    free = shutil.disk_usage(deps.settings.data_dir).free
    yield from _metric("disk_free_bytes", "gauge", "Free on the disk of the data folder.", [({}, free)])
    yield from _metric("uploads_total", "counter", "Files uploaded by POST /v1/files.", [({}, uploads)])
    bodies = [({"route": route}, size) for route, size in counts.received_bytes().items() if size]
    yield from _metric("request_body_bytes_total", "counter", "Bytes received in bodies of requests.", bodies)
    requests = [({"method": one.method, "route": one.route, "status": str(one.status)}, count) for one, count in answers.items()]
    yield from _metric("requests_total", "counter", "Requests by route and status of the answer.", requests)
    by_route = [
        ({"route": route}, sum(count for one, count in answers.items() if one.route == route), seconds)
        for route, seconds in counts.seconds().items()
    ]
    yield from _summary("request_duration_seconds", "Seconds from request to the end of its answer.", by_route)


def _metric(name: str, kind: str, about: str, samples: Samples) -> Iterator[str]:
    yield from _head(name, kind, about)
    for labels, value in samples:
        yield f"{_PREFIX}{name}{_labels(labels)} {value!r}"


def _summary(name: str, about: str, samples: Sequence[tuple[Mapping[str, str], int, float]]) -> Iterator[str]:
    yield from _head(name, "summary", about)
    for labels, count, total in samples:
        yield f"{_PREFIX}{name}_sum{_labels(labels)} {total!r}"
        yield f"{_PREFIX}{name}_count{_labels(labels)} {count}"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {about}"
    yield f"# TYPE {_PREFIX}{name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    """Return labels in braces."""
    pairs = [f'{key}="{value.translate(_ESCAPED)}"' for key, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


_PREFIX = "onnx_trt_optimizer_"
_CREATED = 201
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
