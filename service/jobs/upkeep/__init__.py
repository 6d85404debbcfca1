"""What a server does beside its jobs: it removes, collects and tells others."""
