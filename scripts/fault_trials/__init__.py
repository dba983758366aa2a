"""What `fault_run.py` does to the commands, and how it judges what comes of it."""
