"""Measures decoders from outside, in plain onnxruntime, on texts that no job saw: what they answer token by token, and what a token takes.

    python -m benchmarks.decoder.outside FLOAT.onnx ENGINE.onnx TEXTS.npz

Each decoder runs over whole texts with its own cache. Of the engine: how often the likeliest next token is the float model's (agreement),
the mean divergence KL(float || engine) of the distributions in nats, and, where the file has ``labels``, how often either is right (top-1).
Times are CPU time of one thread, of one token behind a cache of half a text, both decoders in turns of twenty calls.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

ROUNDS = 40
CALLS = 20  # of one decoder at a time, as it is served: the first ones bring its weights back into the caches
SETTLED = 5
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Measured:
    """An engine beside the float model."""

    agreement: float  # 0..1
    divergence: float  # nats a token
    ratio: float  # CPU time of a token to the float model's: the median
    right: tuple[float, float] | None  # share of right next tokens of the float model and of the engine; None without labels


class Decoder:
    """A session that takes one token a call and keeps its cache."""

    def __init__(self, path: Path) -> None:
        """Open it on one thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [value.name for value in self._session.get_outputs()]
        inputs = {value.name: value for value in self._session.get_inputs()}
        self._inputs = set(inputs)
        self._pairs = {name: name.replace("past_key_values", "present") for name in inputs if name.startswith("past_key_values")}
        self._empty = {name: np.zeros((1, inputs[name].shape[1], 0, inputs[name].shape[3]), dtype=np.float32) for name in self._pairs}
        self.cache: Mapping[str, NDArray[np.generic]] = self._empty

    def begin(self) -> None:
        """Empty the cache."""
        self.cache = self._empty

    def call(self, token: int) -> Floats:
        """Return the logits behind one more token, (vocabulary,), which is in the cache then."""
        found = self.run(self.feeds(token))
        self.cache = {name: found[self._outputs.index(output)] for name, output in self._pairs.items()}
        return np.asarray(found[self._outputs.index("logits")], dtype=np.float32).reshape(-1)

    def feeds(self, token: int) -> dict[str, NDArray[np.generic]]:
        """Return the inputs for one more token."""
        cached = next(iter(self.cache.values())).shape[2]
        feeds: dict[str, NDArray[np.generic]] = {
            "input_ids": np.array([[token]], dtype=np.int64),
            "attention_mask": np.ones((1, cached + 1), dtype=np.int64),
            "position_ids": np.array([[cached]], dtype=np.int64),
            **self.cache,
        }
        return {name: array for name, array in feeds.items() if name in self._inputs}

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Return all outputs for these inputs; the cache stays as it is."""
        return list(self._session.run(None, dict(feeds)))


def measured(model: Path, engine: Path, texts: NDArray[np.int64], labels: NDArray[np.int64] | None, *, rounds: int = ROUNDS) -> Measured:
    """Return an engine's answers and times beside those of the float model.

    Args:
        model: The float decoder.
        engine: The other one.
        texts: (texts, tokens).
        labels: The next tokens, (texts, tokens).
        rounds: Of CALLS tokens of each.
    """
    decoders = Decoder(model), Decoder(engine)
    floats, answers = (np.stack([_logits(one, text) for text in texts]) for one in decoders)
    for one in decoders:
        one.begin()
        for token in texts[0][: texts.shape[1] // 2]:
            one.call(int(token))
    feeds = [one.feeds(int(texts[0][-1])) for one in decoders]
    taken = np.array([[_seconds(one, given) for one, given in zip(decoders, feeds, strict=True)] for _ in range(rounds)])
    best = floats.argmax(axis=-1), answers.argmax(axis=-1)
    right = None if labels is None else (float((best[0] == labels).mean()), float((best[1] == labels).mean()))
    p, q = (_log_softmax(one) for one in (floats, answers))
    divergence = float((np.exp(p) * (p - q)).sum(axis=-1).mean())
    return Measured(float((best[0] == best[1]).mean()), divergence, float(np.median(taken[:, 1]) / np.median(taken[:, 0])), right)


def _logits(decoder: Decoder, text: NDArray[np.int64]) -> Floats:
    decoder.begin()
    return np.stack([decoder.call(int(token)) for token in text])


def _seconds(decoder: Decoder, feeds: Mapping[str, NDArray[np.generic]]) -> float:
    for _ in range(SETTLED):
        decoder.run(feeds)
    start = time.thread_time()
    for _ in range(CALLS):
        decoder.run(feeds)
    return (time.thread_time() - start) / CALLS


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def main() -> None:
    """Print one line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "engine", "texts"):
        arguments.add_argument(name, type=Path)
    chosen = arguments.parse_args()
    with np.load(chosen.texts) as arrays:
        found = measured(chosen.model, chosen.engine, arrays["input_ids"], arrays.get("labels"))
    right = "" if found.right is None else f", top-1 {found.right[0]:.4f} -> {found.right[1]:.4f}"
    print(f"{found.ratio:.3f} of the float model's time, agreement {found.agreement:.4f}, KL {found.divergence:.2e} nats{right}")


if __name__ == "__main__":
    main()
