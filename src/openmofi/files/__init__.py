"""The ground floor of files: compressed, remote and hidden ones, and folders that appear whole."""
