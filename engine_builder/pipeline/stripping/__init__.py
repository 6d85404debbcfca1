"""Which plan ships: the whole one, or one without its weights."""
