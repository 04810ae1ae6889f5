"""The ground floor of files: compressed, remote, hidden; lines, tables, folders that appear whole."""
