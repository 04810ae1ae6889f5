"""Corrections of labels: what to ask, what answers would change, and the change."""
