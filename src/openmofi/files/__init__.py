"""The ground floor of files: compressed or remote, lines, tables, folders that appear whole."""
