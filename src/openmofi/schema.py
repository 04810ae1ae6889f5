"""The Arrow schemas of the tables that pass between stages; columns are defined only here.

Flow: ENTITIES + NAMES (kb) -> CANDIDATES (link) -> LABELS (label) -> KEEP + VOCABULARY (select)
-> EMBEDDINGS (embed).
"""

import pyarrow as pa

# kb/entities.parquet; the row number is the entity's popularity rank (0 = most popular).
ENTITIES = pa.schema(
    [
        ("id", pa.string()),  # "Q142", or the user's own
        ("label", pa.string()),
        ("description", pa.string()),
        ("num_aliases", pa.int32()),
        ("sitelinks", pa.int32()),
        ("statements", pa.int32()),
        ("types", pa.list_(pa.string())),  # P31 values, or the catalogue's type column
        ("subclass_of", pa.list_(pa.string())),  # P279 values
        ("image", pa.string()),
        ("enwiki", pa.string()),
        ("prior", pa.float32()),  # unnormalised popularity, > 0
        ("source", pa.string()),  # the input that it came from
    ]
)

# kb/names.parquet; one row per (canonical key, entity), sorted by key (bytes), then falling weight,
# then entity.
NAMES = pa.schema(
    [
        ("key", pa.string()),  # canonical form, see kb/text.py
        ("raw", pa.string()),
        ("spelling", pa.int8()),  # how the entity writes its names of this key, see kb/spelling.py
        ("language", pa.string()),
        ("kind", pa.string()),  # label | title | alias | anchor | override
        ("entity", pa.int32()),  # row in entities.parquet
        ("count", pa.int64()),  # links with this text to this entity, if anchors were given
        ("weight", pa.float32()),  # p(entity | name) before normalisation, > 0
    ]
)

# What Linker.link returns; one row per (caption, mention, candidate).
CANDIDATES = pa.schema(
    [
        ("row", pa.int32()),  # index of the caption in the input
        ("start", pa.int32()),  # code points of the raw caption
        ("end", pa.int32()),
        ("surface", pa.string()),
        ("id", pa.string()),
        ("rank", pa.int16()),  # 0 = best by score
        ("prior", pa.float32()),  # p(entity | mention), sums to 1 over a mention's candidates
        # The terms of the score, see link/disambiguate.py; null: not computed.
        ("context", pa.float32()),  # cosine of caption and entity text
        ("coherence", pa.float32()),  # cosine of entity text and the caption's other entities
        ("type", pa.float32()),  # log odds of the entity's types in the data of the weights
        ("linkability", pa.float32()),  # share of the name's uses, in counted captions, as a name
        ("case", pa.int8()),  # above 0: written as this entity's names are, below: otherwise
        ("detected", pa.float32()),  # how sure a mention detector is of this span
        ("score", pa.float32()),  # p(entity | mention, caption); the rest to 1 is NIL
    ]
)

# Also in CANDIDATES and in the candidates of LABELS where priors of a crawl are used: what `prior`
# would be without them.
KB_PRIOR = pa.field("kb_prior", pa.float32())

# Likewise where mentions are read again: what that added to the logit; null: not read.
FUSION = pa.field("fusion", pa.float32())

# Also in the candidates of LABELS where a second encoder looked at some images: how many encoders
# clip_z is from. It is on one scale, see label/second_look.py; clip is the last one's cosine.
ENCODERS = pa.field("encoders", pa.int8())

# One image-caption pair as the readers yield it; the image stays where it is.
PAIRS = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),  # path of the tar, Parquet or folder, relative to the input
        ("offset", pa.int64()),  # first byte of the image inside `shard`; -1: see `path`
        ("size", pa.int64()),  # bytes of the image
        ("path", pa.string()),  # for folders: the image file; for Parquet: "row:N"
        ("caption", pa.string()),
        ("url", pa.string()),
        ("status", pa.string()),  # ok | error
        ("error", pa.string()),  # snake_case reason, empty when ok
    ]
)

_PAIR = [field for field in PAIRS if field.name not in ("status", "error")]

SCORED_ENTITY = pa.struct(
    [
        ("id", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("surface", pa.string()),
        ("prior", pa.float32()),
        # The linker's terms, as in CANDIDATES; null: not computed.
        ("context", pa.float32()),
        ("coherence", pa.float32()),
        ("type", pa.float32()),
        ("linkability", pa.float32()),
        ("case", pa.int8()),
        ("text_score", pa.float32()),  # probability among candidates and NIL, from text alone
        # The image's terms; null: no encoder was used.
        ("clip", pa.float32()),  # cosine of image and text(label: description)
        ("clip_z", pa.float32()),  # the same, standardised by the entity's own background
        # clip_z with images whose captions do not name any of the mention's candidates; older
        # versions wrote one number, or null
        ("clip_z_other", pa.list_(pa.float32())),
        # Probability among candidates and NIL, image included, by the shipped weights; `select`
        # fits its own.
        ("score", pa.float32()),
    ]
)

VECTORS_VERSION = 1
"""Raised whenever the tables of `openmofi embed` change."""
LABELS_VERSION = 4
"""Version of what `label` writes; a folder never mixes files of two versions."""

# i2e/labels/*.parquet; one row per image in input order, with ALL candidates considered.
LABELS = pa.schema(
    [
        *PAIRS,
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("text_area", pa.float32()),  # share of the image covered by text; null: not measured
        # x0, y0, x1, y1 of each text region, as shares of width and height
        ("text_boxes", pa.list_(pa.list_(pa.float32()))),
        # Null if the image was not opened because its caption names nothing.
        ("sha256", pa.binary(32)),  # of the encoded bytes
        ("phash", pa.uint64()),  # perceptual hash, see images/look.py
        ("entities", pa.list_(SCORED_ENTITY)),
    ]
)

# i2e/select/<name>/keep.parquet; one row per kept image.
KEEP = pa.schema(
    [
        *_PAIR,
        ("text_area", pa.float32()),  # as in LABELS
        ("row", pa.int64()),  # row in the labels of its shard
        ("classes", pa.list_(pa.int32())),  # rows of vocabulary.parquet
        ("scores", pa.list_(pa.float32())),
    ]
)

# Also in KEEP if images taught the priors (`select --priors images`), as long as `classes`.
TAUGHT = [
    pa.field("priors_before", pa.list_(pa.float32())),  # p(entity | name) in the labels
    pa.field("priors_after", pa.list_(pa.float32())),
]

# i2e/select/<name>/refused.parquet; one row per image that was not kept.
REFUSED = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("caption", pa.string()),
        ("reason", pa.string()),
    ]
)

_PLACE = [PAIRS.field(name) for name in ("key", "shard", "offset", "size", "path")]

# i2e/select/<name>/duplicates.parquet; one row per refused duplicate.
DUPLICATES = pa.schema(
    [
        *_PLACE,
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("bits", pa.int32()),  # number of bits in which the perceptual hashes differ
        # The image that is kept; `of_root` is set if it belongs to another input.
        ("of_root", pa.string()),
        ("of_key", pa.string()),
        ("of_shard", pa.string()),
        ("of_offset", pa.int64()),
        ("of_size", pa.int64()),
        ("of_path", pa.string()),
    ]
)

# i2e/select/<name>/shards.parquet; in the order of the rows of keep and refused.
SELECTED_SHARDS = pa.schema(
    [("shard", pa.string()), ("file", pa.string()), ("pairs", pa.int64()), ("kept", pa.int64())]
)

# i2e/select/<name>/vocabulary.parquet; the row number is the class index.
VOCABULARY = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("description", pa.string()),
        ("images", pa.int64()),
    ]
)

# What `openmofi diff --table` writes; one row per label that was gained, lost or changed.
CHANGES = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("kind", pa.string()),  # gained | lost | changed
        ("cause", pa.string()),  # see diff/causes.py
        (
            "reason",
            pa.string(),
        ),  # where the version without the label loses it, see diff/version.py
        ("id_before", pa.string()),
        ("score_before", pa.float32()),
        ("file_before", pa.string()),  # of the labels; null: the pair is not there
        ("row_before", pa.int64()),
        ("id_after", pa.string()),
        ("score_after", pa.float32()),
        ("file_after", pa.string()),
        ("row_after", pa.int64()),
    ]
)


def embeddings(dim: int) -> pa.Schema:
    """Returns the schema of `openmofi embed`'s output for vectors of length `dim`."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("shard", pa.string()),
            ("path", pa.string()),
            ("offset", pa.int64()),
            ("size", pa.int64()),
            ("caption", pa.string()),
            ("url", pa.string()),
            ("entities", pa.list_(pa.string())),
            # Set for images that a selection keeps, else empty or null.
            ("label_scores", pa.list_(pa.float32())),
            ("text_area", pa.float32()),
            ("labels_row", pa.int64()),  # row in the labels of its shard
            ("vector", pa.list_(pa.float16(), dim)),
        ]
    )


# refused/ of `openmofi embed`'s output; one row per image without a vector.
UNEMBEDDED = pa.schema(
    [
        *_PAIR,
        ("reason", pa.string()),
    ]
)


# caption/captions/*.parquet; one row per image.
CAPTIONS = pa.schema([*_PAIR, ("synthetic", pa.list_(pa.string()))])
CAPTIONS_VERSION = 1
"""Stored with a job; increase it whenever the same inputs give other captions."""


# index/part-N/rows.parquet; one row per vector.
INDEX_ROWS = pa.schema(
    [
        *[field for field in embeddings(1) if field.name != "vector"],
        ("source", pa.string()),  # host of the url, else the shard
        ("origin", pa.int32()),  # index into part.json's origins
    ]
)

# index/part-N/entities.parquet; the entities of its rows.
INDEX_ENTITIES = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),  # the id if the knowledge base has no name
        ("description", pa.string()),
        ("types", pa.list_(pa.string())),
    ]
)

TAG_CALIBRATION = "tag_calibration.parquet"
"""File in a model's directory that says what its scores mean, see tag/abstain.py."""
