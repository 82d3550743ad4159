"""Forecasts compared with what their own camera sees later: no labels, no truth."""
