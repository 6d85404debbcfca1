from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.web.router import read_assets
from tests.service.conftest import running_server

OWN = {name: asset.content.decode() for name, asset in read_assets().items() if not name.startswith("swagger-ui")}
FOLDER = "service/web/assets/"
ELSEWHERE = re.compile(r"""(?:src|href|from|import|url\()\s*=?\s*["'(]?\s*(?:https?:)?//""")


@pytest.fixture(scope="module", params=[None, "a key"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a server without and with a key, which sends none."""
    with running_server(tmp_path_factory.mktemp("server"), api_key=request.param) as server:
        yield server.client


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/web/{name}" for name in read_assets())])
def test_every_file_of_the_pages_is_served_without_a_key(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_page_may_run_no_script_that_stands_in_it(client: httpx.Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy


def test_frame_of_reports_has_an_origin_of_its_own_and_may_ask_nobody(client: httpx.Client) -> None:
    policy = client.get("/web/report-frame.html").headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy


@pytest.mark.parametrize("name", ["secret.txt", "../router.py", "%2e%2e/router.py", "..%2frouter.py", ""])
def test_other_files_are_not_served(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/web/{name}")
    assert answer.status_code == 404
    assert answer.json()["fix"]


def test_description_of_the_api_is_guarded_as_the_api_is(client: httpx.Client) -> None:
    assert client.get("/openapi.json").status_code == client.get("/v1/jobs").status_code


def test_pages_load_nothing_from_elsewhere() -> None:
    assert {name: found for name, text in OWN.items() if (found := ELSEWHERE.findall(text.replace("http://www.w3.org/", "")))} == {}


def test_whatever_the_pages_load_is_there() -> None:
    named = {(name, found) for name, text in OWN.items() for found in re.findall(r"/web/([\w.-]+)", text)}
    assert named
    assert {(name, found) for name, found in named if found not in read_assets()} == set()


def test_every_own_file_is_loaded_by_another() -> None:
    named = {found for text in OWN.values() for found in re.findall(r"/web/([\w.-]+)", text)}
    assert set(OWN) - named == {"index.html", "docs.html"}


def test_no_script_reads_text_as_html() -> None:
    ways = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|document\.write|DOMParser|\beval\(|new Function")
    assert {name for name, text in OWN.items() if ways.search(text)} == {"report-frame.html"}  # which has an origin of its own


def test_own_files_are_short_enough_to_read_at_once() -> None:
    assert {name: text.count("\n") for name, text in OWN.items() if text.count("\n") > 350} == {}


def test_wheel_has_every_file_of_the_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.removeprefix(FOLDER): archive.read(name).decode() for name in archive.namelist() if name.startswith(FOLDER)}
    assert inside == OWN
