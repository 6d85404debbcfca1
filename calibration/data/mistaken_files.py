"""Says what a file is that was given for samples by mistake, by its first bytes, and the one thing to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEAD_BYTES = 512
_NUMPY = "Write it with numpy.savez(path, **{input_name: array, ...}), arrays of numbers only."
_TORCH = "Save the tensors as arrays: numpy.savez(path, **{input_name: tensor.numpy()}), the first axis counting samples."
_PACK = "Pack the pictures with their folders as a .zip, or give the folder itself."
_TAR_AT = 257
_PICTURES = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"BM", "BMP"), (b"GIF8", "GIF"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"))
_ONNX = re.compile(rb"\x08[\x01-\x20](?:[\x12\x1a\x22\x32\x3a\x42\x72]|\x28.)", re.DOTALL)  # ir_version, then another field of a model
_TABLE = re.compile(rb"[\x20-\x7e\x80-\xff]+[,;\t][\x20-\x7e\x80-\xff\t]*\r?\n")


def mistaken(head: bytes) -> tuple[str, str] | None:
    """Return what the file is and what to do, None where nothing is known of it.

    Args:
        head: Its first HEAD_BYTES bytes.
    """
    if not head:
        return "is empty", _NUMPY
    if _ONNX.match(head):
        return "is an ONNX model, not samples", "Give the model first and the samples by --calibration: the two seem swapped."
    if head.startswith(b"\x80"):
        return "is a Python pickle (as .pkl, and .pt or .pth of old PyTorch, are), which is never loaded", _TORCH
    for magic, kind in _PICTURES:
        if head.startswith(magic):
            return f"is a single {kind} picture", _PACK
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "is a single WebP picture", _PACK
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar" or head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return "is a .tar or another archive than .zip", "Pack it as a .zip."
    if head.startswith(b"\x89HDF"):
        return "is an HDF5 file (.h5)", "Read it with h5py, and " + _NUMPY[0].lower() + _NUMPY[1:]
    if head.startswith(b"%PDF"):
        return "is a PDF document", _NUMPY
    if b"\0" not in head and _TABLE.match(head):
        return (
            "is a table of text (.csv) without the pictures that it names",
            "Put it beside its pictures, and give their folder or a .zip of it; numbers of a table belong into an .npz: "
            "numpy.savez(path, **{input_name: numpy.loadtxt(...)}).",
        )
    return None


def mistaken_archive(names: Sequence[str]) -> tuple[str, str]:
    """Return what a .zip is that holds no samples of a known form, and what to do.

    Args:
        names: Of its files.
    """
    lower = [name.lower() for name in names]
    if any(name.rsplit("/", 1)[-1] == "data.pkl" for name in lower):
        return "is a PyTorch file (.pt, .pth), which is never loaded", _TORCH
    if any(name.endswith(".onnx") for name in lower):
        return "is a .zip of an ONNX model, not samples", "Give the model first and the samples by --calibration: the two seem swapped."
    if any(name.endswith(".csv") for name in lower):
        return "is a .zip of a table without the pictures that it names", "Put the pictures beside the table, and pack both."
    if not names:
        return "is an empty .zip", _NUMPY
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return (
        f"is a .zip of {len(names)} files, such as {shown}, and none is a picture, an array (.npy) or an input of an ONNX test set",
        "Give pictures as JPEG, PNG, WebP or BMP, arrays as .npz, or folders test_data_set_0, ... with input_0.pb, ...",
    )
