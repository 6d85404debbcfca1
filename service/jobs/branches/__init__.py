"""Jobs for several types of GPU: a branch for each, run as a job of its own."""
