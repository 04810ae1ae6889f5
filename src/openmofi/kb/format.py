"""What meta.json says a folder is, for those who write and those who read it."""

FORMAT = "openmofi-kb"
FORMAT_VERSION = 3
