"""Which low precisions are worth an engine, before any is built."""
