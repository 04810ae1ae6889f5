"""Files, which depend on no other package: compressed, remote, lines, tables, atomic folders."""
