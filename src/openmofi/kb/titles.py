"""Titles of Wikipedia articles -> the names that they stand for."""


def plain_title(title: str) -> str:
    """Returns a title without the final group in brackets that tells it from its namesakes.

    Example:
        >>> plain_title("Washington_(state)")
        'Washington'
        >>> plain_title("Love (and Other Lies) Live")
        'Love (and Other Lies) Live'
    """
    title = title.replace("_", " ").strip()
    if not title.endswith(")"):
        return title
    depth = 0
    for at in range(len(title) - 1, 0, -1):
        depth += (title[at] == ")") - (title[at] == "(")
        if depth == 0:
            is_apart = title[at - 1] == " "
            return (title[:at].rstrip() if is_apart else "") or title
    return title
