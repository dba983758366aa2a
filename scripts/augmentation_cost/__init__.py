"""Helpers of benchmark_augmentation.py and benchmark_data.py."""
