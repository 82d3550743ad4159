"""Measuring forecasts against exact futures."""
