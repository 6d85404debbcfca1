"""Where the files of a job lie."""
