"""Finding instances in RGB-D frames."""
