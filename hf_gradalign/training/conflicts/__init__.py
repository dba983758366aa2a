"""The conflict record: what each update's gradients were like, as a file, as arrays and as figures."""
