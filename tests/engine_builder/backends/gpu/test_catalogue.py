"""GPUs are found by the names people and drivers use, and their figures can be divided by."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.gpu.catalogue import gpu_by_name, gpus_from_json, known_gpus, typical_conversion_ms
from engine_builder.errors import UnsupportedTargetError

DATA = resources.files("engine_builder.backends.gpu").joinpath("gpus.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx 4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("l4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada Generation"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
    ],
)
def test_names_are_found_with_and_without_the_vendors_words(asked: str, found: str) -> None:
    assert gpu_by_name(asked).name == found


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnsupportedTargetError, match="'RTX 4091' is unknown") as raised:
        gpu_by_name("RTX 4091")
    assert raised.value.fix == "use 'RTX 4090'"


def test_name_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedTargetError, match="expected one of T4, A2") as raised:
        gpu_by_name("voodoo banshee")
    assert raised.value.fix == "choose a GPU of the list"


def test_no_two_gpus_share_a_name() -> None:
    names = [name for gpu, others in gpus_from_json(DATA) for name in (gpu.name, *others)]
    assert len({gpu_by_name(name).name for name in names}) == len(known_gpus())
    assert len({name.lower() for name in names}) == len(names)


def test_every_gpu_has_a_source_and_the_peaks_of_its_precisions() -> None:
    for gpu in known_gpus():
        assert gpu.source
        assert all(gpu.operations_per_second(precision) > 0 for precision in Precision if gpu.has(precision)), gpu.name


def test_low_precision_is_never_slower_than_the_next_wider_one() -> None:
    for gpu in known_gpus():
        peaks = [gpu.operations_per_second(precision) for precision in (Precision.FP32, Precision.FP16, Precision.INT8)]
        assert peaks == sorted(peaks), gpu.name


@pytest.mark.parametrize(("name", "has"), [("RTX 3090", False), ("A100", False), ("L4", True), ("RTX 5090", True), ("H100", True)])
def test_fp8_starts_with_compute_capability_8_9(name: str, *, has: bool) -> None:
    assert gpu_by_name(name).has(Precision.FP8) is has


def test_a_conversion_takes_what_its_bytes_take_through_the_memory() -> None:
    assert gpu_by_name("L4").conversion_ms == pytest.approx(3 / (0.8 * 300e9) * 1e3)  # read FP16, write one byte
    assert gpu_by_name("H100").conversion_ms == pytest.approx(1.1e-9, rel=0.05)


def test_a_gpu_that_is_not_listed_converts_like_those_of_its_generation() -> None:
    hopper = sorted(gpu.conversion_ms for gpu in known_gpus() if gpu.compute_capability == (9, 0))
    assert hopper[0] <= typical_conversion_ms((9, 0)) <= hopper[-1]
    everything = sorted(gpu.conversion_ms for gpu in known_gpus())
    assert everything[0] < typical_conversion_ms(None) == typical_conversion_ms((99, 0)) < everything[-1]


def test_figure_measured_on_a_gpu_replaces_the_assumption_for_it_alone() -> None:
    data = json.loads(DATA)
    data["gpus"][0]["launch_us"] = 4.5
    measured, other = (gpu for gpu, _ in gpus_from_json(json.dumps(data))[:2])
    assert (measured.launch_us, other.launch_us) == (4.5, data["assumed"]["launch_us"])


def test_impossible_figure_is_refused_with_the_gpus_name() -> None:
    data = json.loads(DATA)
    data["gpus"][0]["bandwidth_gb_s"] = 0
    with pytest.raises(ValueError, match="T4"):
        gpus_from_json(json.dumps(data))
