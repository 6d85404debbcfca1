"""The database of jobs, and what processes that share it know of each other."""
