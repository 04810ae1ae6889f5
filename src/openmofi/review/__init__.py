"""People look at what was selected."""
