"""The format that meta.json states, for the code that writes and the code that reads it."""

FORMAT = "openmofi-kb"
FORMAT_VERSION = 4
