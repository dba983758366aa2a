"""What benchmark_augmentation.py and benchmark_data.py measure with."""
