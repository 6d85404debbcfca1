"""Which outputs of a model are a state: what the next step takes as an input.

A pair has one type and one shape, as far as both are declared, and is found by

1. the user's word: ``state: {output: input}``;
2. its names, without the words and marks that only tell the two ends apart: ``h0`` and ``hn``, ``state`` and ``stateN``, ``cache_in_3`` and
   ``cache_out_3``, ``past.0.key`` and ``present.0.key``. One of the names must speak of a state, or the input be one that the samples leave
   out: an image that goes in and one that comes out are called alike too;
3. its type and shape alone, where the samples leave the input out and no other output, and no other input left out, has these.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from calibration.errors import InvalidConfigError
from calibration.onnx_model.model_io import TensorSpec

States = dict[str, str]  # an output -> the input that takes it in the next step

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# words that tell the two ends of a pair apart, and words of which one makes a name that of a state
_ENDS = frozenset(
    {"in", "out", "input", "output", "new", "next", "prev", "previous", "last", "past", "present", "old", "updated", "cur", "current"}
    | {"init", "initial", "r", "n", "t", "i", "o"}
)
_STATE_WORDS = frozenset(
    {"state", "states", "cache", "caches", "cached", "hidden", "cell", "memory", "mem", "buffer", "buf", "context", "ctx", "past"}
    | {"present", "gru", "lstm", "rnn"}
)
_CELLS = frozenset(("h", "c"))  # a recurrent cell's: a name of its own, beside marks of the two ends
_JOINED = re.compile(r"(h|c|s|state|states|hidden|cell|cache)(in|out|n|t|new|next|prev|0)")


def states_of(given: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> States:
    """Return the pairs of a model whose samples leave nothing out: those that the user names, else those found by rule 2.

    Raises:
        InvalidConfigError: As for ``given_states``.
    """
    return given_states(given, inputs, outputs) or named_states(inputs, outputs)


def given_states(given: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> States:
    """Return the pairs that the user names, by rule 1.

    Args:
        given: The input that takes each output in the next step.
        inputs: Of the model.
        outputs: Of the model.

    Raises:
        InvalidConfigError: A name is unknown or used twice, or the shapes or types of a pair differ.
    """
    known_inputs, known_outputs = ({spec.name: spec for spec in specs} for specs in (inputs, outputs))
    for output, taken in given.items():
        _check_known(output, known_outputs, "output")
        _check_known(taken, known_inputs, "input")
        one, other = known_outputs[output], known_inputs[taken]
        if not _is_same_form(one, other):
            raise InvalidConfigError(
                f"state: found output '{output}' of {_form(one)} for input '{taken}' of {_form(other)}, expected the same type and shape",
                fix="Name the output that holds what the next step takes. A cache that grows from step to step needs an open size.",
            )
    twice = sorted({taken for taken in given.values() if list(given.values()).count(taken) > 1})
    if twice:
        raise InvalidConfigError(
            f"state: found the input '{twice[0]}' for several outputs, expected one", fix="Name each input of the state once."
        )
    return dict(given)


def named_states(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], left_out: Collection[str] = ()) -> States:
    """Return the pairs that are found by rule 2.

    Args:
        inputs: Of the model.
        outputs: Of the model.
        left_out: Inputs that the samples leave out, which need not be called a state.
    """
    found: States = {}
    for taken in inputs:
        key = _key(taken.name)
        fitting = [
            one.name
            for one in outputs
            if key is not None
            and one.name not in found
            and _key(one.name) == key
            and _is_same_form(one, taken)
            and (taken.name in left_out or _speaks_of_state(taken.name) or _speaks_of_state(one.name))
        ]
        if len(fitting) == 1:
            found[fitting[0]] = taken.name
    return found


def states_left_out(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], left_out: Collection[str]) -> States:
    """Return the pairs for inputs that the samples leave out, by rules 2 and 3; those without one are not among them."""
    found = {output: taken for output, taken in named_states(inputs, outputs, left_out).items() if taken in left_out}
    open_inputs = [spec for spec in inputs if spec.name in left_out and spec.name not in found.values()]
    open_outputs = [spec for spec in outputs if spec.name not in found]
    for taken in open_inputs:
        fitting = [one for one in open_outputs if _is_same_form(one, taken)]
        if len(fitting) == 1 and sum(_is_same_form(fitting[0], other) for other in open_inputs) == 1:
            found[fitting[0].name] = taken.name
    return found


def _check_known(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise InvalidConfigError(
            f"state: found '{name}', expected one of the model's {what}s: {', '.join(repr(one) for one in names)}",
            fix=f"Did you mean '{near[0]}'?" if near else "Write state: {output: input}, with names of the model's outputs and inputs.",
        )


def _is_same_form(output: TensorSpec, taken: TensorSpec) -> bool:
    """Return whether two tensors have the same type and may have the same shape; sizes that are no numbers may be anything."""
    if output.dtype != taken.dtype:
        return False
    if not (output.has_rank and taken.has_rank):
        return True
    if len(output.shape) != len(taken.shape):
        return False
    sizes = zip(output.shape, taken.shape, strict=True)
    return all(not (isinstance(one, int) and isinstance(other, int)) or one == other for one, other in sizes)


def _form(spec: TensorSpec) -> str:
    shape = ", ".join("any" if dim is None else str(dim) for dim in spec.shape) if spec.has_rank else "any shape"
    return f"{spec.dtype} ({shape})"


def _words(name: str) -> list[str]:
    found = []
    for word in _WORDS.findall(name):
        joined = _JOINED.fullmatch(word.lower())
        found += [joined.group(1), joined.group(2)] if joined else [word.lower()]
    return found


def _key(name: str) -> tuple[str, ...] | None:
    """Return what the names of both ends have in common; None where nothing is left of one."""
    words = _words(name)
    if words[:3] == ["past", "key", "values"]:  # past_key_values.0.key and present.0.key
        words = words[3:]
    if len(words) == 2 and words[1] == "0" and words[0] in _CELLS:  # h0 and hn
        words = words[:1]
    kept = tuple(word for word in words if word not in _ENDS)
    return kept or (("",) if set(words) & _STATE_WORDS else None)


def _speaks_of_state(name: str) -> bool:
    words = {word for word in _words(name) if word.isalpha()}
    return bool(words & _STATE_WORDS) or bool(words & _CELLS and words - _ENDS <= _CELLS)
