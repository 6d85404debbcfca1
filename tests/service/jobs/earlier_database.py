"""A database as the version before there were tenants wrote it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE jobs (
    sequence INTEGER NOT NULL PRIMARY KEY, id VARCHAR(64) NOT NULL UNIQUE, state VARCHAR(16) NOT NULL, stage VARCHAR(32),
    progress FLOAT NOT NULL, created_at FLOAT NOT NULL, started_at FLOAT, finished_at FLOAT, target VARCHAR(64) NOT NULL,
    config JSON NOT NULL, inputs JSON NOT NULL, idempotency_key VARCHAR(255) UNIQUE, request_sha256 VARCHAR(64) NOT NULL, outputs JSON,
    trials JSON NOT NULL, trial_count INTEGER NOT NULL, best INTEGER, result JSON, error JSON, engine VARCHAR(255), artifacts JSON NOT NULL
);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE TABLE removed_jobs (id VARCHAR(64) NOT NULL PRIMARY KEY, at FLOAT NOT NULL, why VARCHAR(255) NOT NULL);
CREATE TABLE job_files (sha256 VARCHAR(64) NOT NULL, job_id VARCHAR(64) NOT NULL, PRIMARY KEY (sha256, job_id));
INSERT INTO removed_jobs VALUES ('gone', 0.0, 'it was deleted');
"""
SHA256 = "a" * 64


def write_earlier_database(path: Path) -> None:
    """Write one finished job, ``old``, that an idempotency key made and that left one file, and one removed job, ``gone``."""
    artifacts = f'{{"engine.onnx": {{"sha256": "{SHA256}", "size_bytes": 7}}}}'
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.execute(
            "INSERT INTO jobs (id, state, progress, created_at, target, config, inputs, idempotency_key, request_sha256, trials,"
            " trial_count, artifacts) VALUES ('old', 'succeeded', 1.0, 0.0, 'onnxruntime-cpu', '{}', '{}', 'k', 'r', '[]', 0, ?)",
            (artifacts,),
        )
        connection.execute("INSERT INTO job_files VALUES (?, 'old')", (SHA256,))
