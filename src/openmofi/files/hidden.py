"""Hidden files, which are never input.

Their name, or that of a folder above them, begins with a dot or is __MACOSX, the folder of macOS's
own metadata in archives.
"""

_FOREIGN = "__MACOSX"


def is_hidden(name: str) -> bool:
    """Returns whether a path, relative to what the user named, has a hidden part."""
    return any(
        part == _FOREIGN or (part[:1] == "." and part not in (".", ".."))
        for part in name.split("/")
    )
