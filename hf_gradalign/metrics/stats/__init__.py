"""Uncertainty of metrics: bootstrap intervals, comparisons of systems, breakdowns by a column."""
