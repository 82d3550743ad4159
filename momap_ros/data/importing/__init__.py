"""Recordings that others made, as stored samples; what nobody measured in them is named, never made up."""
