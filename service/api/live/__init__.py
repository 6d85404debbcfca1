"""What callers follow while it happens: events, logs, figures."""
