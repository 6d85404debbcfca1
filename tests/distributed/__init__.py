"""Real processes on one real Postgres: they share the work, and outlast each other."""
