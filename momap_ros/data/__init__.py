"""Stored samples and the data sets made of them."""
