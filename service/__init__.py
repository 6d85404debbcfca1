"""Serves: HTTP API, durable jobs, artifacts, client and command line."""

__version__ = "0.1.0"
