"""A trial in one line, for terminals and logs."""

from __future__ import annotations

from collections.abc import Mapping


def trial_line(trial: Mapping[str, object]) -> str:
    """Return what one trial found, in one line."""
    quantized = trial.get("low_layers")
    start = f"trial {trial.get('index')}: {trial.get('order')}, {quantized} {'layer' if quantized == 1 else 'layers'} quantized"
    if trial.get("failure"):
        return f"{start}: failed: {trial['failure']}"
    accuracy, latency, met = trial.get("accuracy"), trial.get("latency_ms"), trial.get("met")
    parts = [start]
    if isinstance(accuracy, int | float):
        parts.append(f"score {accuracy:.4f}" if accuracy == 0 or abs(accuracy) >= _SMALL else f"score {accuracy:.2e}")
    if isinstance(latency, Mapping) and isinstance(latency.get("median"), int | float):
        parts.append(f"{latency['median']:.3f} ms")
    if met is not None:
        parts.append("inside the budget" if met else "not likely inside the budget")
    if (fast_enough := trial.get("fast_enough")) is not None:
        parts.append("fast enough" if fast_enough else "too slow")
    return ", ".join(parts)


_SMALL = 1e-3  # scores below, of errors, are told in powers of ten
