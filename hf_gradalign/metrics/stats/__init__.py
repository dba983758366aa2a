"""Bootstrap intervals of metrics, comparisons of systems, and breakdowns by a column."""
