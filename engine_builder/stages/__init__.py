"""The stages of a job, each run in a process of its own."""
