from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # protobuf publishes no types
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.backends.engine_tensors import EngineTensor, EngineTensors, Profile
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.errors import BuildError
from engine_builder.interchange.triton_plan import config_text, plan_repository, triton_repository
from tests.engine_builder.pbtxt import parse

IMAGE = EngineTensor("input", "float32", (None, 3, None, 224))
LOGITS = EngineTensor("logits", "float16", (None, 10))
LEAST_ONE: Profile = {"input": ((1, 3, 1, 224), (4, 3, 224, 224), (16, 3, 448, 224))}
FP16, FP32, BOOL = 10, 11, 1


def text(
    inputs: Sequence[EngineTensor] = (IMAGE,),
    outputs: Sequence[EngineTensor] = (LOGITS,),
    profiles: Sequence[Profile] = (),
    *,
    platform: TritonPlatform = TritonPlatform.ONNXRUNTIME,
    name: str = "net",
    most: int = 32,
) -> str:
    return config_text(inputs, outputs, profiles, platform=platform, name=name, max_batch_size=most)


def test_the_reader_of_these_tests_is_strict() -> None:
    for wrong in ("nmae: 'x'", "max_batch_size: 'x'", "input { data_type: TYPE_FP31 }"):
        with pytest.raises(text_format.ParseError):
            parse(wrong)


def test_a_free_first_axis_everywhere_gives_batches_and_shapes_without_it() -> None:
    config = parse(text())
    assert (config.name, config.platform, config.max_batch_size) == ("net", "onnxruntime_onnx", 32)
    assert [(item.name, item.data_type, list(item.dims)) for item in config.input] == [("input", FP32, [3, -1, 224])]
    assert [(item.name, item.data_type, list(item.dims)) for item in config.output] == [("logits", FP16, [10])]


def test_first_axes_that_do_not_count_samples_forbid_batches() -> None:
    config = parse(text(most=0))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 3, -1, 224]


@pytest.mark.parametrize("shape", [(1, 10), (10,), ()])
def test_one_tensor_without_a_free_first_axis_forbids_batches_and_gives_whole_shapes(shape: tuple[int, ...]) -> None:
    config = parse(text(outputs=(LOGITS, EngineTensor("other", "bool", shape))))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 3, -1, 224]
    assert list(config.output[0].dims) == [-1, 10]
    assert config.output[1].data_type == BOOL


@pytest.mark.parametrize(
    ("tensor", "other"), [(EngineTensor("score", "float32", (None,)), LOGITS), (EngineTensor("one", "float32", ()), LOGITS)]
)
def test_a_tensor_without_axes_is_one_element_reshaped(tensor: EngineTensor, other: EngineTensor) -> None:
    config = parse(text(outputs=(tensor, other)))
    assert list(config.output[0].dims) == [1]
    assert config.output[0].HasField("reshape")
    assert list(config.output[0].reshape.shape) == []
    assert not config.output[1].HasField("reshape")


@pytest.mark.parametrize(
    ("greatest", "most", "expected"), [((16,), 64, 16), ((16, 8), 64, 16), ((16,), 4, 4)], ids=["profile", "largest profile", "asked for"]
)
def test_batches_are_as_large_as_one_profile_allows(greatest: tuple[int, ...], most: int, expected: int) -> None:
    profiles = [{"input": ((1, 3, 1, 224), (1, 3, 224, 224), (size, 3, 448, 224))} for size in greatest]
    assert parse(text(profiles=profiles, platform=TritonPlatform.TENSORRT, most=most)).max_batch_size == expected


def between(least: int, greatest: int) -> Profile:
    return {"input": ((least, 3, 1, 224), (least, 3, 224, 224), (greatest, 3, 448, 224))}


@pytest.mark.parametrize(("most", "batch", "listed"), [(64, 32, ["0", "1"]), (8, 8, ["0", "1"]), (7, 7, ["0"])])
def test_profiles_for_larger_batches_stand_beside_one_that_starts_at_one_sample(most: int, batch: int, listed: list[str]) -> None:
    config = parse(text(profiles=[between(1, 4), between(8, 32)], platform=TritonPlatform.TENSORRT, most=most))
    assert (config.max_batch_size, list(config.instance_group[0].profile)) == (batch, listed)


def test_shapes_are_whole_where_no_profile_starts_at_one_sample() -> None:
    config = parse(text(profiles=[between(2, 4), between(8, 32)], platform=TritonPlatform.TENSORRT))
    assert (config.max_batch_size, list(config.instance_group[0].profile)) == (0, ["0", "1"])


def test_a_profile_that_starts_above_one_sample_forbids_batches() -> None:
    profile = {"input": ((2, 3, 1, 224), (4, 3, 224, 224), (16, 3, 448, 224))}
    assert parse(text(profiles=[profile], platform=TritonPlatform.TENSORRT)).max_batch_size == 0


def test_plans_run_on_the_gpu_with_every_profile_listed_where_there_are_several() -> None:
    one, two = (parse(text(profiles=[LEAST_ONE] * count, platform=TritonPlatform.TENSORRT)).instance_group[0] for count in (1, 2))
    kind_gpu = 1
    assert (one.kind, list(one.profile)) == (kind_gpu, [])
    assert (two.kind, list(two.profile)) == (kind_gpu, ["0", "1"])


def test_onnx_runtime_runs_on_the_cpu() -> None:
    kind_cpu = 2
    assert parse(text()).instance_group[0].kind == kind_cpu


@given(st.text())
def test_any_tensor_name_comes_back_as_it_was(name: str) -> None:
    written = text(inputs=(EngineTensor(name, "float32", (None, 3)),))
    assert parse(written).input[0].name == name
    assert written.isascii()


def test_a_type_that_triton_lacks_is_refused_by_name() -> None:
    with pytest.raises(BuildError, match="output 'logits' has the type float8_e4m3fn, Triton takes bool"):
        text(outputs=(EngineTensor("logits", "float8_e4m3fn", (None, 10)),))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "C:"])
def test_a_model_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(BuildError, match="cannot be the name of a folder"):
        text(name=name)


def repository(engine: Path | bytes, output: Path, platform: TritonPlatform = TritonPlatform.TENSORRT) -> Path:
    return triton_repository(engine, (IMAGE,), (LOGITS,), platform=platform, name="net", max_batch_size=1, output=output)


def test_the_repository_of_a_plan_has_triton_layout(tmp_path: Path) -> None:
    with zipfile.ZipFile(repository(b"plan", tmp_path / "triton.zip")) as archive:
        assert archive.namelist() == ["net/config.pbtxt", "net/1/model.plan"]
        assert archive.read("net/1/model.plan") == b"plan"
        assert parse(archive.read("net/config.pbtxt").decode()).platform == "tensorrt_plan"


def test_a_plan_is_described_by_its_own_tensors_and_profile(tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"plan")
    tensors = EngineTensors((IMAGE,), (LOGITS,), (LEAST_ONE,))
    with zipfile.ZipFile(plan_repository(tmp_path / "engine.plan", tensors, tmp_path / "triton.zip")) as archive:
        assert archive.read("model/1/model.plan") == b"plan"
        config = parse(archive.read("model/config.pbtxt").decode())
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 16)
    assert [list(each.dims) for each in (*config.input, *config.output)] == [[3, -1, 224], [10]]


def test_a_plan_whose_first_axes_do_not_count_samples_is_called_with_whole_shapes(tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"plan")
    tensors = EngineTensors((IMAGE,), (LOGITS,), (LEAST_ONE,))
    with zipfile.ZipFile(plan_repository(tmp_path / "engine.plan", tensors, tmp_path / "triton.zip", may_batch=False)) as archive:
        assert parse(archive.read("model/config.pbtxt").decode()).max_batch_size == 0


def test_a_plan_of_fixed_sizes_is_called_with_whole_shapes(tmp_path: Path) -> None:
    fixed = EngineTensors((EngineTensor("x", "int8", (4, 3)),), (EngineTensor("y", "float32", (4,)),), ())
    (tmp_path / "engine.plan").write_bytes(b"plan")
    with zipfile.ZipFile(plan_repository(tmp_path / "engine.plan", fixed, tmp_path / "triton.zip")) as archive:
        config = parse(archive.read("model/config.pbtxt").decode())
    assert config.max_batch_size == 0
    assert [list(each.dims) for each in (*config.input, *config.output)] == [[4, 3], [4]]


def test_equal_engines_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"plan")
    first = repository(tmp_path / "engine.plan", tmp_path / "first.zip").read_bytes()
    (tmp_path / "engine.plan").touch()
    assert repository(tmp_path / "engine.plan", tmp_path / "second.zip").read_bytes() == first
