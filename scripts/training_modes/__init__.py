"""What `check_modes.py` compares."""
