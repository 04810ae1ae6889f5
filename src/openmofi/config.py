"""Every setting with its default and its meaning; recipes and flags only override what is here.

Imports nothing heavy: the command line reads this file to build its help.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, get_type_hints

from openmofi.errors import SettingsError


def _check_bounds(settings: Any, **bounds: tuple[float, float]) -> None:
    """Refuses numbers outside (least, most), for whoever makes the settings."""
    for name, (least, most) in bounds.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:  # NaN is outside, too
            wanted = f"at least {least:g}" if most == _ANY else f"from {least:g} to {most:g}"
            raise SettingsError(f"Setting {name!r} cannot be {value!r}; expected {wanted}.")


_ANY = float("inf")


def _language_codes(given: Iterable[str]) -> tuple[str, ...]:
    """Returns codes in their order, also of text with commas, or refuses what is none."""
    texts = [given] if isinstance(given, str) else given
    parts = [part.strip() for text in texts for part in text.split(",")]
    codes = tuple(dict.fromkeys(part.lower() for part in parts if part))
    # As in the keys of a dump's labels: https://www.wikidata.org/wiki/Help:Wikimedia_language_codes
    wrong = next((c for c in codes if not re.fullmatch(r"[a-z]{2,}(-[a-z0-9]+)*", c)), None)
    if not codes or wrong:
        shown = wrong or ", ".join(texts)
        raise SettingsError(
            f"Setting 'languages' cannot be {shown!r}; expected Wikidata's codes such as en,de,mul."
        )
    return codes


@dataclass(frozen=True)
class KBSettings:
    """Builds a knowledge base from dumps and catalogues."""

    languages: tuple[str, ...] = ("en", "mul")
    """Languages whose labels and aliases become names, such as en,de,mul; the first with a label
    gives the label."""
    preset: Literal["image", "wikipedia", "full"] = "image"
    """Which items of a dump are kept. image: what pictures may show, that is items with a sitelink
    that are no scholarly article and no name; wikipedia: items with an article in one of the
    languages; full: all. None keeps Wikimedia's own pages, or items without a name."""
    max_entities: int | None = None
    """Stop after this many entities of a dump."""
    id_column: str = "id"
    """Column of a catalogue that holds the ids."""
    prior_gamma: float = 1.0
    """Exponent of (1 + sitelinks) in the prior p0(entity)."""
    alias_weight: float = 0.3
    """Weight of an alias relative to a label in p0(entity | name); 0 leaves aliases out."""
    language_weight: float = 0.5
    """Weight of names in other languages than the first and mul, in p0(entity | name)."""
    redirects: str | None = None
    """File of merged ids, from<TAB>to, also .gz; the old ids are found as well."""
    anchors: str | None = None
    """File of links, text<TAB>article title or id<TAB>count, also .gz; they refine p(entity |
    name)."""
    anchor_mu: float = 10.0
    """Links that the prior p0 counts as, beside the links of --anchors."""
    anchor_min_count: int = 2
    """Links needed to make a text a name of an entity that does not bear it."""
    overrides: str | None = None
    """File of decisions, name<TAB>id<TAB>p: p(entity | name) becomes p, 0 removes the entity, and
    the id - removes the name."""
    workers: int | None = None
    """Processes that decode a dump, beside the one that decompresses it; all cores by default."""

    def __post_init__(self) -> None:
        _check_bounds(self, max_entities=(1, _ANY), workers=(1, _ANY), prior_gamma=(0, 10))
        # Far beyond any use, so that priors and their sums stay finite.
        _check_bounds(self, alias_weight=(0, 1e3), language_weight=(0, 1e3))
        _check_bounds(self, anchor_min_count=(1, _ANY), anchor_mu=(1e-9, 1e9))
        object.__setattr__(self, "languages", _language_codes(self.languages))
        if self.preset not in ("image", "wikipedia", "full"):
            known = "expected image, wikipedia or full"
            raise SettingsError(f"Setting 'preset' cannot be {self.preset!r}; {known}.")
        if self.preset == "wikipedia" and set(self.languages) <= {"mul"}:
            raise SettingsError(
                "Preset 'wikipedia' keeps items with an article in one of the languages, but mul "
                "has no Wikipedia; give --languages a language such as en."
            )


@dataclass(frozen=True)
class LinkSettings:
    """Finds mentions in captions and their candidates."""

    max_candidates: int = 30
    """Candidates kept per mention, most probable first."""
    max_words: int = 10
    """Longest mention, in words."""
    min_chars: int = 2
    """Names shorter than this are ignored."""
    weights: str | None = None
    """JSON file with other weights of the score's terms, as `openmofi kb fit` writes them."""
    min_score: float = 0.0
    """Mentions whose best candidate is less probable than this are left out."""

    def __post_init__(self) -> None:
        _check_bounds(self, max_candidates=(1, 30), max_words=(1, _ANY), min_score=(0, 1))
        _check_bounds(self, min_chars=(1, _ANY))


@dataclass(frozen=True)
class LabelSettings:
    """Scores every candidate entity against its picture."""

    context: Literal["words", "model"] = "words"
    """What compares a caption with the candidates' descriptions: the words they share, or the
    text tower of the model."""
    batch_size: int = 256
    """Images per forward pass of the encoder."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the encoder; auto: fp16 on a GPU, fp32 on a CPU."""
    background: int = 512
    """Images of other captions from which each entity's background cosine is estimated."""
    text_regions: bool = False
    """Find the text in each picture (needs the extra `ocr`); select --max-text-area uses it."""
    keep_embeddings: bool = False
    """Store image embeddings (fp16) beside the labels."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    engine: Literal["local", "ray", "rank"] = "local"
    """local: processes on this machine; ray: a Ray cluster; rank: this process takes every
    world-size-th shard, as in a step or an array of Slurm."""
    workers: int | None = None
    """Processes of the local engine; the default is one per GPU, else one per CPU core. Tasks at
    a time of the ray engine; the default is what the cluster can hold."""
    rank: int | None = None
    """This process's number under --engine rank; the default is what srun, torchrun, mpirun or a
    Slurm array gave it."""
    world_size: int | None = None
    """Number of processes under --engine rank; the default is the launcher's."""
    ray_address: str | None = None
    """Ray cluster to join, such as auto; the default is RAY_ADDRESS, else a cluster of its own on
    this machine."""
    encoders: int | None = None
    """Ray actors that hold the encoder; the default is one per GPU. 0: each task holds its own."""
    retry: str = "failed"
    """Which finished shards are tried again: failed, partial, both with a comma, or none."""
    fail_if_error_rate: float = 1.0
    """Stop, and exit with an error, once a larger share of the pairs is refused."""

    def __post_init__(self) -> None:
        _check_bounds(self, batch_size=(1, _ANY), background=(1, _ANY), workers=(1, _ANY))
        _check_bounds(self, world_size=(1, _ANY), rank=(0, (self.world_size or _ANY) - 1))
        _check_bounds(self, encoders=(0, _ANY), fail_if_error_rate=(0, 1))


@dataclass(frozen=True)
class SelectSettings:
    """Decides which labels and images to keep."""

    order: Literal["joint", "text-first", "caption-match"] = "joint"
    """joint: text and picture together choose among a mention's candidates; text-first: MOFI's
    order, in which the text chooses and the picture may only refuse; caption-match: the most
    popular entity of each name is taken and nobody looks at the picture."""
    false_label_rate: float = 0.01
    """Wanted share of wrong labels; the threshold follows from it."""
    threshold: float | None = None
    """Least score (joint) or clip_z (text-first) of a label; replaces the threshold derived from
    false-label-rate."""
    weights: str | None = None
    """JSON file with the weights of the joint score, such as a card.json; the default is to fit
    them to the labels themselves, which needs no truth."""
    min_images: int = 5
    """Entities with fewer images leave the vocabulary."""
    max_images: int | None = None
    """Images kept per entity, drawn evenly; the default keeps all."""
    max_entities: int = 4
    """Entities kept per image, best first."""
    duplicates: Literal["keep", "exact", "near"] = "near"
    """Of pictures that are the same, only the one with the surest label is kept. exact: the same
    bytes; near: perceptual hashes of which at most duplicate-bits differ, too."""
    duplicate_bits: int = 3
    """Bits of the perceptual hash, of 64, in which near-duplicates may differ."""
    exclude: tuple[str, ...] = ()
    """Pictures (any input that `label` reads) whose duplicates are refused, such as those of a
    benchmark."""
    deny_types: tuple[str, ...] = ()
    """Types, such as Q5, whose entities are refused, and those of their subclasses."""
    max_text_area: float | None = None
    """Pictures of which text covers a larger share are refused; needs label --text-regions."""

    def __post_init__(self) -> None:
        _check_bounds(self, false_label_rate=(0, 1), min_images=(1, _ANY), max_entities=(1, _ANY))
        _check_bounds(self, max_images=(1, _ANY), duplicate_bits=(0, 7), max_text_area=(0, 1))


@dataclass(frozen=True)
class ModelSettings:
    """The encoders: a preset to train from scratch, or a Hugging Face directory to start from."""

    preset: Literal["nano", "b16", "l14", "h14"] = "nano"
    """Architecture when no init is given."""
    init: str | None = None
    """Hub id or local directory of a dual encoder to start from; replaces preset."""
    image_size: int | None = None
    """Pixels per side; the default is the preset's."""
    vocab_size: int = 4000
    """Largest size of a tokenizer trained on this dataset's texts."""

    def __post_init__(self) -> None:
        _check_bounds(self, image_size=(8, 4096), vocab_size=(260, _ANY))  # 256 bytes, 3 marks


@dataclass(frozen=True)
class HeadSettings:
    """The entity classifier."""

    loss: Literal["cosface", "arcface", "plain"] = "cosface"
    """How the true class is made harder: cosface subtracts the margin from its cosine, arcface adds
    it to its angle, plain does neither."""
    margin: float = 0.15
    """Margin m: a cosine for cosface, radians for arcface."""
    scale: float = 16.0
    """Logit scale s."""
    sampler: Literal["full", "uniform", "log-uniform", "popularity"] = "uniform"
    """Which classes a step compares with. full: all, an exact softmax computed in chunks; uniform;
    log-uniform: by rank, p ~ log(1 + 1 / rank), classes in order of popularity; popularity: by
    number of images. Vocabularies up to num_sampled use all their classes whatever the sampler."""
    num_sampled: int = 8192
    """Classes drawn per step, beside the batch's own."""
    log_q: bool = True
    """Correct the logits for how often a class is drawn (logQ)."""
    optimizer: Literal["lazy-adam", "row-adam", "row-adagrad", "sgd"] = "lazy-adam"
    """Update of the rows in use. lazy-adam: two moments per number; row-adam: a bf16 first moment
    per number and one second moment per row; row-adagrad: one sum of squares per row; sgd."""
    learning_rate: float = 1e-2
    """Step size of the rows."""

    def __post_init__(self) -> None:
        _check_bounds(self, num_sampled=(1, _ANY), margin=(0, 2), scale=(1e-3, 1e4))
        _check_bounds(self, learning_rate=(0, 1e3))


@dataclass(frozen=True)
class LossSettings:
    """What the model learns from."""

    supervised: float = 1.0
    """Weight of the entity classification loss."""
    contrastive: float = 1.0
    """Weight of the image-text loss."""
    image_text: Literal["infonce", "siglip"] = "infonce"
    """The image-text loss: a softmax over the batch (CLIP), or a sigmoid for every pair."""
    text: tuple[str, ...] = ("caption", "name", "description")
    """Which texts the image-text loss may pair an image with: its caption, its entity's name,
    its entity's name with description; one is drawn per image and step, a kind that is listed
    twice twice as often."""
    entity: Literal["best", "drawn"] = "best"
    """Which entity of an image with several is meant in a step: the surest, or one drawn evenly."""
    mask_same_entity: bool = True
    """A text is no negative of an image that shows its entity, or whose own text is the same, in
    the image-text loss."""
    teachers: tuple[str, ...] = ()
    """Folders of `openmofi reinforce`: learn from the vectors that teachers left there, too."""
    distillation: float = 0.75
    """Share of the image-text loss that the teachers give, if there are any (MobileCLIP)."""

    def __post_init__(self) -> None:
        _check_bounds(self, supervised=(0, 1e6), contrastive=(0, 1e6), distillation=(0, 1))


@dataclass(frozen=True)
class OptimSettings:
    """The optimiser of the encoders."""

    learning_rate: float = 3e-3
    """Peak step size of the image side."""
    text_learning_rate_factor: float = 0.1
    """Step size of the text side relative to the image side."""
    token_learning_rate_factor: float = 1.0
    """Step size of the token embeddings relative to the image side. Rare words have few steps in
    which to become themselves: with the text side's own step, names are learnt far too slowly."""
    weight_decay: float = 0.05
    """AdamW's decoupled weight decay, on matrices only."""
    beta2: float = 0.98
    """AdamW's second-moment decay."""
    warmup: float = 0.05
    """Share of the steps during which the step size rises."""
    clip_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        _check_bounds(self, learning_rate=(0, 1e30), weight_decay=(0, 1e3), warmup=(0, 1))
        _check_bounds(self, text_learning_rate_factor=(0, 1e3), token_learning_rate_factor=(0, 1e3))
        _check_bounds(self, beta2=(0, 1 - 1e-9), clip_grad_norm=(1e-9, 1e9))


@dataclass(frozen=True)
class AugmentSettings:
    """What happens to an image before it is learnt from."""

    crop: float = 0.7
    """Smallest share of the area that a random crop keeps; 1 switches cropping off."""
    flip: bool = False
    """Mirror half of the images; off, since mirrored flags and texts are other things."""
    colour: float = 0.2
    """Strength of random brightness, contrast and saturation changes."""
    when: Literal["always", "repeats"] = "always"
    """repeats: an image is shown as it is the first time and changed from the second epoch on, so
    that a filtered dataset lasts as many steps as a larger one (arXiv 2305.05095)."""

    def __post_init__(self) -> None:
        _check_bounds(self, crop=(0.01, 1), colour=(0, 1))


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured while a run goes on, on images that it never learns from."""

    holdout: float = 0.0
    """Share of the images that is held out; 0 measures nothing."""
    every: int = 500
    """Steps between evaluations; the last step is always evaluated."""
    max_images: int = 5000
    """Images evaluated at most, of those held out."""

    def __post_init__(self) -> None:
        _check_bounds(self, holdout=(0, 0.5), every=(1, _ANY), max_images=(2, _ANY))


@dataclass(frozen=True)
class TrainSettings:
    """A training run; a recipe is a YAML file that lists what differs from these."""

    model: ModelSettings = field(default_factory=ModelSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    steps: int = 500
    """Optimiser steps."""
    epochs: float | None = None
    """Passes over the data; replaces steps."""
    examples: int | None = None
    """Images in all, each as often as it is seen; replaces steps."""
    batch_size: int = 128
    """Images per step, of all processes together."""
    micro_batch_size: int | None = None
    """Images per pass of a process; smaller ones save memory, and the losses still compare the
    whole batch (GradCache)."""
    balance: float = 0.0
    """How far rare entities are shown more often: an entity with n images is shown in proportion
    to n^(1 - balance), so 0 takes the data as it is and 1 shows all entities alike."""
    seed: int = 0
    """Seeds the initial weights, the order of the data and the augmentation."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then what is saved; 0 keeps none."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints kept, newest first."""
    max_skipped: int = 10
    """Steps whose gradient is not finite are skipped; a run that skipped more than these stops."""
    loggers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where the metrics go beside metrics.jsonl; each needs the extra of its name."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun, what the processes hold of the encoders: ddp all of them, fsdp a part."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass."""
    grad_checkpointing: bool = False
    """Compute activations twice rather than keep them."""
    compile: bool = False
    """Compile the towers with torch.compile."""
    threads: int = 2
    """Threads that decode images, in every process that does."""
    workers: int = 0
    """Processes that decode images, for each process that trains; 0: it does so itself."""

    def __post_init__(self) -> None:
        _check_bounds(self, steps=(1, _ANY), batch_size=(1, _ANY), threads=(1, _ANY))
        _check_bounds(self, log_every=(1, _ANY), checkpoint_every=(1, _ANY), workers=(0, _ANY))
        _check_bounds(self, epochs=(1e-9, 1e9), examples=(1, _ANY), micro_batch_size=(1, _ANY))
        _check_bounds(self, keep_checkpoints=(1, _ANY), max_skipped=(0, _ANY), balance=(0, 1))
        _check_bounds(self, ema=(0, 1 - 1e-9))


@dataclass(frozen=True)
class AdaptSettings:
    """Linear maps on the cached vectors of an encoder."""

    supervised: float = 1.0
    """Weight of the entity classification loss."""
    contrastive: float = 1.0
    """Weight of the loss against the entities' texts, where there are any."""
    identity_pull: float | None = None
    """Weight of the squared distance of a map from the identity, per dimension; what keeps
    entities apart that were never trained on. The default is chosen on the held-out part."""
    margin: float = 0.15
    """CosFace margin m."""
    scale: float | None = None
    """Logit scale s; by default it grows with the number of classes as in AdaCos."""
    learning_rate: float = 5e-3
    """Step size of the maps."""
    batch_size: int = 512
    """Vectors per step."""
    steps: int = 600
    """Most steps."""
    evaluate_every: int = 50
    """Steps between evaluations on the held-out part."""
    patience: int = 4
    """Evaluations without a better held-out score after which it stops."""
    holdout: float = 0.1
    """Share of the entities that is held out whole, but at least 20 or a quarter of them; of as
    many others half of the vectors is."""
    seed: int = 0
    """Seeds the held-out part, the class rows and the order."""

    def __post_init__(self) -> None:
        _check_bounds(self, supervised=(0, 1e6), contrastive=(0, 1e6), identity_pull=(0, 1e6))
        _check_bounds(self, margin=(0, 2), scale=(1e-3, 1e4), learning_rate=(0, 1e3))
        _check_bounds(self, batch_size=(2, _ANY), steps=(1, _ANY), evaluate_every=(1, _ANY))
        _check_bounds(self, patience=(1, _ANY), holdout=(0.01, 0.5))


@dataclass(frozen=True)
class IndexSettings:
    """A vector index."""

    kind: Literal["auto", "flat", "hnsw", "ivf"] = "auto"
    """auto: exact below 100,000 vectors, HNSW above, and lists in a file (IVF) from 2 million."""
    hnsw_links: int = 32
    """Neighbours per node of the HNSW graph."""
    ef_construction: int = 200
    """Breadth of the search that builds the HNSW graph."""
    ef_search: int = 128
    """Breadth of the search that answers queries."""

    def __post_init__(self) -> None:
        _check_bounds(self, hnsw_links=(2, _ANY), ef_construction=(1, _ANY), ef_search=(1, _ANY))


@dataclass(frozen=True)
class ServeSettings:
    """The server of an index."""

    max_upload_bytes: int = 20 * 2**20
    """Largest picture that it takes."""
    uploads_kept: int = 1_000
    """Uploaded pictures that it remembers; the oldest ones go."""
    workers: int = 4
    """Requests that are worked on at once; those that wait for the encoder do not count."""
    decoders: int = 2
    """Uploaded pictures that are decoded at once."""
    batch: int = 32
    """Pictures or texts that go through the encoder at once."""
    batch_wait: float = 0.004
    """Seconds that the encoder waits for more of them."""
    queue: int = 512
    """Pictures and texts that may wait for the encoder; beyond, the answer is 503."""
    threads: int = 2
    """Threads of the encoder's arithmetic."""
    error_rate: float = 0.05
    """Share of wrong tags beyond which it rather abstains, unless asked otherwise; of a model that
    `openmofi tag calibrate` has seen."""
    thumbnail_bytes: int = 2**30
    """Size of the thumbnails on the disk, in OPENMOFI_CACHE or the user's cache folder; the oldest
    ones go."""
    shutdown: float = 10.0
    """Seconds that requests have to end when the server is stopped."""

    def __post_init__(self) -> None:
        _check_bounds(self, max_upload_bytes=(1, _ANY), uploads_kept=(1, _ANY), queue=(1, _ANY))
        _check_bounds(
            self, workers=(1, _ANY), decoders=(1, _ANY), batch=(1, _ANY), batch_wait=(0, 1)
        )
        _check_bounds(self, threads=(1, _ANY), thumbnail_bytes=(0, _ANY), shutdown=(0, 3600))
        _check_bounds(self, error_rate=(0, 1))


def override(settings: Any, changes: dict[str, Any], *, where: str = "") -> Any:
    """Returns a copy of a settings dataclass with (nested) changes.

    Raises:
        SettingsError: a key does not exist or a value has the wrong type.
    """
    types = get_type_hints(type(settings))
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
        else:
            values[key] = _checked(path, value, types[key])
    return replace(settings, **values)


def _checked(path: str, value: Any, expected: Any) -> Any:
    """Returns the value in the expected type, or refuses it."""
    import msgspec

    try:
        return msgspec.convert(value, expected, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise SettingsError(f"Setting {path!r} cannot be {value!r}: {error}.") from None


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
        # YAML reads 1e-3 (no dot) as text; numbers in text form are converted by _checked.
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
