"""People look at labels: corrections, what they would change, and audits."""
