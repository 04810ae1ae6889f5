"""Every setting with its bounds, default and meaning; recipes and flags only override what is here.

Imports nothing heavy: the command line reads this file to build its help.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from math import inf
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta, ValidationError, convert

from openmofi.errors import SettingsError

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0, le=1 - 1e-9)]  # below 1: at 1 an average never moves
LossWeight = Annotated[float, Meta(ge=0, le=1e6)]


class _Settings:
    """Rejects values that the fields' types rule out: numbers out of bounds, unknown choices."""

    def __post_init__(self) -> None:
        for name, limit in _limits(type(self)).items():
            value = getattr(self, name)
            if isinstance(limit, Meta):
                least = -inf if limit.ge is None else limit.ge
                most = inf if limit.le is None else limit.le
                _check_bounds(name, value, least, most)
            elif value not in limit:
                wanted = f"{', '.join(limit[:-1])} or {limit[-1]}"
                raise SettingsError(f"Setting {name!r} cannot be {value!r}; expected {wanted}.")


@cache
def _limits(settings: type) -> dict[str, Meta | tuple[Any, ...]]:
    """Returns each field's bounds (ge, le) or choices, as its type states them."""
    limits: dict[str, Meta | tuple[Any, ...]] = {}
    for name, hint in get_type_hints(settings, include_extras=True).items():
        alternatives = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for part in alternatives:  # of `Count | None`, Count and None
            if get_origin(part) is Literal:
                limits[name] = get_args(part)
            elif get_origin(part) is Annotated:
                limits[name] = part.__metadata__[0]
    return limits


def _check_bounds(name: str, value: Any, least: float, most: float) -> None:
    """Rejects a number outside its bounds."""
    if value is not None and not least <= value <= most:  # also rejects NaN
        wanted = f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"
        raise SettingsError(f"Setting {name!r} cannot be {value!r}; expected {wanted}.")


def _language_codes(given: Iterable[str]) -> tuple[str, ...]:
    """Splits language codes at commas and drops repeats; rejects an invalid code."""
    texts = [given] if isinstance(given, str) else given
    parts = [part.strip() for text in texts for part in text.split(",")]
    codes = tuple(dict.fromkeys(part.lower() for part in parts if part))
    # The keys of a dump's labels: https://www.wikidata.org/wiki/Help:Wikimedia_language_codes
    wrong = next((c for c in codes if not re.fullmatch(r"[a-z]{2,}(-[a-z0-9]+)*", c)), None)
    if not codes or wrong:
        shown = wrong or ", ".join(texts)
        raise SettingsError(
            f"Setting 'languages' cannot be {shown!r}; expected Wikidata's codes such as en,de,mul."
        )
    return codes


@dataclass(frozen=True)
class KBSettings(_Settings):
    """Builds a knowledge base from dumps and catalogues."""

    languages: tuple[str, ...] = ("en", "mul")
    """Languages whose labels and aliases become names, such as en,de,mul; the first with a label
    gives the label."""
    preset: Literal["image", "wikipedia", "full"] = "image"
    """Which items of a dump are kept. image: what images may show, that is items with a sitelink
    that are neither scholarly articles nor names; wikipedia: items with an article in one of the
    languages; full: all. Wikimedia's own pages and items without a name are never kept. Of
    WordNet, image keeps what a photo may show, and the other two everything."""
    max_entities: Count | None = None
    """Stop after this many entities of a dump."""
    id_column: str = "id"
    """Column of a catalogue that holds the ids."""
    prior_gamma: Annotated[float, Meta(ge=0, le=10)] = 1.0
    """Exponent of (1 + sitelinks) in the prior p0(entity)."""
    # The bounds of the weights lie far beyond any use and keep priors and their sums finite.
    alias_weight: Annotated[float, Meta(ge=0, le=1e3)] = 0.3
    """Weight of an alias relative to a label in p0(entity | name); 0 leaves aliases out."""
    language_weight: Annotated[float, Meta(ge=0, le=1e3)] = 0.5
    """Weight of names in other languages than the first and mul, in p0(entity | name)."""
    redirects: str | None = None
    """File of merged ids, from<TAB>to, also .gz; the old ids are found as well."""
    anchors: str | None = None
    """File of links, text<TAB>article title or id<TAB>count, also .gz; they refine p(entity |
    name)."""
    anchor_mu: Annotated[float, Meta(ge=1e-9, le=1e9)] = 10.0
    """Number of links that the prior p0 counts as, added to the links of --anchors."""
    anchor_min_count: Count = 2
    """Links needed before a text becomes a name of an entity that does not have it yet."""
    overrides: str | None = None
    """File of decisions, name<TAB>id<TAB>p: p(entity | name) becomes p, 0 removes the entity, and
    the id - removes the name."""
    workers: Count | None = None
    """Processes that decode a dump, in addition to the one that decompresses it; the default is one
    per core."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "languages", _language_codes(self.languages))
        if self.preset == "wikipedia" and set(self.languages) <= {"mul"}:
            raise SettingsError(
                "Preset 'wikipedia' keeps items with an article in one of the languages, but mul "
                "has no Wikipedia; give --languages a language such as en."
            )


@dataclass(frozen=True)
class LinkSettings(_Settings):
    """Finds mentions in captions and their candidates."""

    max_candidates: Annotated[int, Meta(ge=1, le=30)] = 30
    """Candidates kept per mention, most probable first."""
    max_words: Count = 10
    """Longest mention, in words."""
    min_chars: Count = 2
    """Names shorter than this are ignored."""
    weights: str | None = None
    """JSON file with other weights of the score's terms, as `openmofi kb fit` writes them."""
    priors: str | None = None
    """File with what a crawl taught, as `openmofi kb count --priors` writes it."""
    read_above: Share = 0.1
    """With a fusion reader: it reads the mentions that the linear score gets wrong with a larger
    probability than this."""
    min_score: Share = 0.0
    """Mentions whose best candidate is less probable than this are left out."""


@dataclass(frozen=True)
class JobSettings(_Settings):
    """Where and when a job over shards works; its results do not depend on it."""

    batch_size: Count = 256
    """Images per forward pass of the encoder."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    engine: Literal["local", "ray", "rank"] = "local"
    """local: processes on this machine; ray: a Ray cluster; rank: this process takes every
    world-size-th shard, as in a Slurm step or array."""
    workers: Count | None = None
    """Processes of the local engine, by default one per GPU, or one per CPU core without a GPU;
    concurrent tasks of the ray engine, by default as many as the cluster holds."""
    rank: int | None = None
    """This process's number under --engine rank; the default is the one that srun, torchrun, mpirun
    or a Slurm array sets."""
    world_size: Count | None = None
    """Number of processes under --engine rank; the default is the launcher's."""
    ray_address: str | None = None
    """Ray cluster to join, such as auto; the default is RAY_ADDRESS, or a new cluster on this
    machine."""
    encoders: Annotated[int, Meta(ge=0)] | None = None
    """Ray actors that hold the encoder; the default is one per GPU. 0: each task holds its own."""
    retry: str = "failed"
    """Which finished shards are tried again: failed, partial, failed,partial or none."""
    fail_if_error_rate: Share = 1.0
    """Stop with an error once more than this share of the rows is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds("rank", self.rank, 0, (self.world_size or inf) - 1)


@dataclass(frozen=True)
class LabelSettings(JobSettings):
    """Scores every candidate entity against its image."""

    context: str = "words"
    """What compares a caption with the candidates' descriptions: words (those they share), model
    (the text tower of --model), or a text encoder: a directory or hub id."""
    priors: str | None = None
    """File with what a crawl taught, as `openmofi kb count --priors` writes it."""
    fusion: str | None = None
    """Directory of a reader of hard mentions, as `openmofi kb fit --fusion` writes it."""
    read_above: Share = 0.1
    """The reader reads the mentions that the linear score gets wrong with a larger probability."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the encoder; auto: fp16 on a GPU, bf16 on a CPU that can, otherwise fp32."""
    background: Count = 512
    """Images with other captions from which each entity's background cosine is estimated."""
    then_share: Annotated[float, Meta(ge=0.01, le=1)] = 0.2
    """With --then: share of the images with candidates at which the second encoder looks, those
    whose labels it is likeliest to change."""
    then_rate: Share = 0.01
    """With --then: the share of wrong labels that `select --false-label-rate` will be asked for.
    Labels are calibrated at any other rate as well, but gain less from the second encoder."""
    text_regions: bool = False
    """Find the text in each image (needs the extra `ocr`); select --max-text-area uses it."""
    keep_embeddings: bool = False
    """Also store the image embeddings (fp16)."""


@dataclass(frozen=True)
class EmbedSettings(JobSettings):
    """Embeds every readable image."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the encoder; auto: fp16 on a GPU, bf16 on a CPU that can, otherwise fp32."""


@dataclass(frozen=True)
class MissingSettings(EmbedSettings):
    """Proposes entities that the catalogue lacks."""

    min_images: Annotated[int, Meta(ge=2)] = 5
    """Fewest images that a proposal needs."""


@dataclass(frozen=True)
class CompileSettings(_Settings):
    """Writes an encoder as ONNX files."""

    int8: bool = False
    """Multiply 8-bit integers: a quarter of the size, and faster where the processor can."""
    sample: Annotated[int, Meta(ge=100)] = 1000
    """Images on which int8 is checked; 128 others calibrate it."""
    max_loss: Annotated[float, Meta(ge=0, le=100)] = 0.2
    """Points of mAP that int8 may lose in each check; if it loses more, nothing is written."""


@dataclass(frozen=True)
class CaptionSettings(JobSettings):
    """Writes captions of images."""

    captions: Count = 3
    """Captions of each image, the best ones of as many beams."""
    max_tokens: Count = 40
    """Longest caption, in the model's tokens."""


@dataclass(frozen=True)
class ReinforceSettings(JobSettings):
    """Stores a teacher's vectors of every image and text."""

    augmentations: Count = 5
    """Versions of each image that the teacher sees, with random crops and colours; the first is
    the image unchanged if the recipe says augment.when=repeats."""


@dataclass(frozen=True)
class SelectSettings(_Settings):
    """Decides which labels and images to keep."""

    order: Literal["joint", "text-first", "caption-match"] = "joint"
    """joint: text and image together choose among a mention's candidates; text-first: MOFI's
    order, in which the text chooses and the image may only reject; caption-match: the most
    popular entity of each name is taken and the image is not looked at."""
    false_label_rate: Share = 0.01
    """Share of wrong labels to aim for; the threshold follows from it."""
    threshold: float | None = None
    """Least score (joint) or clip_z (text-first) of a label; replaces the threshold derived from
    false-label-rate."""
    priors: Literal["labels", "images"] = "labels"
    """p(entity | name) of ambiguous names: that of the labels, or learnt from all images of this
    crawl, so that names mean here what their images show (order joint)."""
    corrections: bool = True
    """Honour what people said of these labels, and learn from it; see `openmofi review`."""
    weights: str | None = None
    """JSON file with the weights of the joint score, such as a card.json; by default they are
    fitted to the labels themselves, which needs no ground truth."""
    min_images: Count = 5
    """Entities with fewer images leave the vocabulary."""
    max_images: Count | None = None
    """Images kept per entity, drawn evenly; the default keeps all."""
    max_entities: Count = 4
    """Entities kept per image, best first."""
    duplicates: Literal["keep", "exact", "near"] = "near"
    """Of several copies of an image, only the one with the surest label is kept. exact: copies have
    the same bytes; near: or perceptual hashes that differ in at most duplicate-bits bits."""
    duplicate_bits: Annotated[int, Meta(ge=0, le=7)] = 3
    """Bits of the 64-bit perceptual hash in which near-duplicates may differ."""
    exclude: tuple[str, ...] = ()
    """Images (any input that `label` reads) whose duplicates are refused, such as those of a
    benchmark."""
    deny_types: tuple[str, ...] = ()
    """Types, such as Q5, whose entities are refused, as are those of their subclasses."""
    max_text_area: Share | None = None
    """Images with more than this share covered by text are refused; needs label --text-regions."""
    memory: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    """GB of memory to use at most; the default is a quarter of the machine's or job's, from 1 to 4.
    The result does not depend on it."""


@dataclass(frozen=True)
class AuditSettings(_Settings):
    """Draws labels of a selection for a person to check."""

    checks: Count = 300
    """Labels to check at most; more of them continue the same list."""
    seed: int = 0
    """Which labels are drawn; the same seed draws the same labels."""
    by: str = "auditor"
    """Who answers; each has a folder of answers in the selection."""
    confidence: Annotated[float, Meta(ge=0.5, le=0.9999)] = 0.95
    """Probability with which a bound is not too high, at any time."""


@dataclass(frozen=True)
class ModelSettings(_Settings):
    """The encoders: a preset to train from scratch, or a Hugging Face directory to start from."""

    preset: Literal["nano", "b16", "l14", "h14", "s0", "s1", "s2"] = "nano"
    """Architecture when no init is given; see docs/models.md."""
    init: str | None = None
    """Hub id or local directory of a dual encoder to start from; replaces preset."""
    image_size: Annotated[int, Meta(ge=8, le=4096)] | None = None
    """Pixels per side; the default is the preset's."""
    vocab_size: Annotated[int, Meta(ge=260)] = 4000  # 256 bytes, 3 marks
    """Largest size of a tokenizer trained on this dataset's texts."""


@dataclass(frozen=True)
class HeadSettings(_Settings):
    """The entity classifier."""

    loss: Literal["cosface", "arcface", "plain"] = "cosface"
    """How the true class is made harder: cosface subtracts the margin from its cosine, arcface adds
    it to its angle, plain does neither."""
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.15
    """Margin m: a cosine for cosface, radians for arcface."""
    scale: Annotated[float, Meta(ge=1e-3, le=1e4)] = 16.0
    """Logit scale s."""
    sampler: Literal["full", "uniform", "log-uniform", "popularity"] = "uniform"
    """Which classes a step compares with. full: all, an exact softmax computed in chunks; uniform;
    log-uniform: by rank, p ~ log(1 + 1 / rank), classes in order of popularity; popularity: by
    number of images. A vocabulary of at most num_sampled classes always uses all of them."""
    num_sampled: Count = 8192
    """Classes drawn per step, in addition to the batch's own."""
    log_q: bool = True
    """Correct the logits for how often a class is drawn (logQ)."""
    optimizer: Literal["lazy-adam", "row-adam", "row-adagrad", "sgd"] = "lazy-adam"
    """Update of the rows in use. lazy-adam: two moments per number; row-adam: a bf16 first moment
    per number and one second moment per row; row-adagrad: one sum of squares per row; sgd."""
    learning_rate: Annotated[float, Meta(ge=0, le=1e3)] = 1e-2
    """Step size of the rows."""
    start: Literal["random", "means"] = "random"
    """How the rows begin. random: as random directions; means: each as the mean of its images'
    vectors, a linear probe in closed form, so that a pretrained encoder is not first pulled towards
    random rows (arXiv 2202.10054)."""


@dataclass(frozen=True)
class LossSettings(_Settings):
    """What the model learns from."""

    supervised: LossWeight = 1.0
    """Weight of the entity classification loss."""
    contrastive: LossWeight = 1.0
    """Weight of the image-text loss."""
    image_text: Literal["infonce", "siglip"] = "infonce"
    """The image-text loss: a softmax over the batch (CLIP), or a sigmoid for every pair."""
    text: tuple[str, ...] = ("caption", "name", "description")
    """Which texts the image-text loss may pair an image with: its caption, its entity's name,
    its entity's name with description, or a synthetic caption. One is drawn per image and step; a
    kind listed twice is drawn twice as often."""
    synthetic: str | None = None
    """Captions that a model wrote, for the text `synthetic`: output of `openmofi caption`, or a CSV
    or Parquet file with the image's key or path and its captions in the column synthetic, as a
    list or in several lines."""
    entity: Literal["best", "drawn"] = "best"
    """Which entity a step uses of an image with several: the surest, or one drawn uniformly."""
    mask_same_entity: bool = True
    """In the image-text loss, a text is not a negative of an image that shows its entity or has the
    same text."""
    teachers: tuple[str, ...] = ()
    """Folders of `openmofi reinforce`: also learn from the teachers' vectors stored there."""
    distillation: Share = 0.75
    """Share of the image-text loss that comes from the teachers, if there are any (MobileCLIP)."""


@dataclass(frozen=True)
class OptimSettings(_Settings):
    """The optimiser of the encoders."""

    learning_rate: Annotated[float, Meta(ge=0, le=1e30)] = 3e-3
    """Peak step size of the image side."""
    text_learning_rate_factor: Annotated[float, Meta(ge=0, le=1e3)] = 0.1
    """Step size of the text side relative to the image side."""
    token_learning_rate_factor: Annotated[float, Meta(ge=0, le=1e3)] = 1.0
    """Step size of the token embeddings relative to the image side. Rare words are updated in few
    steps: with the text side's own step size, names are learnt far too slowly."""
    weight_decay: Annotated[float, Meta(ge=0, le=1e3)] = 0.05
    """AdamW's decoupled weight decay, on matrices only."""
    beta2: Decay = 0.98
    """AdamW's second-moment decay."""
    warmup: Share = 0.05
    """Share of the steps during which the step size rises."""
    clip_grad_norm: Annotated[float, Meta(ge=1e-9, le=1e9)] = 1.0
    """Gradients are scaled down to this norm."""
    first_layer_factor: Share = 1.0
    """Step size of a tower's first layer relative to what follows its last one; the layers between
    lie evenly on a logarithmic scale (layer-wise decay). 0 trains only what follows the last layer.
    Below 1, batch norms keep their statistics."""


@dataclass(frozen=True)
class AugmentSettings(_Settings):
    """How images are changed before the model learns from them."""

    crop: Annotated[float, Meta(ge=0.01, le=1)] = 0.7
    """Smallest share of the area that a random crop keeps; 1 switches cropping off."""
    flip: bool = False
    """Mirror half of the images; off by default, since a mirrored flag or text is another one."""
    colour: Share = 0.2
    """Strength of random brightness, contrast and saturation changes."""
    rand_ops: Annotated[int, Meta(ge=0, le=14)] = 0
    """Operations of RandAugment (arXiv 1909.13719) that change each image after crop and colour, as
    MobileCLIP's students see them; the paper's choice for ImageNet is 2."""
    rand_magnitude: Share = 0.3
    """Strength of these operations, a share of their ranges; see train/rand_augment.py."""
    when: Literal["always", "repeats"] = "always"
    """repeats: an image is shown unchanged the first time and augmented from the second epoch on,
    so that a filtered dataset lasts as many steps as a larger one (arXiv 2305.05095)."""


@dataclass(frozen=True)
class EvaluationSettings(_Settings):
    """What is measured during a run, on images that it never learns from."""

    holdout: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Share of the images that is held out; 0 switches evaluation off."""
    holdout_entities: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Share of the entities of which all images are held out, to see how the run does on entities
    that it never learns from."""
    every: Count = 500
    """Steps between evaluations; the last step is always evaluated."""
    max_images: Annotated[int, Meta(ge=2)] = 5000
    """Most held-out images that are evaluated."""


@dataclass(frozen=True)
class TrainSettings(_Settings):
    """A training run; a recipe is a YAML file of the settings that differ from these."""

    model: ModelSettings = field(default_factory=ModelSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    steps: Count = 500
    """Optimiser steps."""
    epochs: Annotated[float, Meta(ge=1e-9, le=1e9)] | None = None
    """Passes over the data; replaces steps."""
    examples: Count | None = None
    """Images seen in total, repeats included; replaces steps."""
    batch_size: Count = 128
    """Images per step, of all processes together."""
    micro_batch_size: Count | None = None
    """Images per forward pass of a process; a smaller number saves memory, and the losses still
    compare the whole batch (GradCache)."""
    balance: Share = 0.0
    """How far rare entities are oversampled: an entity with n images is shown in proportion to
    n^(1 - balance), so 0 takes the data as it is and 1 shows all entities equally often."""
    seed: int = 0
    """Seeds the initial weights, the order of the data and the augmentation."""
    wise_ft: bool = False
    """Save the mean of model.init's weights and the last ones that gains most on held-out images
    (WiSE-FT, arXiv 2109.01903); a loss of one score counts ten times. It may be model.init's own,
    so a run does not end worse than it began, as far as these images tell."""
    ema: Decay = 0.0
    """Decay of a moving average of the weights, which is saved instead of them; 0: no average."""
    log_every: Count = 20
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Checkpoints kept, newest first."""
    max_skipped: Annotated[int, Meta(ge=0)] = 10
    """Steps whose gradient is not finite are skipped; a run that skipped more than these stops."""
    loggers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where else than metrics.jsonl the metrics go; each needs the extra of its name."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How torchrun's processes hold the encoders: ddp: each the whole; fsdp: each a part."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them."""
    compile: bool = False
    """Compile the towers with torch.compile."""
    threads: Count = 2
    """Image-decoding threads per process."""
    workers: Annotated[int, Meta(ge=0)] = 0
    """Image-decoding processes per training process; 0: it decodes them itself."""


@dataclass(frozen=True)
class AdaptSettings(_Settings):
    """Linear maps on the cached vectors of an encoder."""

    supervised: LossWeight = 1.0
    """Weight of the entity classification loss."""
    contrastive: LossWeight = 1.0
    """Weight of the loss against the entities' texts, where there are any."""
    pull: LossWeight | None = None
    """Weight of the squared distance of a map from the closed form that it began as, relative to
    that form's size; what keeps entities apart that were never trained on. The default is chosen
    on the held-out part."""
    favour: Literal["both", "known", "unseen"] = "both"
    """Which held-out score is to be as high as possible: that of new images of known entities, of
    entities never seen, or the mean of the two, with neither lower than before."""
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.15
    """CosFace margin m."""
    scale: Annotated[float, Meta(ge=1e-3, le=1e4)] | None = None
    """Logit scale s; by default it grows with the number of classes as in AdaCos."""
    learning_rate: Annotated[float, Meta(ge=0, le=1e3)] = 0.03
    """Step size of the maps, in units of the size of their entries."""
    batch_size: Annotated[int, Meta(ge=2)] = 512
    """Vectors per step."""
    steps: Count = 60
    """Most steps with a pull."""
    evaluate_every: Count = 10
    """Steps between evaluations on the held-out part."""
    patience: Count = 2
    """Evaluations without a better held-out score after which it stops."""
    holdout: Annotated[float, Meta(ge=0.01, le=0.5)] = 0.1
    """Share of the entities that is held out whole, but at least 20 or a quarter of them; of as
    many others, half of the vectors is held out."""
    seed: int = 0
    """Seeds the held-out part, the class rows and the order."""


@dataclass(frozen=True)
class PairSettings(_Settings):
    """Linear maps that bring an image and a text encoder together."""

    dim: Annotated[int, Meta(ge=2)] | None = None
    """Length of the vectors; by default that of the narrower encoder, at most 512."""
    supervised: LossWeight = 1.0
    """Weight of the entity classification loss, where the data names entities."""
    learning_rate: Annotated[float, Meta(ge=0, le=1e3)] = 0.03
    """Step size of the maps, in units of the size of their entries."""
    batch_size: Annotated[int, Meta(ge=2)] = 1024
    """Pairs per step."""
    steps: Annotated[int, Meta(ge=0)] = 400
    """Maximum number of steps after the closed form; 0 keeps it."""
    evaluate_every: Count = 20
    """Steps between evaluations on the held-out part."""
    patience: Count = 4
    """Number of evaluations without a better held-out score after which training stops."""
    holdout: Annotated[float, Meta(ge=0.01, le=0.5)] = 0.1
    """Share of the captions that is held out, at most 2,000."""
    seed: int = 0
    """Seeds the held-out part, the order and the choice of texts."""


@dataclass(frozen=True)
class FusionSettings(_Settings):
    """Trains a reader of hard mentions."""

    epochs: Count = 3
    """Passes over the annotated mentions."""
    batch_size: Count = 32
    """Mentions per step."""
    learning_rate: Annotated[float, Meta(ge=0, le=1)] = 5e-5
    """Peak step size of the text encoder; what is new learns ten times as fast."""
    descriptions: Annotated[int, Meta(ge=0)] = 0
    """Mentions, at most, that are learnt from besides the annotated ones: names in the knowledge
    base's own descriptions that mean a type of the described entity."""
    max_candidates: Annotated[int, Meta(ge=2, le=30)] = 16
    """Candidates of a mention that a step compares, the right one among them."""
    evaluate_every: Count = 50
    """Steps between evaluations on the held-out part."""
    holdout: Annotated[float, Meta(ge=0.01, le=0.5)] = 0.1
    """Share of the names that is held out, to choose the best step."""
    text_layers: Annotated[int, Meta(ge=0)] = 0
    """Layers of a pointer's text encoder that read captions, evenly spread; 0: all of them."""
    layers: Count = 2
    """Layers of attention across the candidates."""
    heads: Count = 4
    """Heads of each; they divide the width of the text encoder."""
    dropout: Annotated[float, Meta(ge=0, le=0.9)] = 0.1
    """Share of the numbers that a step leaves out of this attention."""
    seed: int = 0
    """Seeds the held-out part, the order, the new layers and what is left out."""


@dataclass(frozen=True)
class IndexSettings(_Settings):
    """A vector index."""

    kind: Literal["auto", "flat", "hnsw", "ivf"] = "auto"
    """auto: exact up to a billion numbers (4 million vectors of 256), lists in a file (IVF) above;
    HNSW, a graph, takes much longer to build."""
    hnsw_links: Annotated[int, Meta(ge=2)] = 32
    """Neighbours per node of the HNSW graph."""
    ef_construction: Count = 200
    """Breadth of the search that builds the HNSW graph."""
    ef_search: Count = 128
    """Breadth of the search that answers queries."""


@dataclass(frozen=True)
class PresenceSettings(_Settings):
    """How an index learns to say that nothing in it looks like the query."""

    rate: Annotated[float, Meta(ge=1e-9, le=1 - 1e-9)] = 0.05
    """Share of the queries for absent things that may find something, unless a query asks for
    another."""
    max_entities: Count = 400
    """Entities that are left out in turn; in an index of more than 200,000 images, fewer."""
    images_per_entity: Count = 2
    """Images of each that are asked for."""
    seed: int = 0
    """Which entities and images are drawn."""


@dataclass(frozen=True)
class ServeSettings(_Settings):
    """The server of an index."""

    max_upload_bytes: Count = 20 * 2**20
    """Size of the largest image that it accepts."""
    uploads_kept: Count = 1_000
    """Uploaded images that it remembers; the oldest are dropped first."""
    workers: Count = 4
    """Requests handled at once, not counting those that wait for the encoder."""
    decoders: Count = 2
    """Uploaded images decoded at once."""
    batch: Count = 32
    """Images or texts encoded in one batch."""
    batch_wait: Annotated[float, Meta(ge=0, le=1)] = 0.004
    """Seconds that the encoder waits for a batch to fill."""
    queue: Count = 512
    """Images and texts that may wait for the encoder; further ones are answered with 503."""
    threads: Count = 2
    """Threads that the encoder computes with."""
    error_rate: Share = 0.05
    """Share of wrong tags above which it abstains unless a request says otherwise; needs a model
    that `openmofi tag calibrate` has calibrated."""
    thumbnail_bytes: Annotated[int, Meta(ge=0)] = 2**30
    """Size of the thumbnails on disk, in OPENMOFI_CACHE or the user's cache folder; the oldest are
    dropped first."""
    shutdown: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """Seconds that running requests get to finish when the server is stopped."""


def override(settings: Any, changes: dict[str, Any], *, where: str = "") -> Any:
    """Returns a copy of a settings dataclass with (nested) changes.

    Raises:
        SettingsError: a key does not exist or a value has the wrong type.
    """
    types = get_type_hints(type(settings))  # without the bounds, which the copy checks
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    values = {}
    for key, value in changes.items():
        path = f"{where}{key}"
        if key not in known:
            close = get_close_matches(str(key), known, 1)
            hint = f"did you mean {where}{close[0]}?" if close else f"known: {', '.join(known)}."
            raise SettingsError(f"Unknown setting {path!r}; {hint}")
        if is_dataclass(known[key]):
            if not isinstance(value, dict):
                raise SettingsError(f"Setting {path!r} is a group of settings, not {value!r}.")
            values[key] = override(known[key], value, where=f"{path}.")
            continue
        try:
            values[key] = convert(value, types[key], strict=not isinstance(value, str))
        except ValidationError as error:
            raise SettingsError(f"Setting {path!r} cannot be {value!r}: {error}.") from None
    return replace(settings, **values)


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turns ["optim.learning_rate=1e-3"] into {"optim": {"learning_rate": "1e-3"}}.

    Raises:
        SettingsError: an item has no equals sign, or its value is not YAML.
    """
    import yaml

    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set expects name=value, as in optim.warmup=0.1; got {path!r}.")
        *groups, name = path.split(".")
        group = changes
        for part in groups:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise SettingsError(f"--set gives {part!r} a value and, in {path!r}, a part.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SettingsError(
                f"--set {assignment!r} is not YAML; quote the whole and close its brackets, as in "
                "--set 'loss.text=[name, caption]'."
            ) from None
        # YAML reads 1e-3 (no dot) as text; numbers in text form are converted by `override`.
        group[name] = value
    return changes


def as_dict(settings: Any) -> dict[str, Any]:
    """Returns settings as plain dicts and lists, ready for YAML or JSON."""
    from dataclasses import asdict

    plain = asdict(settings)
    return _lists(plain)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
