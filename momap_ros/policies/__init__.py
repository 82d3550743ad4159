"""Forecasts as policies, planners and controllers take them."""
