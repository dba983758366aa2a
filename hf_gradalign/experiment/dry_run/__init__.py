"""The dry run: what can be wrong with a run, and what it will take, in a minute."""
