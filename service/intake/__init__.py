"""Intake: what reads an upload, in a limited child process."""
