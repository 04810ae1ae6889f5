"""Arrays, which depend on no other package: compiled functions, strings, hashes, random keys."""
