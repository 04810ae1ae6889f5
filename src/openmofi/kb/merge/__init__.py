"""Second half of a build: part files -> sorted tables and arrays, in flat memory."""
