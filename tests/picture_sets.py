"""Folders of small pictures that a model of ``tests.model_text`` knows."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from tests.model_text import model_from_text, run

PREPROCESS = {"resize": {"size": [8]}, "mean": [0.5], "std": [0.25]}


def picture_model() -> onnx.ModelProto:
    """Return a model of small grey pictures that finds each of its three classes often."""
    return model_from_text(
        """pictures (float[N,1,8,8] input) => (float[N,3] logits) {
            flat = Flatten(input)
            hidden = Gemm<transB=1>(flat, w1)
            positive = Relu(hidden)
            logits = Gemm<transB=1>(positive, w2)
        }""",
        {"w1": (32, 64), "w2": (3, 32)},
    )


def jpeg(rng: np.random.Generator, side: int = 16) -> bytes:
    """Return a grey picture of blocks, which survive that it is scaled down."""
    blocks = rng.integers(0, 256, (side // 2, side // 2), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.repeat(2, 0).repeat(2, 1)).save(file, "JPEG", quality=95)
    return file.getvalue()


def prepared(picture: bytes) -> np.ndarray:
    """Return what PREPROCESS makes of a picture by a second way: Pillow and the formula."""
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.asarray((pixels / 255 - 0.5) / 0.25, dtype=np.float32)[None]


def labelled_folder(folder: Path, model: onnx.ModelProto, count: int, seed: int = 0) -> Path:
    """Return a new folder of JPEG files, each in the folder of the class that the model finds."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        data = jpeg(rng)
        (found,) = run(model, {"input": prepared(data)[None]})[0].argmax(axis=1)
        place = folder / f"class{found}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index:03}.jpg").write_bytes(data)
    return folder


def zip_of(folder: Path, target: Path) -> Path:
    """Return a .zip of a folder as an archiver writes it: compressed, the folder's own name in front."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder.parent))
    return target
