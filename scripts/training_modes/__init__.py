"""The trainings that `check_modes.py` compares."""
