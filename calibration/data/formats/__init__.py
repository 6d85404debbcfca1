"""Formats of samples besides numpy's own files: pictures, test sets, rows of tokens and other tools' files."""
