"""What is told of a job while it runs: events, estimates, rows of lists."""
