"""Utilities that any package may import: files, locks, messages, lazy imports, timeouts for the Hub."""
