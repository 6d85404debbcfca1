from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, blocks, blocks_of, links, name_of, spans

README = ROOT / "README.md"
LANGUAGES = {"bash", "python", "json", "math", "text"}  # what test_code_blocks.py has a rule for
OUR_PATH = re.compile(r"(?:calibration|engine_builder|service|tests|docs|docker|examples|benchmarks|requirements)/[\w./-]*")


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# `a.NAME` and more\n[1](#aname-and-more) [2](#nothing) [3](nothing.md) [4](page.md#nothing)\n```text\n[5](x.md)\n```\n"
    )
    assert dead_links(page) == ["#nothing", "nothing.md", "page.md#nothing"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_text_exist(page: Path) -> None:
    named = [span for span in spans(page) if OUR_PATH.fullmatch(span)]
    assert [path for path in named if not (ROOT / path).exists() and not (page.parent / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_name_their_language(page: Path) -> None:
    assert [str(block) for block in blocks(page) if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    assert [str(block) for block in blocks(page) if not block.marks.get("not-run", "why")] == []


def test_a_block_is_read_with_its_marks() -> None:
    (block,) = blocks_of('text\n```json config answer="keys"\n{}\n```\n', README)
    assert (block.line, block.language, block.words, block.marks, block.text) == (2, "json", ("config",), {"answer": "keys"}, "{}\n")


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no end"):
        blocks_of("```bash\nls\n", README)


def test_the_readme_is_short_enough_to_read_at_once() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    reached = {(ROOT / link.partition("#")[0]).resolve() for link in links(README)}
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page not in reached] == []


def test_pictures_are_light_and_used() -> None:
    used = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size > 150_000 or picture not in used] == []
