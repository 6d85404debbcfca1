"""Reads the user's samples, and holds some of them out where there is no validation set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.accuracy.metrics import Truth
from calibration.data.dataset import MAPPED_BYTES, MIN_SAMPLES, CalibrationSet, load_saved, split_held_out
from calibration.data.formats.named_labels.named_classes import check_classes, classes_note
from calibration.data.formats.wanted import Found, Wanted
from calibration.data.readers import read_arrays
from calibration.data.sample_traits import fingerprints, first_of_each
from calibration.data.settings import check_same_settings
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec
from calibration.sequences.sequence_file import samples_or_sequences
from calibration.sequences.step_sequences import Given, StepSequences, as_wholes, steps_of
from engine_builder.config.inspect_settings import InspectSettings
from engine_builder.stage_io.measuring import JobFiles
from engine_builder.workspace.workspace import FileRef, Workspace

MIN_CALIBRATION_SAMPLES = 2


def given_samples(
    files: JobFiles,
    specs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    settings: InspectSettings,
    workspace: Workspace,
    notes: list[str],
    specials: list[str],
) -> tuple[Given, Given, bool]:
    """Return calibration samples, validation samples, and whether the two are the same file; ``specials`` gets what inputs hold."""
    any_labels = files.metric_model is not None or (settings.metric is not None and settings.metric.spec.truth is Truth.GIVEN)

    wanted = Wanted(tuple(specs), settings.preprocess, settings.tokens)
    found: list[Found] = []

    def read(file: FileRef, what: str) -> Given:
        read_ones = read_arrays(workspace.path(file), wanted, what)
        check_classes(read_ones, found[0] if found else None, outputs, what)
        notes.extend([*(f"{what}: {note}" for note in read_ones.notes), *([] if found else classes_note(read_ones))])
        found.append(read_ones)
        try:
            return samples_or_sequences(read_ones.arrays, specs, outputs, settings.state, any_labels=any_labels)
        except InvalidCalibrationSetError as error:
            if files.validation is None:
                raise
            raise InvalidCalibrationSetError(f"{what}: {error.detail}", fix=error.fix) from error  # which of the two

    calibration, same = read(files.calibration, "calibration file"), False
    validation: Given
    specials += [f"calibration set: {held}" for held in calibration.specials]
    if files.validation is None:
        kept, held_out = split_held_out(calibration.samples, settings.seed)
        validation = calibration.take(held_out)
        calibration = calibration.take(kept)
        notes.append(f"no validation set: {len(held_out)} of the calibration samples were held out to measure accuracy on")
    else:
        validation = read(files.validation, "validation file")
        check_same_settings(calibration.settings, validation.settings)
        same = files.validation.sha256 == files.calibration.sha256
        specials += () if same else (f"validation set: {held}" for held in validation.specials)
        if same:
            notes.append("calibration and validation are the same file: accuracy is measured on the samples that ranges were fitted to")
        total = calibration.samples if same else calibration.samples + validation.samples
        if total < MIN_SAMPLES:
            raise InvalidCalibrationSetError(
                f"{calibration.samples} calibration and {validation.samples} validation samples found, "
                f"at least {MIN_SAMPLES} different ones in all expected",
                fix="Upload more samples; a few hundred of each are usual.",
            )
    most = settings.samples
    if most is not None and most < calibration.samples and isinstance(calibration, CalibrationSet):  # steps are chosen when there are any
        order = np.random.default_rng(settings.seed).permutation(calibration.samples)
        calibration = calibration.take(np.sort(order[:most]))
        notes.append(f"calibration.samples: {most} of the calibration samples used")
    if calibration.samples < MIN_CALIBRATION_SAMPLES:
        raise InvalidCalibrationSetError(
            f"{calibration.samples} calibration sample found, at least {MIN_CALIBRATION_SAMPLES} expected: a lone one has no spread",
            fix="Give more calibration samples, or raise calibration.samples; a few hundred are usual.",
        )
    return calibration, validation, same


def kept_in_file(given: Given, path: Path) -> Given:
    """Return the samples; those of many bytes as ones that stay in a file.

    Args:
        given: The samples.
        path: The file, which is written where it is needed.
    """
    steps = steps_of(given)
    if sum(array.nbytes for array in steps.inputs.values()) < MAPPED_BYTES:
        return given
    steps.save(path)
    steps = load_saved(path)
    return replace(given, steps=steps) if isinstance(given, StepSequences) else steps


def each_once(judged_on: Given, others: Given, notes: list[str], specials: Sequence[str]) -> Given:
    """Return the validation samples without copies of earlier ones, which are no further evidence.

    Args:
        judged_on: The validation samples.
        others: The calibration samples.
        notes: Told how many were left out.
        specials: What inputs hold besides finite numbers, in words.

    Raises:
        InvalidCalibrationSetError: Fewer than MIN_SAMPLES samples of both sets are different.
    """
    digests, other_digests = _digests(judged_on), _digests(others)
    kept = first_of_each(digests)
    if not digests or len(kept) == len(digests):
        return judged_on
    different = len({*digests, *other_digests})
    if different < MIN_SAMPLES and not specials:  # else what is wrong with them is said where it shows
        raise InvalidCalibrationSetError(
            f"{different} different samples found among {len(other_digests)} calibration and {len(digests)} validation samples, "
            f"at least {MIN_SAMPLES} expected: copies say nothing new",
            fix="Upload different samples; a few hundred of each are usual.",
        )
    notes.append(f"{len(digests) - len(kept)} of {len(digests)} validation samples are copies of others: each counts once")
    return judged_on.take(kept)


def _digests(given: Given) -> tuple[bytes, ...]:
    wholes = as_wholes(given)
    return fingerprints(wholes.inputs if wholes.labels is None else {**wholes.inputs, "labels": wholes.labels})
