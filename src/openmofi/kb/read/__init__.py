"""First half of a build: sources -> part files of entities and names, in many processes."""
