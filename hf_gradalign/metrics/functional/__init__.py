"""Metrics as functions of scores and labels, one file per metric."""
