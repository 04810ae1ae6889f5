"""Stage 8, embed: images -> unit vectors, shard by shard or in one file."""

from openmofi.embed.embed import EmbedSummary, embed
from openmofi.embed.encode import encode_places
from openmofi.embed.places import Places, find_places

__all__ = ["EmbedSummary", "Places", "embed", "encode_places", "find_places"]
