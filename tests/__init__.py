"""Tests, mirroring the source folders; run with `make test`."""
