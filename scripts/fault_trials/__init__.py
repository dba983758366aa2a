"""The trials of `fault_run.py`: faults, the commands they are tried on, and how outcomes are judged."""
