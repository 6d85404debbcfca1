"""The page of results of ``nncf_control``: the two ways side by side, and the conditions that ours is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.int8_layers import LayerCounts
from benchmarks.process_tree import Usage
from benchmarks.results_files import environment_line, markdown_table

OURS, NNCF = "this project", "NNCF accuracy control"
CPU_FACTOR = 5.0  # ours must take this many times less CPU time


@dataclass(frozen=True, slots=True)
class Way:
    """What one of the two made and took."""

    evaluations: int  # of a model on the whole validation set, the float model's included
    part_evaluations: int  # of a model on a part of it
    pictures: int  # that were run for all of these
    usage: Usage
    layers: LayerCounts
    accuracy: float  # top-1 on all validation samples
    latency: Mapping[str, float]  # as plain_int8.compared gives it: timed in turns with the float model and the other way's engine


@dataclass(frozen=True, slots=True)
class Widest:
    """The trial of our job with the most quantized layers inside the budget; the engine that is kept is the fastest one."""

    low_layers: int  # residual adds are layers too
    layers: int
    accuracy: float
    order: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both ways on one network under one budget."""

    network: str
    relative_drop: float
    samples: int
    float_accuracy: float
    ways: Mapping[str, Way]
    widest: Widest | None
    missing: str | None  # why NNCF's column is not there


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that ours is held to."""

    text: str
    found: str
    holds: bool


def conditions(one: Comparison) -> tuple[Condition, ...]:
    """Return the conditions of a comparison and whether they hold; none without NNCF."""
    if NNCF not in one.ways:
        return ()
    ours, theirs = one.ways[OURS], one.ways[NNCF]
    quantized, their_quantized = (way.layers.int8 + way.layers.int8_adds for way in (ours, theirs))
    factor = theirs.usage.cpu_seconds / ours.usage.cpu_seconds
    found = [
        Condition(
            "more int8 layers, in the engine that the job keeps", f"{quantized} against {their_quantized}", quantized > their_quantized
        ),
        Condition(
            "no lower accuracy, of that engine", f"{ours.accuracy:.4f} against {theirs.accuracy:.4f}", ours.accuracy >= theirs.accuracy
        ),
    ]
    if one.widest is not None:
        widest = one.widest
        text = "more int8 layers at no lower accuracy, in the trial inside the budget with the most of them"
        figures = f"{widest.low_layers} at {widest.accuracy:.4f} against {their_quantized} at {theirs.accuracy:.4f}"
        found.append(Condition(text, figures, widest.low_layers > their_quantized and widest.accuracy >= theirs.accuracy))
    every, their_every = (way.evaluations + way.part_evaluations for way in (ours, theirs))
    whole = f"{ours.evaluations} against {theirs.evaluations}"
    found.append(
        Condition("fewer evaluations, on the whole validation set or a part", f"{every} against {their_every}", every < their_every)
    )
    found.append(Condition("fewer evaluations on the whole validation set alone", whole, ours.evaluations < theirs.evaluations))
    cpu = f"{theirs.usage.cpu_seconds:.0f} s / {ours.usage.cpu_seconds:.0f} s = {factor:.1f}"
    found.append(Condition(f"at least {CPU_FACTOR:g} times less CPU time", cpu, factor >= CPU_FACTOR))
    return tuple(found)


def page(comparisons: Sequence[Comparison], versions: Mapping[str, str] | None, where: Mapping[str, object]) -> str:
    """Return the page.

    Args:
        comparisons: One a budget.
        versions: Packages of NNCF's environment, by name.
        where: The environment of our job.
    """
    parts = [
        "# NNCF's accuracy control\n",
        "Networks of Fashion-MNIST, the same 512 training pictures for calibration and the same test pictures for "
        "accuracy, one after the other in one run. NNCF is `nncf.quantize_with_accuracy_control` on its ONNX backend with its defaults "
        "but for the budget and the data; each of its sessions has one thread, which saves it CPU time. Ours is the job of the command "
        "line with default settings, batch 64; it also times engines, which NNCF does not. Evaluations are runs of a model over the "
        "whole validation set, the float model's included. Layers are counted in both files alike: those that read integers on both "
        "sides; *integer kernels* is how many of them, sums included, onnxruntime finds one for: NNCF gives the inputs of depthwise "
        "convolutions a scale for each channel, which it can only run as float between conversions. Accuracy and latency are measured "
        "again on both files afterwards: latency in onnxruntime at batch 64, one thread, divided by the float "
        "model's, the three timed in turns. CPU seconds are of whole process trees, imports included. *Uneven channels*: the "
        "ResNet-20-like network with channels between its convolutions multiplied by powers of two from 1 down to 1/128, and taken back "
        "by the weights behind them (`benchmarks.uneven_channels`): the float network answers the same, to the bit.\n",
    ]
    for one in comparisons:
        parts.append(
            f"## {one.network}: {100 * one.relative_drop:g}% of the float top-1 ({one.float_accuracy:.4f} on {one.samples:,} pictures)\n"
        )
        headers = [
            "",
            "evaluations",
            "on a part",
            "pictures",
            "int8 Conv and Gemm",
            "int8 sums",
            "integer kernels",
            "top-1",
            "latency ratio",
            "CPU s",
            "wall s",
            "peak MB",
        ]
        parts.append(markdown_table(headers, [_row(name, way) for name, way in one.ways.items()]))
        if one.missing is not None:
            parts.append(f"NNCF has no figures: {one.missing}.\n")
        listed = [[condition.text, condition.found, "yes" if condition.holds else "**no**"] for condition in conditions(one)]
        if listed:
            parts.append(markdown_table(["ours has", "found", "holds"], listed))
    if versions is not None:
        parts.append("NNCF's environment: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".\n")
    parts.append(f"{environment_line(where)} Repeat with `python -m benchmarks.nncf_control`.\n")
    return "\n".join(parts)


def _row(name: str, way: Way) -> list[str]:
    layers, usage = way.layers, way.usage
    return [
        name,
        str(way.evaluations),
        str(way.part_evaluations),
        f"{way.pictures:,}",
        f"{layers.int8} of {layers.weighted}",
        f"{layers.int8_adds} of {layers.adds}",
        str(layers.kernels),
        f"{way.accuracy:.4f}",
        f"{way.latency['ratio']:.3f} ± {way.latency['ratio_mad']:.3f}",
        f"{usage.cpu_seconds:.0f}",
        f"{usage.wall_seconds:.0f}",
        f"{usage.peak_rss_bytes / 1e6:.0f}",
    ]
