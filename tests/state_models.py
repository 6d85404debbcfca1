"""Small models with a state, one step a call, and sequences for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from tests.model_text import Array, model_from_text

HIDDEN = 32


def gru_detector() -> onnx.ModelProto:
    """A gated recurrent cell and a score in 0..1: x, state -> score, stateN."""
    return model_from_text(
        f"""speech (float[N,16] x, float[N,{HIDDEN}] state) => (float[N,1] score, float[N,{HIDDEN}] stateN)
{{
  both = Concat <axis = 1> (x, state)
  gate_in = Gemm (both, wz)
  gate = Sigmoid (gate_in)
  new_in = Gemm (both, wn)
  new = Tanh (new_in)
  change = Sub (new, state)
  step = Mul (gate, change)
  stateN = Add (state, step)
  wide = Gemm (stateN, w1)
  active = Relu (wide)
  raw = Gemm (active, w2)
  score = Sigmoid (raw)
}}""",
        {"wz": (16 + HIDDEN, HIDDEN), "wn": (16 + HIDDEN, HIDDEN), "w1": (HIDDEN, HIDDEN), "w2": (HIDDEN, 1)},
    )


def lstm_step() -> onnx.ModelProto:
    """A step of an LSTM whose state counts samples on its second axis: x, h0, c0 -> logits, hn, cn."""
    model = model_from_text(
        f"""step (float[batch,16] x, float[1,batch,{HIDDEN}] h0, float[1,batch,{HIDDEN}] c0)
 => (float[batch,5] logits, float[1,batch,{HIDDEN}] hn, float[1,batch,{HIDDEN}] cn)
{{
  front = Gemm (x, wx)
  steps = Unsqueeze (front, first)
  all, hn, cn = LSTM <hidden_size = {HIDDEN}> (steps, w, r, , , h0, c0)
  last = Squeeze (hn, first)
  wide = Gemm (last, w1)
  active = Relu (wide)
  logits = Gemm (active, w2)
}}""",
        {"wx": (16, 16), "w": (1, 4 * HIDDEN, 16), "r": (1, 4 * HIDDEN, HIDDEN), "w1": (HIDDEN, HIDDEN), "w2": (HIDDEN, 5)},
    )
    return _with_integers(model, first=[0])


def conv_stream() -> onnx.ModelProto:
    """A causal convolution over frames that keeps the last ones, batch fixed to 1: frames, cache_in -> enhanced, cache_out."""
    model = model_from_text(
        """stream (float[1,8,4] frames, float[1,8,2] cache_in) => (float[1,8,4] enhanced, float[1,8,2] cache_out)
{
  all = Concat <axis = 2> (cache_in, frames)
  wide = Conv (all, w1)
  active = Relu (wide)
  enhanced = Conv (active, w2)
  cache_out = Slice (all, begin, end, axes)
}""",
        {"w1": (16, 8, 3), "w2": (8, 16, 1)},
    )
    return _with_integers(model, begin=[-2], end=[1000], axes=[2])


def speech_detector() -> onnx.ModelProto:
    """A detector as they are published: a sample rate chooses a branch, sizes are unknown. input, state, sr -> output, stateN."""
    model = model_from_text(
        """speech (float[?,?] input, float[2,?,32] state, int64 sr) => (float[?,?] output, float[?,?,?] stateN)
{
  is16 = Equal (sr, rate)
  output, stateN = If (is16) <
    then_branch = fast () => (float[?,?] y1, float[?,?,?] s1) {
      wide = MatMul (input, w0)
      active = Relu (wide)
      h, c = Split <axis = 0> (state, halves)
      one = Unsqueeze (active, first)
      all, hn, cn = LSTM <hidden_size = 32> (one, w, r, , , h, c)
      s1 = Concat <axis = 0> (hn, cn)
      last = Squeeze (hn, first)
      raw = MatMul (last, w1)
      y1 = Sigmoid (raw)
    },
    else_branch = slow () => (float[?,?] y2, float[?,?,?] s2) { raw2 = MatMul (input, w2) y2 = Sigmoid (raw2) s2 = Identity (state) }
  >
}""",
        {"w0": (64, 32), "w": (1, 128, 32), "r": (1, 128, 32), "w1": (32, 1), "w2": (64, 1)},
    )
    return _with_integers(model, rate=16000, halves=[1, 1], first=[0])


def baked_batch() -> onnx.ModelProto:
    """A cell whose batch is declared open, but is 4: x, h -> logits, h_out."""
    model = model_from_text(
        """cell (float[N,16] x, float[N,32] h) => (float[N,5] logits, float[N,32] h_out)
{
  four = Reshape (x, shape)
  both = Concat <axis = 1> (four, h)
  raw = Gemm (both, w1)
  h_out = Tanh (raw)
  logits = Gemm (h_out, w2)
}""",
        {"w1": (48, 32), "w2": (32, 5)},
    )
    return _with_integers(model, shape=[4, 16])


def slow_integrator() -> onnx.ModelProto:
    """A sum over all steps so far: what a step adds wrongly stays. x, memory -> total, memory_out."""
    return model_from_text(
        """sum (float[N,16] x, float[N,8] memory) => (float[N,8] total, float[N,8] memory_out)
{
  wide = Gemm (x, w1)
  active = Relu (wide)
  taken = Gemm (active, w2)
  memory_out = Sub (memory, taken)
  total = Identity (memory_out)
}""",
        {"w1": (16, 32), "w2": (32, 8)},
    )


def walks(sequences: int, steps: int, *sizes: int, seed: int = 0) -> Array:
    """Return sequences that change slowly from step to step, (sequences, steps, *sizes), float32."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(sequences, steps, *sizes))
    walk = np.cumsum(noise, axis=1) * 0.3 + rng.normal(size=(sequences, 1, *sizes))
    return np.tanh(walk).astype(np.float32) * 2.0


def single_steps(
    model: onnx.ModelProto, inputs: Mapping[str, Array], states: Mapping[str, str], starts: Mapping[str, Array]
) -> dict[str, Array]:
    """Return every step of some sequences as a single sample with the state that came to it, run one by one as a user would.

    Args:
        model: One sample a call, counted on the first axis.
        inputs: (sequences, steps, *one step*), by name.
        states: An output -> the input that takes it in the next step.
        starts: The first state of each input, (1, *state*).
    """
    runner = session(model.SerializeToString())
    names = [value.name for value in model.graph.output]
    found: dict[str, list[Array]] = {name: [] for name in (*inputs, *starts)}
    count, steps = next(iter(inputs.values())).shape[:2]
    for sequence in range(count):
        held = dict(starts)
        for step in range(steps):
            feeds = {name: array[sequence, step][None] for name, array in inputs.items()} | held
            outputs = runner.run(None, feeds)
            for name, array in feeds.items():
                found[name].append(array[0])
            held = {taken: outputs[names.index(output)] for output, taken in states.items()}
    return {name: np.stack(arrays) for name, arrays in found.items()}


def closed_loop_outputs(
    model: Path | bytes, inputs: Mapping[str, Array], states: Mapping[str, str], starts: Mapping[str, Array]
) -> list[Array]:
    """Return the outputs of one sequence, each (steps, ...), run in plain onnxruntime as a user would.

    Args:
        model: The model or an engine, one sample a call.
        inputs: (steps, *what a call takes*), by name.
        states: As for ``single_steps``.
        starts: The first state of each input, as a call takes it.
    """
    runner = session(model)
    names = [value.name for value in runner.get_outputs()]
    held, found = dict(starts), []
    for step in range(len(next(iter(inputs.values())))):
        outputs = runner.run(None, {name: array[step] for name, array in inputs.items()} | held)
        held = {taken: outputs[names.index(output)] for output, taken in states.items()}
        found.append(outputs)
    return [np.stack(parts) for parts in zip(*found, strict=True)]


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Return a plain session."""
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"])


def _with_integers(model: onnx.ModelProto, **integers: int | list[int]) -> onnx.ModelProto:
    for name, value in integers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, dtype=np.int64), name))
    return model
