"""Pictures become samples as the user states, and no other way."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calibration.data.formats import pictures
from calibration.data.formats.pictures import resized
from calibration.data.formats.preprocess import Colors, Layout, Preprocess, Resize, ResizeMode
from calibration.data.formats.wanted import Found, Wanted
from calibration.data.readers import read_arrays
from calibration.errors import InputError, InvalidCalibrationSetError, InvalidConfigError
from calibration.onnx_model.model_io import TensorSpec

RAW = Preprocess(scale=1.0)
RNG = np.random.default_rng(0)
COLORED = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def zip_of(folder: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "pictures.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def read(folder: Path, members: Mapping[str, bytes], preprocess: Preprocess, *shape: int | str | None, dtype: str = "float32") -> Found:
    return read_arrays(zip_of(folder, members), Wanted((TensorSpec("x", dtype, shape or ("N", 3, None, None)),), preprocess))


def refusal(
    folder: Path, members: Mapping[str, bytes], preprocess: Preprocess = RAW, *shape: int | str | None, dtype: str = "float32"
) -> InputError:
    with pytest.raises(InputError) as raised:
        read(folder, members, preprocess, *shape, dtype=dtype)
    return raised.value


@pytest.mark.parametrize(
    ("shape", "colors", "expected"),
    [
        (("N", 3, 4, 6), None, COLORED.transpose(2, 0, 1)),
        (("N", 4, 6, 3), None, COLORED),
        (("N", 3, None, None), Colors.BGR, COLORED[..., ::-1].transpose(2, 0, 1)),
        (("N", 1, 4, 6), None, np.asarray(Image.fromarray(COLORED).convert("L"))[None]),
        (("N", 4, 6), None, np.asarray(Image.fromarray(COLORED).convert("L"))),
    ],
)
def test_layout_and_colors_are_those_of_the_input(
    tmp_path: Path, shape: tuple[int | str | None, ...], colors: Colors | None, expected: NDArray[np.uint8]
) -> None:
    found = read(tmp_path, {"a.png": encoded(COLORED)}, Preprocess(scale=1.0, colors=colors), *shape).arrays["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], expected)


def test_bytes_for_an_input_of_bytes_stay_as_they_are(tmp_path: Path) -> None:
    found = read(tmp_path, {"a.png": encoded(COLORED)}, Preprocess(), "N", 4, 6, 3, dtype="uint8").arrays["x"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], COLORED)


def test_numbers_are_those_of_torchvision(tmp_path: Path) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = read(tmp_path, {"a.png": encoded(COLORED)}, Preprocess(mean=mean, std=std)).arrays["x"]
    expected = (COLORED / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), atol=1e-5)  # float32 against float64


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_each_kind_of_picture_is_read(tmp_path: Path, kind: str) -> None:
    even = np.full((8, 8, 3), 90, dtype=np.uint8)
    found = read(tmp_path, {f"a.{kind.lower()}": encoded(even, kind)}, RAW).arrays["x"]
    assert np.abs(found - 90).max() <= 3  # JPEG and WebP lose a little of even colour


def test_the_shorter_side_is_resized_and_the_middle_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 200
    preprocess = Preprocess(scale=1.0, resize=Resize((8,), ResizeMode.SHORTER_SIDE), crop=(6,))
    found = read(tmp_path, {"a.png": encoded(wide)}, preprocess).arrays["x"]
    assert found.shape == (1, 3, 6, 6)
    assert found.min() == 200


def test_a_letterboxed_picture_is_whole_and_filled_around(tmp_path: Path) -> None:
    wide = np.full((4, 8, 3), 200, dtype=np.uint8)
    found = read(tmp_path, {"a.png": encoded(wide)}, Preprocess(scale=1.0, resize=Resize((8, 8), ResizeMode.LETTERBOX))).arrays["x"][0, 0]
    assert found[[0, 1, 6, 7]].tolist() == [[114.0] * 8] * 4
    assert found[2:6].min() == 200


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((480, 640), Resize((256,), ResizeMode.SHORTER_SIDE), (256, 341)),  # torchvision cuts 341.33 off
        ((640, 480), Resize((256,), ResizeMode.SHORTER_SIDE), (341, 256)),
        ((480, 640), Resize((640, 640), ResizeMode.LETTERBOX), (480, 640)),
        ((480, 640), Resize((224,)), (224, 224)),
    ],
)
def test_sizes_after_resizing(size: tuple[int, int], resize: Resize, expected: tuple[int, int]) -> None:
    assert resized(*size, resize) == expected


def test_folders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    found = read(tmp_path, {f"set/{name}/{name}.png": encoded(COLORED) for name in ("dog", "cat", "owl", "cat")}, RAW)
    assert found.arrays["labels"].tolist() == [0, 1, 2]
    assert found.classes == ("cat", "dog", "owl")


def test_folders_with_numbers_are_those_classes(tmp_path: Path) -> None:
    found = read(tmp_path, {f"{name}/a.png": encoded(COLORED) for name in ("2", "10", "0")}, RAW)
    assert found.arrays["labels"].tolist() == [0, 10, 2]  # in the order of the names as text
    assert found.classes == ()


@pytest.mark.parametrize("is_file", [False, True])
def test_stated_classes_give_the_order(tmp_path: Path, is_file: bool) -> None:
    members = {f"{name}/a.png": encoded(COLORED) for name in ("cat", "dog")}
    if is_file:
        members["classes.txt"] = b"owl\ndog\ncat\n"
    found = read(tmp_path, members, RAW if is_file else Preprocess(scale=1.0, classes=("owl", "dog", "cat")))
    assert found.arrays["labels"].tolist() == [2, 1]
    assert found.are_classes_stated


def test_pictures_in_one_folder_have_no_labels(tmp_path: Path) -> None:
    assert "labels" not in read(tmp_path, {"set/a.png": encoded(COLORED), "set/b.png": encoded(COLORED)}, RAW).arrays


@pytest.mark.parametrize("table", ["a.png,3\nb.png,1\n", "file,label\na.png,3\nb.png,1\n", "label,filename\n3,a.png\n1,b.png\n"])
def test_a_table_labels_its_pictures(tmp_path: Path, table: str) -> None:
    members = {"images/b.png": encoded(COLORED), "images/a.png": encoded(COLORED[::-1]), "images/c.png": encoded(COLORED)}
    found = read(tmp_path, {**members, "labels.csv": table.encode()}, RAW)
    assert found.arrays["labels"].tolist() == [3, 1]
    np.testing.assert_array_equal(found.arrays["x"][1, 0], COLORED[..., 0])
    assert found.notes == ("1 pictures without a row in 'labels.csv' were left out",)


@pytest.mark.parametrize(
    "table",
    [
        '"id","image_name","label"\n0,a.png,1\n1,b.png,0\n',
        "cls,picture\n1,a.png\n0,b.png\n",
        "picture,cls\na.png,1\nb.png,0\n",
        "\ufefffile,label\r\na.png,1\r\nb.png,0\r\n",
        "1,a.png\n0,b.png\n",
    ],
)
def test_the_column_of_files_is_found_by_what_it_holds(tmp_path: Path, table: str) -> None:
    members = {"a.png": encoded(COLORED), "b.png": encoded(COLORED), "labels.csv": table.encode()}
    assert read(tmp_path, members, RAW).arrays["labels"].tolist() == [1, 0]


def test_a_first_row_without_its_picture_is_no_header(tmp_path: Path) -> None:
    found = refusal(tmp_path, {"b.png": encoded(COLORED), "labels.csv": b"a.png,1\nb.png,0\n"})
    assert "names 1 pictures that are not there, such as 'a.png'" in found.detail


def test_a_class_called_like_a_column_is_no_header(tmp_path: Path) -> None:
    members = {"a.png": encoded(COLORED), "b.png": encoded(COLORED), "labels.csv": b"a.png,target\nb.png,class\n"}
    assert read(tmp_path, members, RAW).classes == ("class", "target")


def test_numbers_with_fractions_in_a_table_stay_numbers(tmp_path: Path) -> None:
    found = read(tmp_path, {"a.png": encoded(COLORED), "labels.csv": b"a.png,0.25\n"}, RAW)
    assert found.arrays["labels"].tolist() == [0.25]


def test_names_in_a_table_are_classes(tmp_path: Path) -> None:
    found = read(tmp_path, {"a.png": encoded(COLORED), "b.png": encoded(COLORED), "t.csv": b"a.png,dog\nb.png,cat\n"}, RAW)
    assert (found.arrays["labels"].tolist(), found.classes) == ([1, 0], ("cat", "dog"))


@pytest.mark.parametrize(
    ("members", "detail", "fix"),
    [
        ({"labels.csv": b"z.png,1\n"}, "names 1 pictures that are not there, such as 'z.png'", "Put the pictures beside the table"),
        ({"labels.csv": b"a.png\n"}, "has a row of one column", "a comma"),
        ({"labels.csv": b"a.png;1\n"}, "has a row of one column", "a comma"),
        ({"labels.csv": b"id,file,label\n1,a.png\n"}, "has a row without a file or a label: row 2", "a comma"),
        ({"labels.csv": b"id,name,kind\n1,a.png,2\n"}, "has the columns 'id', 'name', 'kind', and none is called label", "file and label"),
        ({"labels.csv": b'a.png,"' + b"x" * 200_000 + b'"\n'}, "is no .csv file: field larger", "a comma"),
        ({"b/b.png": encoded(COLORED)}, "1 pictures, such as 'a.png', lie in no folder", "folder of its class"),
        ({"b.png": b"GIF89a"}, "'b.png' is no JPEG, PNG, WebP or BMP picture", "Remove it"),
        ({"b.png": encoded(COLORED)[:60]}, "picture 'b.png' is damaged or truncated", "Copy the file again"),
        ({"b.png": encoded(COLORED[:2])}, "picture 'b.png' gives an array of shape (3, 2, 6), those before it (3, 4, 6)", "resize"),
        ({"b.png": encoded(RNG.integers(0, 2**16, (4, 6)).astype(np.uint16))}, "pixels of the kind I;16", "npz"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, members: Mapping[str, bytes], detail: str, fix: str) -> None:
    error = refusal(tmp_path, {"a.png": encoded(COLORED), **members})
    assert isinstance(error, InvalidCalibrationSetError)
    assert detail in error.detail
    assert fix in error.fix


def test_pictures_of_another_size_than_the_models_are_refused_with_what_to_state(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"a.png": encoded(COLORED)}, RAW, "N", 3, 224, 224)
    assert "has 4 x 6 pixels (height x width) after what preprocess says, 224 x 224 expected" in error.detail
    assert '"resize": {"size": [256], "mode": "shorter_side"}' in error.fix


def test_pixels_become_floats_only_as_is_stated(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"a.png": encoded(COLORED)}, Preprocess())
    assert isinstance(error, InvalidConfigError)
    assert "it is not stated how the pixels of calibration file 'pictures.zip', 0 to 255, become the float32 values" in error.detail
    assert '"preprocess": {"scale": 0.00392156862745098}' in error.fix


def test_a_layout_that_the_shape_does_not_tell_must_be_stated(tmp_path: Path) -> None:
    assert "preprocess.layout: missing" in refusal(tmp_path, {"a.png": encoded(COLORED)}, RAW, "N", None, None, None).detail
    found = read(tmp_path, {"a.png": encoded(COLORED)}, Preprocess(scale=1.0, layout=Layout.NHWC), "N", None, None, None)
    assert found.arrays["x"].shape == (1, 4, 6, 3)


def test_a_model_that_takes_no_pictures_is_told_so(tmp_path: Path) -> None:
    assert (
        "the model's input 'x' is no picture: int64 of shape (N, T)"
        in refusal(tmp_path, {"a.png": encoded(COLORED)}, RAW, "N", "T", dtype="int64").detail
    )


@pytest.mark.long
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encoded(np.zeros((20_000, 20_000), dtype=np.uint8))
    assert len(bomb) < 2**20
    assert "picture 'a.png' has too many pixels" in refusal(tmp_path, {"a.png": bomb}).detail
    monkeypatch.setattr(pictures, "MAX_PIXELS", 23)
    assert "picture 'a.png' has 6 x 4 pixels, at most 23 expected" in refusal(tmp_path, {"a.png": encoded(COLORED)}).detail


def test_a_member_that_unpacks_to_too_much_is_refused_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 1000)
    assert "holds 'a.png' of more than 1000 bytes" in refusal(tmp_path, {"a.png": bytes(10**7)}).detail


def test_methods_that_can_hide_gigabytes_in_a_few_bytes_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path, {"a.png": bytes(100)}, zipfile.ZIP_LZMA)
    with pytest.raises(InvalidCalibrationSetError, match="packed by another method than deflate"):
        read_arrays(path, Wanted((TensorSpec("x", "float32", ("N", 3, None, None)),), RAW))


def test_what_systems_leave_in_archives_is_passed_over(tmp_path: Path) -> None:
    found = read(tmp_path, {"a/a.png": encoded(COLORED), "__MACOSX/a/._a.png": b"?", "a/._a.png": b"?", "a/.DS_Store": b"?"}, RAW)
    assert found.arrays["x"].shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (lambda: Preprocess(mean=(123.68, 116.78, 103.94)), "no scale"),
        (lambda: Preprocess(mean=(0.5, 0.5)), "found 2 numbers, expected 1, or 3"),
        (lambda: Resize((224, 224), ResizeMode.SHORTER_SIDE), "expected one number for the mode shorter_side"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(make: object, detail: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidConfigError, match=detail):
        make()
