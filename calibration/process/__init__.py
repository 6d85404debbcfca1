"""The process that measures: its threads, its memory, its imports."""
