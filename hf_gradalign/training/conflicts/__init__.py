"""The conflict record: statistics of each update's gradients as a file, as arrays and as figures."""
