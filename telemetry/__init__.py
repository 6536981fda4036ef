"""Logs and traces, for all processes."""
