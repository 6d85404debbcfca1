"""What ``report.json`` holds, as values."""
