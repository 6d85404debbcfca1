"""The frontier's descent, and which of its steps are worth a look."""
