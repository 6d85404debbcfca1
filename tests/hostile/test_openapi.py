"""Whatever is sent to whatever route of the server's own description: an answer that it describes, and never a fault of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.live_server import LiveServer, live_server

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)
IN_PATH = TEXT.filter(lambda text: text not in {"", ".", ".."})
IN_HEADER = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40).map(str.strip)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=10)
FIELDS = ("model", "calibration", "validation", "metric", "model_id", "calibration_id", "validation_id", "metric_id", "config", "file")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("openapi")) as running:
        yield running


@pytest.fixture(scope="module")
def routes(server: LiveServer) -> list[tuple[str, str, Mapping[str, object]]]:
    paths = server.client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path, about) for path, methods in sorted(paths.items()) for method, about in sorted(methods.items())]


def values(about: object) -> st.SearchStrategy[object]:
    """Return values of a parameter: those that it describes, and others."""
    kind = json.dumps(about)
    return st.integers().map(str) | TEXT if '"integer"' in kind else TEXT | st.sampled_from(["queued", "before-7", "succeeded"])


def bodies() -> st.SearchStrategy[dict[str, object]]:
    fields = st.dictionaries(st.sampled_from(FIELDS) | TEXT, TEXT | JSON.map(json.dumps), max_size=4)
    return st.one_of(
        st.just({}),
        st.binary(max_size=300).map(lambda data: {"content": data}),
        st.builds(
            lambda data, kind: {"content": data, "headers": {"Content-Type": kind}},
            st.binary(max_size=300),
            st.sampled_from(["application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"]),
        ),
        JSON.map(lambda value: {"content": json.dumps(value).encode(), "headers": {"Content-Type": "application/json"}}),
        fields.map(lambda found: {"data": found}),
        fields.map(lambda found: {"files": {name: value.encode() for name, value in found.items()}}),
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_answer_is_one_that_is_described(
    server: LiveServer, routes: list[tuple[str, str, Mapping[str, object]]], data: st.DataObject
) -> None:
    method, path, about = data.draw(st.sampled_from(routes))
    sent = dict(data.draw(bodies())) if method == "POST" else {}
    headers = dict(sent.pop("headers", {}))  # type: ignore[call-overload]  # a dictionary where there is one
    query: dict[str, object] = {}
    parameters = about.get("parameters", [])
    assert isinstance(parameters, list)
    for parameter in parameters:
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", data.draw(IN_PATH.map(quoted)))
        elif parameter["in"] == "query" and data.draw(st.booleans()):
            query[parameter["name"]] = data.draw(values(parameter["schema"]))
        elif parameter["in"] == "header" and data.draw(st.booleans()):
            headers[parameter["name"]] = data.draw(IN_HEADER).encode("latin-1")
    if data.draw(st.integers(0, 9)) == 0:
        headers["Content-Digest"] = data.draw(IN_HEADER).encode("latin-1")
    sending = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers.items()]
    answer = server.client.request(method, path, params=query, headers=sending, **sent)  # type: ignore[arg-type]  # what httpx takes
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem = answer.json()
        assert set(problem) == {"type", "title", "status", "detail", "fix"}
        assert problem["status"] == answer.status_code
        assert problem["detail"].isprintable()
    else:
        assert str(answer.status_code) in about["responses"]  # type: ignore[operator]  # the description's own form


def quoted(text: str) -> str:
    return quote(text, safe="")
