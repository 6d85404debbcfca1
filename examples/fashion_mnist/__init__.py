"""Two small image classifiers and the pictures to optimize them with."""
