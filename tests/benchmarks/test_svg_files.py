from __future__ import annotations

from benchmarks.svg_files import svg_file

DRAWING = """<svg width="90pt">
  <text>0.975</text><path d="M 86.070518 -0.126
L 1.5 12345.678901" id="m1.2345" style="fill: #0b6fa4"/>
</svg>
"""


def test_a_drawing_becomes_a_file_of_its_own_with_short_coordinates() -> None:
    text = svg_file(DRAWING)
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg" ')
    assert 'd="M 86.07 -0.13\nL 1.5 12345.68"' in text
    assert 'id="m1.2345" style="fill: #0b6fa4"' in text
    assert "<text>0.975</text>" in text
