"""The pointer: reads a mention and all its candidates together, and points at one or at NIL.

    caption -> text encoder, which learns -> vectors of the caption and of the mention's tokens
    candidate's "label (types): description" -> the encoder as it was, once per KB -> a map
    [caption, mention, NIL, candidate 1 …] -> attention without positions -> what to add to a logit

Where Fusion Entity Decoding (arXiv 2404.01626) spells the title of the entity, which need not be
unique, this points. What it says is a residual: an untrained pointer adds 0, so the linear score
stands, and NIL's is the reference. Closeness, the cosine of query and candidate, and corrections of
the linear terms are added directly, and what attention finds beside them.

In tensors: B mentions, L tokens, K candidates, D width of the text encoder, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from openmofi.errors import SettingsError
from openmofi.link.disambiguate import StoredVectors
from openmofi.link.fusion import NUM_FEATURES, HardMentions
from openmofi.link.weights import LinkWeights
from openmofi.model.checkpoint import load_text_encoder
from openmofi.model.dual import pool
from openmofi.model.fusion_files import damaged, read_card, write_card, write_json
from openmofi.model.mofi import MofiModel
from openmofi.model.precision import fast_dtype

KIND, VERSION = "pointer", 3
"""Raise the version whenever the network or its inputs change."""
WEIGHTS, ENTITIES = "pointer.safetensors", "entities"
_CLOSENESS = 20.0
"""Scale of the cosine, so that its weight is of the size of the others."""
_BEFORE, _AFTER = 100, 300
"""Characters of a caption that are read beside a mention; less before it, where it would not be
among the tokens."""
_TOKENS = 128
_ROWS = 16
"""Captions, or mentions, read at once. Always as many, and lengths in steps: so a mention's numbers
do not depend on what is read beside it, to the last bit. Few, as they are filled up."""
_STEP, _CANDIDATES_STEP = 8, 4


@dataclass(frozen=True)
class PointerShape:
    """Sizes of the network behind the text encoder."""

    layers: int = 2
    heads: int = 4
    dropout: float = 0.1


class Pointer(nn.Module):
    """The text encoder of captions, and the attention across candidates."""

    def __init__(self, texts: MofiModel, shape: PointerShape):
        super().__init__()
        self.encoder = texts.network.text_model
        self.pooling = texts.network.config.text_pooling
        self.shape = shape
        width = texts.dim
        self.query = nn.Linear(2 * width, width)
        self.entity = nn.Linear(width, width, bias=False)
        self.linear = nn.Linear(NUM_FEATURES, 1, bias=False)
        self.features = nn.Linear(NUM_FEATURES + 1, width)
        self.role = nn.Parameter(torch.zeros(4, width))
        layer = nn.TransformerEncoderLayer(
            width, shape.heads, 2 * width, shape.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.attention = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1, bias=False)
        self.closeness = nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            # At first, the query is the caption's vector, and nothing is added to any logit.
            self.query.weight.copy_(torch.cat([torch.eye(width), torch.zeros(width, width)], 1))
            self.query.bias.zero_()
            self.entity.weight.copy_(torch.eye(width))
            self.role.normal_(std=width**-0.5)
            # A term that training never saw must not matter later.
            self.linear.weight.zero_()
            self.features.weight.zero_()
            self.features.bias.zero_()
            self.head.weight.zero_()

    def encode_captions(
        self, tokens_BL: Int[Tensor, "b l"], mask_BL: Int[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b l d"]]:
        """Returns vectors of captions, and of their tokens."""
        output = self.encoder(input_ids=tokens_BL, attention_mask=mask_BL)
        caption_BD = pool(output, self.pooling, mask_BL)
        return caption_BD.float(), output.last_hidden_state.float()

    def encode_mentions(
        self,
        tokens_BL: Int[Tensor, "b l"],
        mask_BL: Int[Tensor, "b l"],
        inside_BL: Bool[Tensor, "b l"],
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Returns vectors of captions, and the means over the tokens inside the mentions."""
        caption_BD, tokens_BLD = self.encode_captions(tokens_BL, mask_BL)
        return caption_BD, mean_inside(tokens_BLD, inside_BL)

    def forward(
        self,
        caption_BD: Float[Tensor, "b d"],
        mention_BD: Float[Tensor, "b d"],
        entity_BKD: Float[Tensor, "b k d"],
        features_BKF: Float[Tensor, "b k f"],
        offered_BK: Bool[Tensor, "b k"],
    ) -> Float[Tensor, "b k"]:
        """Returns what to add to each candidate's logit, relative to NIL.

        Args:
            caption_BD: vectors of the captions.
            mention_BD: of the mentions in them.
            entity_BKD: unit vectors of the candidates' texts, by the encoder as it was.
            features_BKF: of `link.fusion.features_of`.
            offered_BK: where there is a candidate.
        """
        entity_BKD = F.normalize(self.entity(entity_BKD), dim=-1)
        closeness_BK = self.closeness_of(caption_BD, mention_BD, entity_BKD, offered_BK)
        told = torch.cat([features_BKF, closeness_BK[..., None]], -1)
        # Logs of probabilities reach -10 and more; only their order matters there.
        candidates_BKD = entity_BKD + self.features(told / 4).tanh() + self.role[3]
        others_B3D = torch.stack(
            [
                F.normalize(caption_BD, dim=-1) + self.role[0],
                F.normalize(mention_BD, dim=-1) + self.role[1],
                self.role[2].expand_as(caption_BD),
            ],
            1,
        )
        absent = F.pad(~offered_BK, (3, 0))
        told_BKD = torch.cat([others_B3D, candidates_BKD], 1)
        dtype = next(self.attention.parameters()).dtype
        read_BKD = self.attention(told_BKD.to(dtype), src_key_padding_mask=absent)
        score = self.head(read_BKD.float())[..., 0]
        alone_BK = self.closeness * closeness_BK + self.linear(features_BKF)[..., 0]
        return alone_BK + score[:, 3:] - score[:, 2:3]

    def closeness_of(
        self,
        caption_BD: Float[Tensor, "b d"],
        mention_BD: Float[Tensor, "b d"],
        entity_BKD: Float[Tensor, "b k d"],
        offered_BK: Bool[Tensor, "b k"],
    ) -> Float[Tensor, "b k"]:
        """Returns scaled cosines of mentions with unit vectors of candidates, less their mean.

        So they speak neither for nor against NIL.
        """
        query_BD = F.normalize(self.query(torch.cat([caption_BD, mention_BD], -1)), dim=-1)
        closeness_BK = _CLOSENESS * torch.einsum("bd,bkd->bk", query_BD, entity_BKD)
        num_offered_B1 = offered_BK.sum(1, keepdim=True).clamp(min=1)
        mean_B1 = (closeness_BK * offered_BK).sum(1, keepdim=True) / num_offered_B1
        return closeness_BK - mean_B1


def keep_layers(encoder: Any, count: int) -> None:
    """Keeps `count` layers of a text encoder, evenly spread, the last among them.

    Raises:
        SettingsError: it has fewer, or its layers are not to be found.
    """
    num_layers: int = encoder.config.num_hidden_layers
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == num_layers]
    if len(stacks) != 1 or count > num_layers:
        raise SettingsError(
            f"Setting 'text_layers' cannot be {count}; the text encoder has {num_layers} layers"
            + ("." if len(stacks) == 1 else ", which cannot be told from its other parts.")
        )
    kept = [stacks[0][(n + 1) * num_layers // count - 1] for n in range(count)]
    del stacks[0][:]
    stacks[0].extend(kept)
    encoder.config.num_hidden_layers = count


def mean_inside(
    tokens_BLD: Float[Tensor, "b l d"], inside_BL: Bool[Tensor, "b l"]
) -> Float[Tensor, "b d"]:
    """Returns the means over the tokens inside mentions."""
    inside_BL1 = inside_BL[..., None].to(tokens_BLD.dtype)
    return (tokens_BLD * inside_BL1).sum(1) / inside_BL1.sum(1).clamp(min=1)


@dataclass(frozen=True)
class MentionTokens:
    """Captions as the text encoder reads them."""

    tokens_BL: Int[Tensor, "b l"]
    mask_BL: Int[Tensor, "b l"]
    inside_BL: Bool[Tensor, "b l"]
    """Which tokens share a character with the mention."""

    @property
    def arrays(self) -> tuple[Tensor, Tensor, Tensor]:
        """All three."""
        return self.tokens_BL, self.mask_BL, self.inside_BL


def tokenise_mentions(tokenizer: Any, mentions: HardMentions, *, most: int) -> MentionTokens:
    """Returns the tokens of captions around their mentions, padded to the longest.

    Args:
        tokenizer: of the text encoder.
        mentions: whose candidates do not matter.
        most: largest number of tokens, see `most_tokens`.
    """
    before = np.full(len(mentions), _BEFORE)
    while True:
        read = _tokens_around(tokenizer, mentions, before, most)
        is_cut_off = ~read.inside_BL.any(1).numpy() & (before > 0)
        if not is_cut_off.any():
            return read
        before[is_cut_off] //= 2


def _tokens_around(
    tokenizer: Any, mentions: HardMentions, before: Int[np.ndarray, " m"], most: int
) -> MentionTokens:
    first = np.maximum(0, mentions.start - before)
    spans = zip(mentions.texts, first.tolist(), mentions.end.tolist(), strict=True)
    found = tokenizer(
        [text[low : end + _AFTER] for text, low, end in spans],
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=most,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    begin_BL, stop_BL = found["offset_mapping"].unbind(-1)
    start_B1, end_B1 = (
        torch.from_numpy(at - first)[:, None] for at in (mentions.start, mentions.end)
    )
    inside_BL = (stop_BL > start_B1) & (begin_BL < end_B1) & (stop_BL > begin_BL)
    return MentionTokens(found["input_ids"], found["attention_mask"], inside_BL)


def most_tokens(texts: MofiModel) -> int:
    """Returns the number of tokens of a caption that are read."""
    return min(_TOKENS, texts.context_length)


@dataclass(frozen=True)
class TrainedPointer:
    """What a pointer's folder holds."""

    network: Pointer
    captions: MofiModel
    """Its text encoder."""
    entities: MofiModel
    """The encoder as it was, of the candidates."""
    weights: LinkWeights
    """Of the linear score."""
    scale: float
    """Of what is added."""


class PointerReader:
    """A trained pointer with the vectors of a knowledge base's entities."""

    def __init__(self, trained: TrainedPointer, entities: StoredVectors):
        """Takes the pointer, and where the vectors of entities are kept."""
        self.pointer, self.texts, self.entities = trained.network.eval(), trained.captions, entities
        self._weights, self._scale = trained.weights, trained.scale
        self.device = self.texts.device
        for part in (self.pointer.encoder, self.pointer.attention):  # nearly all of the work
            part.to(fast_dtype(self.device))

    @property
    def weights(self) -> LinkWeights:
        """The weights of the linear score to which it adds."""
        return self._weights

    @torch.inference_mode()
    def read(self, mentions: HardMentions) -> Float[np.ndarray, " c"]:
        """Returns what to add to each candidate's logit, relative to NIL, float64."""
        caption_MD, mention_MD = self._encoded(mentions)
        begin = mentions.begin
        counts = np.diff(begin)
        known, number = np.unique(mentions.entity, return_inverse=True)
        vectors = self.entities.of(known)
        added = np.zeros(len(mentions.item))
        for width, part, rows in _alike(_rounded(counts, _CANDIDATES_STEP)):
            places, features, offered = candidate_arrays(mentions, rows, width)
            entity = np.where(offered[..., None], vectors[number[places]], np.float32(0))
            told = (torch.from_numpy(array) for array in (entity, features, offered))
            found = self.pointer(
                *(array[rows].to(self.device) for array in (caption_MD, mention_MD)),
                *(array.to(self.device) for array in told),
            )
            for row, values in zip(part.tolist(), found.double().cpu().numpy(), strict=False):
                added[begin[row] : begin[row + 1]] = values[: counts[row]]
        return self._scale * added

    def _encoded(self, mentions: HardMentions) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Returns the vectors of captions and of the mentions in them; equal captions once."""
        most = most_tokens(self.texts)
        read = tokenise_mentions(self.texts.tokenizer, mentions, most=most)
        told = np.hstack([read.tokens_BL.numpy(), read.mask_BL.numpy()])
        _, first, caption = np.unique(told, axis=0, return_index=True, return_inverse=True)
        lengths = np.minimum(_rounded(read.mask_BL.sum(1).numpy()[first], _STEP), most)
        found = torch.zeros(2, len(mentions), self.texts.dim)
        for length, part, rows in _alike(lengths):
            captions = (read.tokens_BL[first[rows]], read.mask_BL[first[rows]])
            own = (_cut(array, length).to(self.device) for array in captions)
            caption_BD, tokens_BLD = self.pointer.encode_captions(*own)
            place = np.full(len(first), -1)
            place[part] = np.arange(len(part))
            named = np.flatnonzero(place[caption] >= 0)
            at = place[caption[named]]
            inside = _cut(read.inside_BL[named], length).to(self.device)
            found[0, named] = caption_BD[at].cpu()
            found[1, named] = mean_inside(tokens_BLD[at], inside).cpu()
        return found[0], found[1]


def _rounded(sizes: Int[np.ndarray, " m"], step: int) -> Int[np.ndarray, " m"]:
    return -(-sizes // step) * step


def _alike(
    sizes: Int[np.ndarray, " m"],
) -> Iterator[tuple[int, Int[np.ndarray, " part"], Int[np.ndarray, " rows"]]]:
    """Yields sizes, which mentions have it, and these filled up to the number of a batch."""
    for size in np.unique(sizes).tolist():
        own = np.flatnonzero(sizes == size)
        for at in range(0, len(own), _ROWS):
            part = own[at : at + _ROWS]
            yield size, part, np.concatenate([part, np.repeat(part[:1], _ROWS - len(part))])


def _cut(array_BL: Tensor, length: int) -> Tensor:
    """Returns the first tokens, padded with zeros."""
    return F.pad(array_BL[:, :length], (0, max(0, length - array_BL.shape[1])))


def candidate_arrays(
    mentions: HardMentions, rows: Int[np.ndarray, " b"], width: int
) -> tuple[Int[np.ndarray, "b k"], Float[np.ndarray, "b k f"], Bool[np.ndarray, "b k"]]:
    """Returns place, features and presence of the candidates of some mentions, padded.

    Args:
        mentions: all mentions.
        rows: those in question.
        width: candidates of a row.
    """
    begin = mentions.begin
    places = begin[rows][:, None] + np.arange(width)
    offered = places < begin[rows + 1][:, None]
    places = np.where(offered, places, 0)
    features = np.where(offered[..., None], mentions.features[places], np.float32(0))
    return places, features, offered


# ---- the folder ---------------------------------------------------------------------------------


def save_pointer(
    folder: Path,
    pointer: Pointer,
    entities: MofiModel,
    weights: LinkWeights,
    card: dict[str, Any],
) -> None:
    """Writes a pointer: its text encoder as sentence-transformers does, and what stands behind it.

    Args:
        folder: an empty folder, which gets entities/ for the encoder as it was.
        pointer: the network.
        entities: the encoder as it was.
        weights: of the linear score to which it adds.
        card: what it was trained on, for people.
    """
    for own, encoder in (
        (folder, pointer.encoder),
        (folder / ENTITIES, entities.network.text_model),
    ):
        own.mkdir(exist_ok=True)
        _save_text_encoder(own, encoder, entities.tokenizer, pointer.pooling, entities.dim)
    rest = {n: p for n, p in pointer.state_dict().items() if not n.startswith("encoder.")}
    save_file({n: p.detach().cpu().contiguous() for n, p in rest.items()}, folder / WEIGHTS)
    write_card(folder, KIND, VERSION, weights, {"shape": asdict(pointer.shape), **card})


def _save_text_encoder(
    folder: Path, encoder: Any, tokenizer: Any, pooling: str, width: int
) -> None:
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pooling == "pooler":  # the encoder pools by itself
        return
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    steps = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", steps)
    (folder / "1_Pooling").mkdir()
    name = "lasttoken" if pooling == "last" else pooling
    settings = {"word_embedding_dimension": width, "pooling_mode": name}
    write_json(folder / "1_Pooling" / "config.json", settings)


def load_pointer(folder: Path, *, device: str = "auto") -> TrainedPointer:
    """Returns a trained pointer.

    Raises:
        InputError: the folder does not hold a pointer of this version, or is damaged.
    """
    card, weights = read_card(folder, KIND, VERSION)
    captions, entities = (
        load_text_encoder(own, device=device) for own in (folder, folder / ENTITIES)
    )
    pointer = Pointer(captions, PointerShape(**card["shape"])).to(captions.device)
    try:
        lacks = pointer.load_state_dict(load_file(folder / WEIGHTS), strict=False).missing_keys
    except (OSError, RuntimeError, SafetensorError) as error:
        raise damaged(folder / WEIGHTS, str(error).splitlines()[0]) from None
    if missing := [name for name in lacks if not name.startswith("encoder.")]:
        raise damaged(folder / WEIGHTS, f"{missing[0]} is missing")
    return TrainedPointer(pointer, captions, entities, weights, card["scale"])
