"""What can be told of a model before a job, for people."""
