"""Hidden files, which are not input anywhere.

Their name or folder begins with a dot, or is __MACOSX, where macOS keeps what its own disks know of
files.
"""

_FOREIGN = "__MACOSX"


def is_hidden(name: str) -> bool:
    """Says whether a path, relative to what the user named, leads to or through a hidden name."""
    return any(_is_hidden(part) for part in name.split("/"))


def _is_hidden(part: str) -> bool:
    return part == _FOREIGN or (part[:1] == "." and part not in (".", ".."))
