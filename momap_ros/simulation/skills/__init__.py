"""Scripted demonstrations, a few related skills per module."""
