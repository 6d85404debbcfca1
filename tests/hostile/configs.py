"""Configurations that nest, repeat, or claim without end."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.hostile.upload import Upload


def configs() -> Iterator[Upload]:
    cases = {
        "empty-array": "[]",
        "number": "1",
        "null": "null",
        "words": "min_relative: 0.99",
        "cut": '{"accuracy": {"min_rel',
        "deep-arrays": "[" * 500_000,
        "deep-objects": '{"a":' * 150_000,
        "deep-closed": '{"a":' * 50_000 + "1" + "}" * 50_000,
        "deep-short": "[" * 30_000,
        "digits": '{"batch_size": ' + "9" * 900_000 + "}",
        "digits-short": '{"batch_size": ' + "9" * 4000 + "}",
        "exponent": '{"accuracy": {"min_relative": 1e999999}}',
        "fraction": '{"accuracy": {"min_relative": 0.' + "9" * 50_000 + "e5}}",
        "not-a-number": '{"accuracy": {"min_relative": NaN}}',
        "infinity": '{"accuracy": {"min_relative": -Infinity}}',
        "twice": '{"batch_size": 1, "batch_size": 2}',
        "twice-among-many": "{" + ",".join(f'"{index}":1' for index in range(70_000)) + ',"1":2}',
        "unknown-many": json.dumps({f"key-{index}": index for index in range(50_000)}),
        "unknown-long": json.dumps({"k" * 900_000: 1}),
        "unknown-controls": json.dumps({"\x1b[2J\nINFO forged\u202e": 1}),
        "unknown-long-short": json.dumps({"k" * 50_000: 1}),
        "half-a-surrogate": '{"gpu": "\\ud800"}',
        "zero-byte": '{"gpu": "\\u0000"}',
        "raw-control": '{"gpu": "\n"}',
        "wrong-types": '{"accuracy": "high", "batch_size": "many"}',
        "true-for-number": '{"batch_size": true}',
        "negative": '{"batch_size": -1}',
        "huge-batch": '{"batch_size": 1e308}',
        "path-as-target": json.dumps({"target": "../../etc/passwd"}),
        "long-target": json.dumps({"target": "t" * 50_000}),
        "wide-list": json.dumps({"precisions": ["int8"] * 20_000}),
        "not-utf8": "",
        "too-long": " " * (2**20 + 1),
    }
    for name, text in cases.items():
        content = b'{"gpu": "\xff"}' if name == "not-utf8" else text.encode()
        yield Upload(f"config-{name}", "config", lambda content=content: content)  # type: ignore[misc]  # a lambda with a default
