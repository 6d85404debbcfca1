"""Turns the pictures beside it into the two files a job takes: ``python examples/fashion_mnist/prepare.py FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
PICTURES = HERE / "fashion_mnist_uint8.npz"
MODELS = {"mobilenetv2": HERE / "fmnist_mbv2.onnx", "resnet20": HERE / "fmnist_resnet20.onnx"}

# The networks were trained on pixels brought to mean 0 and deviation 1 with the training set's own figures.
PIXEL_MEAN = 0.2860
PIXEL_DEVIATION = 0.3530
CALIBRATION_SAMPLES = 512


def write_calibration(folder: Path, *, samples: int = CALIBRATION_SAMPLES, seed: int = 0) -> Path:
    """Write ``calibration.npz``, training pictures for ranges and sensitivities, and return its path.

    It holds ``input``: (samples, 1, 28, 28), float32, as the networks take it, and ``labels``: (samples,), int64. The same arguments
    give the same bytes.

    Args:
        folder: Where to write; made if it is not there.
        samples: How many pictures, at most 2,048.
        seed: Which ones.
    """
    pictures, labels = _pictures("train")
    chosen = np.sort(np.random.default_rng(seed).choice(len(pictures), size=samples, replace=False))
    return _write(folder / "calibration.npz", pictures[chosen], labels[chosen])


def write_validation(folder: Path) -> Path:
    """Write ``validation.npz``, the 10,000 test pictures in the same form, for accuracy, and return its path."""
    return _write(folder / "validation.npz", *_pictures("test"))


def network_input(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pictures, (n, 28, 28), uint8, as the networks take them: (n, 1, 28, 28), float32."""
    pixels = pictures[:, np.newaxis].astype(np.float32) / np.float32(255)
    return np.asarray((pixels - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_DEVIATION), dtype=np.float32)


def main() -> None:
    """Write the files and say where they are."""
    parser = argparse.ArgumentParser(description="Write calibration.npz and validation.npz for the two example models.")
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("--samples", type=int, default=CALIBRATION_SAMPLES, help="training pictures to calibrate on (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default %(default)s)")
    arguments = parser.parse_args()
    calibration = write_calibration(arguments.folder, samples=arguments.samples, seed=arguments.seed)
    for path in (calibration, write_validation(arguments.folder)):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def _pictures(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load(PICTURES, allow_pickle=False) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"]


def _write(path: Path, pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, input=network_input(pictures), labels=labels)
    return path


if __name__ == "__main__":
    main()
