"""Latencies of mixed engines, predicted and measured."""
