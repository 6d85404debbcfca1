"""What is likely wrong with the user's samples and labels: refused where nothing would be measured, else a warning with one thing to try.

1. With labels, a float model that does not beat chance is refused, with what would make labels or samples fit where that is found out;
   ``accuracy.allow_chance`` makes it a warning. A metric of the user's own is not held against chance.
2. Labels of which nothing can be told (one class, or too few samples) are a warning; they are refused only if the model scores 0, since
   any engine would keep that.
3. Where it does beat chance, but is far better on the same pictures prepared in another way, that is a warning.
4. Constant samples, copies, samples of both sets, and values far from what the first BatchNormalization saw are warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.accuracy.chance import MARGIN, STANDARD_ERRORS, SURE_STANDARD_ERRORS, Chance, beats, chance_of, fitting_labels
from calibration.accuracy.kinds.classes import classes_last, reading_of_classes
from calibration.accuracy.kinds.judging import counted_of
from calibration.accuracy.measures.classes import by_class
from calibration.accuracy.measures.tasks.decisions import threshold_for
from calibration.accuracy.metrics import CLASSES, Metric
from calibration.accuracy.scores import score
from calibration.data.dataset import MIN_SAMPLES, CalibrationSet
from calibration.data.first_statistics import first_statistics
from calibration.data.preparations import other_preparations
from calibration.data.sample_traits import constant_samples, copies, fingerprints, shared
from calibration.errors import InputError, InvalidCalibrationSetError
from calibration.execution.onnxruntime_session import Array
from engine_builder.evaluation.scoring import Scorer

LEAST_SHARE = 0.01  # of a set: fewer odd samples are told to nobody
_PREPARED_SAMPLES = 256  # that another preparation is tried on
_PREPARED_BYTES = 64 * 2**20  # of the samples; a few copies are made
_PREPARED_SECONDS = 5.0  # for all of them, where nothing else is wrong
_PREPARATIONS = 6  # at most
_LIKELY = (
    "Check that each label belongs to its sample (not shuffled) and is numbered as the model's classes (not shifted by one), that "
    "the samples are prepared as for training (pixel scale, mean, deviation, order of the channels), and that their axes have its order "
    "(layout)."
)

Scores = NDArray[np.float64]
Rerun = Callable[[CalibrationSet], Sequence[Array]]  # the compared outputs of the float model on other samples


def sample_warnings(
    model: onnx.ModelProto, calibration: CalibrationSet, validation: CalibrationSet, *, is_held_out: bool, batch: int | None
) -> tuple[str, ...]:
    """Return the warnings of rule 4.

    Args:
        model: The user's model.
        calibration: Samples as the user gave them.
        validation: The same.
        is_held_out: The validation samples were taken out of the calibration file.
        batch: Samples that every call must have, None where that is open.
    """
    sets = {"calibration": (calibration, validation)} if is_held_out else {"calibration": (calibration,), "validation": (validation,)}
    digests = {name: tuple(digest for part in parts for digest in fingerprints(part.inputs)) for name, parts in sets.items()}
    found = []
    for name, parts in sets.items():
        count = sum(part.samples for part in parts)
        constant, repeated = sum(constant_samples(part.inputs) for part in parts), copies(digests[name])
        if constant >= _least(count):
            found.append(
                f"{constant} of {count} {name} samples hold one value throughout each input, so that they say nothing about "
                "the model's ranges: look at how they were loaded, and remove those that are empty"
            )
        if repeated - constant >= _least(count):  # constant samples are copies of each other often enough
            found.append(
                f"{repeated} of {count} {name} samples are copies of others, byte for byte, so that fewer samples are measured "
                "on than it seems: remove the copies"
            )
    if not is_held_out:
        both = shared(digests["validation"], digests["calibration"])
        if both >= _least(validation.samples):
            found.append(
                f"{both} of {validation.samples} validation samples are calibration samples too, so that the accuracy is measured on what "
                "ranges were fitted to: give validation samples that are not in the calibration set"
            )
    for name, parts in sets.items():
        has_samples_first = all(axis == 0 for axis in parts[0].axes.values())  # and so channels second
        seen = first_statistics(model, parts[0].inputs, batch) if has_samples_first else None
        if seen is not None and seen.is_far:
            found.append(
                f"{name} samples: the input of BatchNormalization '{seen.node}' has {seen.spread:.3g} times the spread that it had in "
                f"training, and its mean lies {seen.mean:.3g} standard deviations off: prepare the samples as for training (pixels "
                "scaled and normalized, channels in the same order)"
            )
    return tuple(found)


def reading_notes(scorer: Scorer, reference: Sequence[Array], inputs: Mapping[str, Array]) -> tuple[str, ...]:
    """Return what the metric takes outputs for, where a user may mean something else.

    Args:
        scorer: The job's metric.
        reference: The compared outputs, each (samples, ...).
        inputs: Of the same samples, each (samples, ...), where these may take positions out of the sequence.
    """
    found = [] if (reading := scorer.reading(reference)) is None else [reading]
    for index in scorer.scored if scorer.metric.reads_classes and scorer.judged else ():
        if (words := reading_of_classes(scorer.judged[index], reference[index])) is not None:
            found.append(f"the metric {scorer.metric} takes '{scorer.names[index]}' for {words}")
        if counted_of(inputs, reference[index]) is not None:
            found.append(
                f"the metric {scorer.metric} counts the positions of '{scorer.names[index]}' too that an input takes out, such as padding: "
                "the metric fidelity leaves them out"
            )
    return tuple(found)


def answer_warnings(scorer: Scorer, reference: Sequence[Array]) -> tuple[str, ...]:
    """Return what there is to say of the float model's own answers, where an engine could hardly give others.

    Args:
        scorer: The job's metric.
        reference: The compared outputs, each (samples, ...).
    """
    found = []
    for index in scorer.scored:
        output, name = reference[index], scorer.names[index]
        if scorer.judged and (rows := scorer.judged[index].together) is not None and name not in rows.names[:2]:
            continue  # of detections all may be of one class, and of one number
        if len(output) > 1 and bool((output == output[:1]).all()):
            found.append(f"output '{name}' is the same for all {len(output)} validation samples: check what is fed to the model")
        elif scorer.metric is Metric.DECISIONS:
            at = threshold_for(output, scorer.options.threshold)
            if len(np.unique(output >= np.asarray(at))) == 1:
                found.append(
                    f"every score of the float model lies on one side of {at:g} (output '{name}'), so that decisions say little of an "
                    "engine: give samples that are decided either way"
                )
        elif output.dtype.kind == "f" and (scorer.metric.compares_classes or _is_read_as_classes(scorer, index)):
            known = by_class(classes_last(scorer.judged[index], output) if scorer.judged else output)
            classes = np.unique(known.argmax(axis=-1))
            if len(classes) == 1:
                also = ", so that the change of the probabilities is judged too" if scorer.metric.spec.is_by_kind else ""
                found.append(
                    f"the float model gives all {len(output)} validation samples class {classes[0]} (output '{name}'): agreement "
                    f"says little of an engine{also}; give samples of every class"
                )
    return tuple(found)


def _is_read_as_classes(scorer: Scorer, index: int) -> bool:
    return scorer.metric.spec.is_by_kind and scorer.judged[index].kinds[0] in CLASSES


def label_warnings(
    scorer: Scorer,
    scores: Scores,
    reference: Sequence[Array],
    samples: CalibrationSet,
    rerun: Rerun,
    *,
    allow_chance: bool,
    sample_seconds: float,
    known: Sequence[str],
) -> tuple[str, ...]:
    """Return the warnings about labels, by rules 1 to 3.

    Args:
        scorer: The job's metric.
        scores: The float model's own, (samples,).
        reference: Its compared outputs, each (samples, ...).
        samples: The validation set.
        rerun: Runs the float model on the same samples, prepared in another way.
        allow_chance: Warn instead of refusing.
        sample_seconds: One forward pass of one sample.
        known: The other warnings, of which a refusal speaks too.

    Raises:
        InvalidCalibrationSetError: The float model does not beat chance.
    """
    if scorer.metric is Metric.DECISIONS and samples.labels is not None:
        return _unlikely_decisions(scores, samples.labels)
    if not scorer.metric.needs_labels or samples.labels is None:
        return ()
    output = reference[scorer.scored[0]]
    chance = chance_of(scorer.metric, scores, samples.labels, output, scorer.label_names)
    if chance.beaten:
        return _better_preparation(scorer, samples, rerun, sample_seconds)
    if not chance.decidable and not (len(scores) >= MIN_SAMPLES and not scores.any()):
        return (_undecided(scorer.metric, chance, len(scores)),)
    if chance.decidable and chance.follows_labels:
        return (
            f"the float model's {scorer.metric}, {chance.score:.4f}, is not surely above that of always answering class "
            f"{chance.answer}, {chance.constant:.4f}: a drop says little; give more validation samples, of every class",
        )
    cause = _cause(scorer, output, samples, rerun)
    detail = _detail(scorer.metric, chance, len(scores))
    detail += "" if cause is None else f"; {cause[0]} would give {cause[1]:.4f}"
    if allow_chance:
        return (f"{detail} (accepted, since accuracy.allow_chance is true)",)
    raise InvalidCalibrationSetError(
        "; ".join([detail, *known]),
        fix=(_LIKELY if cause is None else f"Try {cause[0]}.")
        + " If the model really is no better, set accuracy.allow_chance to true, or leave the labels out.",
    )


def _unlikely_decisions(scores: Scores, labels: Array) -> tuple[str, ...]:
    """Return a warning where the float model's decisions are not the labels' more often than always the same answer is."""
    yes = float(labels.mean())
    constant = max(yes, 1.0 - yes)
    if scores.mean() > constant or constant == 1.0:
        return ()
    opposite = 1.0 - float(scores.mean())
    other = f"; the opposite labels would give {opposite:.4f}" if opposite > constant else ""
    return (
        f"the float model decides as the labels in {scores.mean():.4f}, always answering {int(yes >= 0.5)} gives {constant:.4f}{other}"
        ": check that each label belongs to its sample, and that 1 is what a high score means",
    )


def _cause(scorer: Scorer, output: Array, samples: CalibrationSet, rerun: Rerun) -> tuple[str, float] | None:
    """Return what would make the labels or the samples fit, and the score that it would give."""
    assert samples.labels is not None
    labelled = fitting_labels(scorer.metric, samples.labels, output, partial(_rescored, scorer), scorer.label_names)
    prepared = _best_preparation(scorer, _evenly(samples, _most_prepared(samples)), rerun)
    if labelled is None or (prepared is not None and prepared[1] > labelled[1] * (1.0 + MARGIN)):
        return prepared
    return labelled


def _better_preparation(scorer: Scorer, samples: CalibrationSet, rerun: Rerun, sample_seconds: float) -> tuple[str, ...]:
    """Return a warning where the model is right far more often on the same pictures, prepared in another way."""
    some = _evenly(samples, min(_most_prepared(samples), int(_PREPARED_SECONDS / (_PREPARATIONS * max(sample_seconds, 1e-9)))))
    if some.samples < MIN_SAMPLES:
        return ()
    assert some.labels is not None
    as_given = _rescored(scorer, some.labels, rerun(some)[scorer.scored[0]])
    best = _best_preparation(scorer, some, rerun, as_given)
    if best is None:
        return ()
    return (
        f"validation samples: the float model's {scorer.metric} on {some.samples} of them is {as_given.mean():.4f}; {best[0]} would give "
        f"{best[1]:.4f}: prepare the samples as for training",
    )


def _best_preparation(scorer: Scorer, some: CalibrationSet, rerun: Rerun, beaten: Scores | None = None) -> tuple[str, float] | None:
    """Return the preparation with the best score, and that, of those that surely beat ``beaten``, the best constant answer by default."""
    assert some.labels is not None
    best: tuple[str, float] | None = None
    for words, inputs in other_preparations(some.inputs):
        try:
            output = rerun(replace(some, inputs=inputs))[scorer.scored[0]]
        except InputError:  # the model fails on such values, or makes none that are finite
            continue
        found = _rescored(scorer, some.labels, output)
        limit = chance_of(scorer.metric, found, some.labels, output, scorer.label_names).constant if beaten is None else beaten
        if beats(found - limit, SURE_STANDARD_ERRORS) and (best is None or found.mean() > best[1]):
            best = (words, float(found.mean()))
    return best


def _rescored(scorer: Scorer, labels: Array, output: Array) -> Scores:
    return score(scorer.metric, [output], [output], labels, label_names=scorer.label_names)


def _most_prepared(samples: CalibrationSet) -> int:
    sample_bytes = sum(int(array[0].nbytes) for array in samples.inputs.values())
    return min(_PREPARED_SAMPLES, max(_PREPARED_BYTES // max(sample_bytes, 1), 1))


def _evenly(samples: CalibrationSet, count: int) -> CalibrationSet:
    return samples.take(np.unique(np.linspace(0, samples.samples - 1, min(count, samples.samples)).astype(np.int64)))


def _detail(metric: Metric, chance: Chance, count: int) -> str:
    if not chance.decidable:
        return f"labels: the float model scores {metric} 0 on all {count} validation samples, so that no engine could be worse"
    top = metric.spec.top or 1
    what = f"class {chance.answer}" if top == 1 else f"the {'five' if top == 5 else top} most frequent classes"
    return (
        f"labels: the float model's {metric} on {count} validation samples is {chance.score:.4f}; always answering {what} gives "
        f"{chance.constant:.4f}; more than {chance.constant + STANDARD_ERRORS * chance.error:.4f}, three standard errors above, is expected"
    )


def _undecided(metric: Metric, chance: Chance, count: int) -> str:
    if chance.constant == 1.0:
        return (
            f"all {count} validation samples have labels that one constant answer fits (class {chance.answer}), so that {metric} cannot "
            "tell a sound engine from one that always answers it: give validation samples of every class"
        )
    return (
        f"{count} validation samples are too few to tell the float model's {metric}, {chance.score:.4f}, from the {chance.constant:.4f} "
        f"of always answering class {chance.answer}: give more of them"
    )


def _least(count: int) -> int:
    return max(1, int(np.ceil(count * LEAST_SHARE)))
