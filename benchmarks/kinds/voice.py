"""A detector of events in sound that takes one frame at a time and keeps a state: the next call takes the state that the last one gave.

The recurrent layer is a reservoir with gates: its weights are random, the score that reads it is fitted (Jaeger, "The echo state approach",
2001).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.kinds.case import Case, Data, Outputs, Quality, Samples
from benchmarks.kinds.measures import decisions_kept
from benchmarks.kinds.network_builder import Network, NetworkBuilder, Shapes
from benchmarks.kinds.training import Layer, logistic

Floats = NDArray[np.float32]
Run = Callable[[Samples], Outputs]

BANDS, STATE = 40, 256

_STEPS = 200
_COUNTS = (48, 16, 32, 64)  # recordings to train on, to calibrate on, to validate on, and unseen
_SINGLE_STEPS = 400  # of the calibration recordings


@dataclass(frozen=True, slots=True)
class _Recordings:
    frames: Floats  # (recordings, steps, bands)
    events: NDArray[np.bool_]  # (recordings, steps)


def single_steps(seed: int = 7) -> Case:
    """Return the network of one step, (frame, state) to (probability, next state); samples are single steps of float runs."""
    model, recordings = _fitted(seed)
    float_run = Network(model.SerializeToString()).run

    def steps(one: _Recordings, count: int) -> Samples:
        states = _closed_loop(float_run, one.frames)["state_out"][:, :-1].reshape(-1, STATE)
        frames = one.frames[:, 1:].reshape(-1, BANDS)
        chosen = np.random.default_rng((seed, 2)).permutation(len(frames))[:count]
        return {"frame": frames[chosen], "state": states[chosen]}

    calibration, validation, unseen = recordings
    data = Data(steps(calibration, _SINGLE_STEPS), steps(validation, 4 * _SINGLE_STEPS), {"frame": unseen.frames})
    return _case("voice detector, single steps", model, data, unseen)


def sequences(seed: int = 7) -> Case:
    """Return the same network with whole recordings as samples, (recordings, steps, bands), the state left out."""
    model, (calibration, validation, unseen) = _fitted(seed)
    return _case("voice detector, sequences", model, Data(*({"frame": one.frames} for one in (calibration, validation, unseen))), unseen)


def _fitted(seed: int) -> tuple[onnx.ModelProto, tuple[_Recordings, _Recordings, _Recordings]]:
    rng = np.random.default_rng(seed)
    template = np.exp(-0.5 * ((np.arange(BANDS)[None] - np.asarray([[6], [13], [20], [27]])) / 1.5) ** 2).sum(axis=0)
    training, calibration, validation, unseen = (_recordings(rng, count, template) for count in _COUNTS)
    blind = _model((np.zeros((STATE, 1), np.float32), np.zeros(1, np.float32)), seed)
    states = _closed_loop(Network(blind.SerializeToString()).run, training.frames)["state_out"]
    head = logistic(states.reshape(-1, STATE), training.events.reshape(-1, 1).astype(np.float32))
    return _model(head, seed), (calibration, validation, unseen)


def _case(name: str, model: onnx.ModelProto, data: Data, unseen: _Recordings) -> Case:
    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found, sure = (one["probability"].reshape(-1, 1).astype(np.float32) for one in (outputs, reference))
        return Quality(decisions_kept(found, sure), decisions_kept(found, unseen.events.reshape(-1, 1).astype(np.float32)))

    return Case(
        name,
        model,
        data,
        measure,
        "decisions kept in closed loop",
        32,
        drive=lambda run: _closed_loop(run, unseen.frames),
        call={"frame": unseen.frames[:, 0], "state": np.zeros((len(unseen.frames), STATE), np.float32)},
    )


def _closed_loop(run: Run, frames: Floats) -> dict[str, Floats]:
    """Return both outputs of every step, (recordings, steps, ...), the network's own state handed on."""
    state, found = np.zeros((len(frames), STATE), np.float32), []
    for step in range(frames.shape[1]):
        outputs = run({"frame": np.ascontiguousarray(frames[:, step]), "state": state})
        state = np.asarray(outputs["state_out"], dtype=np.float32)
        found.append((np.asarray(outputs["probability"], dtype=np.float32), state))
    return {name: np.stack([one[index] for one in found], axis=1) for index, name in enumerate(("probability", "state_out"))}


def _recordings(rng: np.random.Generator, count: int, template: NDArray[np.float64]) -> _Recordings:
    """Return noise in which an event, of changing loudness, begins at 3% of the steps and lasts 15 steps on average."""
    events = np.zeros((count, _STEPS), dtype=bool)
    frames = rng.normal(0, 1, size=(count, _STEPS, BANDS)) * rng.uniform(0.6, 1.4, size=(count, 1, 1))
    for index in range(count):
        is_on, loudness = False, 0.0
        for step in range(_STEPS):
            if rng.random() < (1 / 15 if is_on else 0.03):
                is_on, loudness = not is_on, float(rng.uniform(0.5, 1.5))
            events[index, step] = is_on
            if is_on:
                frames[index, step] += loudness * template * rng.uniform(0.5, 1.5)
    return _Recordings(frames.astype(np.float32), events)


def _model(head: Layer, seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng((seed, 1))
    builder = NetworkBuilder()
    encoded = builder.node("Relu", builder.dense("frame", *_random(rng, BANDS, STATE)))
    both = builder.node("Concat", encoded, "state", axis=1)
    wanted = builder.node("Tanh", builder.dense(both, *_random(rng, 2 * STATE, STATE)))
    gate = builder.node("Sigmoid", builder.dense(both, *_random(rng, 2 * STATE, STATE, offset=-1.0)))
    change = builder.node("Mul", gate, builder.node("Sub", wanted, "state"))
    state = builder.node("Add", "state", change, to="state_out")
    builder.node("Sigmoid", builder.dense(state, *head), to="probability")
    inputs: Shapes = {"frame": ["N", BANDS], "state": ["N", STATE]}
    return builder.model(inputs, {"probability": ["N", 1], "state_out": ["N", STATE]})


def _random(rng: np.random.Generator, inputs: int, outputs: int, *, offset: float = 0.0) -> Layer:
    weight = rng.standard_normal((inputs, outputs)) * 0.9 / np.sqrt(inputs)
    return weight.astype(np.float32), (0.1 * rng.standard_normal(outputs) + offset).astype(np.float32)
