"""URLs -> hosts, which say where images come from."""

from __future__ import annotations

import pyarrow as pa

_HOST = r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:\[\]]+)"
"""The host of a URL, after a user name and before a port: RFC 3986, section 3.2."""


def hosts_or_shards(url: pa.Array, shard: pa.Array) -> pa.Array:
    """Returns the source of each image: the host of its URL in lower case, or else its shard."""
    import pyarrow.compute as pc

    host = pc.utf8_lower(pc.struct_field(pc.extract_regex(url, _HOST), "host"))
    return pc.coalesce(host, shard)
