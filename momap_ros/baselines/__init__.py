"""Trained baselines: the methods the paper compares with, on the small model's data and with its budget."""
