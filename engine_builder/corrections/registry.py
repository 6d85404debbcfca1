"""The kinds of corrections, in the order in which they are tried. Biases are corrected for each engine by itself."""

from __future__ import annotations

from engine_builder.corrections.method import CorrectionMethod
from engine_builder.corrections.range_choice import choose_ranges
from engine_builder.corrections.range_method import choose_range_method
from engine_builder.corrections.rounding_choice import choose_rounding
from engine_builder.corrections.smooth_quant_choice import choose_smooth_quants

CORRECTIONS: tuple[CorrectionMethod, ...] = (choose_range_method, choose_ranges, choose_smooth_quants, choose_rounding)
