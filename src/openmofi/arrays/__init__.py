"""The ground floor of arrays: compiled functions, string buffers, hashes and random keys."""
