from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from benchmarks.results_files import environment, environment_line, markdown_table, write_results


def test_table_has_a_line_for_each_row_and_escapes_bars() -> None:
    assert markdown_table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"


def test_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="found 1 cells"):
        markdown_table(["a", "b"], [["1"]])


def test_results_carry_the_day_in_name_and_content(tmp_path: Path) -> None:
    data, page = write_results("orders", {"b": 1, "a": 2}, "# Page\n", tmp_path / "new", day=datetime.date(2026, 1, 2))
    assert (data.name, page.name) == ("orders-2026-01-02.json", "orders-2026-01-02.md")
    assert json.loads(data.read_text()) == {"date": "2026-01-02", "a": 2, "b": 1}
    assert page.read_text() == "# Page\n"


def test_floats_have_six_digits_wherever_they_are(tmp_path: Path) -> None:
    values = {"one": 1 / 3, "many": [{"half": 0.5, "pair": (123456.789, 7)}], "text": "0.123456789", "yes": True}
    data, _ = write_results("x", values, "", tmp_path, day=datetime.date(2026, 1, 2))
    found = {"date": "2026-01-02", "one": 0.333333, "many": [{"half": 0.5, "pair": [123457.0, 7]}], "text": "0.123456789", "yes": True}
    assert json.loads(data.read_text()) == found


def test_same_values_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 2)
    first, _ = write_results("x", {"a": 1, "b": 2}, "", tmp_path / "1", day=day)
    second, _ = write_results("x", {"b": 2, "a": 1}, "", tmp_path / "2", day=day)
    assert first.read_bytes() == second.read_bytes()


def test_environment_names_no_path_and_fits_into_a_line() -> None:
    found = environment()
    line = environment_line(found)
    assert str(found["onnxruntime"]) in line
    assert str(Path.home()) not in line
    assert "\n" not in line
