"""Utilities that any package may import: files, messages, lazy imports, waits for the Hub."""
