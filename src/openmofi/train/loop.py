"""The training run: a recipe and a dataset -> run/{config.yaml, metrics.jsonl, model/}.

Three recipes share this loop. `supervised` learns which entity a picture shows (CosFace over
entities), `contrastive` matches pictures and texts (InfoNCE), `multitask` sums both. One process
runs it, or all that `torchrun` starts.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import openmofi
from openmofi.arrays.random_keys import DRAWS_VERSION, Purpose, random_key
from openmofi.config import TrainSettings, override
from openmofi.errors import InputError, MismatchError
from openmofi.files.folders import local_path, new_folder
from openmofi.model import MofiModel, load_model, save_model
from openmofi.model.open_clip import is_open_clip
from openmofi.model.presets import CONTEXT_LENGTHS, IMAGE_SIZES, build_network
from openmofi.model.tokenizer import special_tokens, train_tokenizer
from openmofi.model.transform import Transform
from openmofi.progress import progress
from openmofi.train import towers as holding
from openmofi.train.card import model_card
from openmofi.train.checkpoints import Checkpoints
from openmofi.train.data import TrainData, open_train_data
from openmofi.train.distributed import World, join_world
from openmofi.train.entity_head import save_head
from openmofi.train.heldout import HeldOut
from openmofi.train.loader import CACHE_BYTES, BatchMaker, Loader
from openmofi.train.losses import IMAGE_TEXT
from openmofi.train.metrics_log import MetricsLog, drop_after, last_loss, last_scores
from openmofi.train.order import Order, balanced_order
from openmofi.train.recipe import (
    alone_in,
    check,
    check_place,
    read_recipe,
    with_steps,
    write_config,
)
from openmofi.train.run import Run
from openmofi.train.teacher import Teacher, check_teachers
from openmofi.train.texts import TextMix

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class TrainSummary:
    """What a run did."""

    out: Path
    steps: int
    images: int
    """Images it learnt from."""
    classes: int
    loss: float
    unreadable: int
    """Pictures that could not be read, each time one was wanted."""
    skipped: int
    """Steps whose gradient was not finite."""
    scores: dict[str, float]
    """Last scores on the held-out images, if there are any."""
    seconds: float
    finished: bool
    """False if the run was asked to stop; the same command with --resume goes on."""


def train(
    recipe: Path | str | TrainSettings,
    *,
    data: Path | str,
    out: Path | str,
    resume: bool = False,
    changes: dict | None = None,
) -> TrainSummary:
    """Trains a model as a recipe says; under torchrun, with all processes that it started.

    Args:
        recipe: a YAML file, or settings.
        data: output of `openmofi select`, or raw pairs for a recipe that uses captions alone.
        out: the run's directory.
        resume: go on from the newest checkpoint in `out`, written by any number of processes.
        changes: settings that override the recipe's, as nested dicts.

    Raises:
        OpenMOFIError: a mistake in the recipe or the data, or `out` belongs to another run.
    """
    settings = recipe if isinstance(recipe, TrainSettings) else read_recipe(recipe)
    settings = override(settings, changes or {})
    started, out = time.monotonic(), local_path(out)
    with join_world(settings.device) as world:
        everything = open_train_data(data)
        images, held_out = everything.split(settings.evaluation.holdout, seed=settings.seed)
        settings = with_steps(settings, images=len(images))
        check(settings, images)
        check_place(out, settings, resume=resume)
        world.share(settings.batch_size)
        work = _Work(settings, images, held_out, out, world)
        with alone_in(out) if world.is_first else nullcontext():
            work.begin(Path(data), fingerprint=everything.fingerprint())
            return work.to_the_end(started)


@dataclass
class _Recent:
    """What happened since the last line of metrics.jsonl."""

    batch_size: int
    measured: list[dict[str, Tensor]] = field(default_factory=list)
    waited: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def line(self, run: Run) -> dict[str, float]:
        """Returns the means over steps and processes; waits for the steps."""
        names = list(self.measured[0])
        values = torch.stack([torch.stack(list(m.values())) for m in self.measured])
        means = run.world.all_gather(values.nanmean(0)[None]).mean(0).tolist()
        seconds = time.monotonic() - self.since
        return dict(zip(names, means, strict=True)) | {
            "learning_rate": run.optimizer.param_groups[0]["lr"],
            "skipped": int(run.skipped[0]),
            "images_per_second": len(self.measured) * self.batch_size / seconds,
            "data_wait": self.waited / seconds,
        }


class _Work:
    """A run and what stands around it: data ahead of it, checkpoints and lines behind it."""

    def __init__(
        self,
        settings: TrainSettings,
        images: TrainData,
        held_out: TrainData,
        out: Path,
        world: World,
    ):
        self.settings, self.images, self.out, self.world = settings, images, out, world
        torch.manual_seed(random_key(settings.seed, Purpose.WEIGHTS))
        model = make_model(settings, images, device=str(world.device))
        texts = TextMix(images, settings.loss.text)
        teachers = [Teacher(folder) for folder in settings.loss.teachers]
        check_teachers(teachers, images, settings.augment)
        self.run = Run(model, images, settings, world)
        self.loader = _make_loader(settings, images, model, texts, teachers, world)
        self.held_out = HeldOut(
            held_out, settings.evaluation, reads_texts=settings.loss.contrastive > 0
        )
        self.loss, self.unreadable = float("nan"), 0
        self.scores: dict[str, float] = {}

    def begin(self, data: Path, *, fingerprint: str) -> None:
        """Starts from the newest checkpoint, if there is one."""
        self.data = data
        self.checkpoints = Checkpoints(
            self.out / "checkpoints", self.world, keep=self.settings.keep_checkpoints
        )
        self.card = {"data": fingerprint, "openmofi": openmofi.__version__, "draws": DRAWS_VERSION}
        found = self.checkpoints.latest()
        if found is not None:
            path, card = found
            if card["data"] != fingerprint:
                raise MismatchError(
                    "The data changed since this run's last checkpoint; bring it back, or start a "
                    "new run with another --out."
                )
            if card.get("draws") != DRAWS_VERSION and card["step"] < self.settings.steps:
                raise MismatchError(
                    f"The run in {str(self.out)!r} was begun by a version of openmofi that draws "
                    "other random numbers, and would now learn from images that it held out; start "
                    "a new run with another --out."
                )
            state = self.run.state_dict()
            self.checkpoints.load(path, state)
            self.run.load_state_dict(state, step=card["step"])
            self.run.skipped[0] = card.get("skipped", 0)

    def to_the_end(self, started: float) -> TrainSummary:
        """Does the steps that are left and saves the model."""
        with _StopRequest() as stop:
            went_on = self.run.step < self.settings.steps
            if went_on:
                self._steps(stop)
            else:
                lines = self.out / "metrics.jsonl"
                self.loss, self.scores = last_loss(lines), last_scores(lines)
            has_model = (self.out / "model/config.json").is_file()
            if self.run.step >= self.settings.steps and (went_on or not has_model):
                self._save_model()
        return TrainSummary(
            out=self.out,
            steps=self.run.step,
            images=len(self.images),
            classes=len(self.images.entity_ids),
            loss=self.loss,
            unreadable=self.unreadable,
            skipped=int(self.run.skipped[0]),
            scores=self.scores,
            seconds=time.monotonic() - started,
            finished=self.run.step >= self.settings.steps,
        )

    def _steps(self, stop: _StopRequest) -> None:
        """The loop: wait for a batch, learn from it, and now and then write, measure, save."""
        settings, run, log = self.settings, self.run, None
        recent = _Recent(settings.batch_size)
        shown = progress(self.out.name, total=settings.steps, unit="steps")
        batches = self.loader.batches(run.step, settings.steps)
        with (
            shown if self.world.is_first else nullcontext() as bar,
            ExitStack() as closing,
        ):
            closing.callback(batches.close)
            if bar is not None:
                bar.start_at(run.step)
            asked = time.monotonic()
            for batch in batches:
                recent.waited += time.monotonic() - asked
                if log is None:  # all that a user may have got wrong is known to be right
                    log = closing.enter_context(self._open_log())
                recent.measured.append(run.train_step(batch))
                self.unreadable += batch.num_unreadable
                stopping = self.world.any(stop.requested)
                last = run.step == settings.steps or stopping

                if run.step % settings.log_every == 0 or last:
                    line = recent.line(run)
                    run.is_sound()
                    self.loss = line["loss"]
                    log.write(run.step, line)
                    recent = _Recent(settings.batch_size)
                if bar is not None:
                    bar.advance(note=f"loss {self.loss:.3f}")
                paused = time.monotonic()
                if run.step % settings.evaluation.every == 0 or run.step == settings.steps:
                    self._measure(log)
                if run.step % settings.checkpoint_every == 0 or last:
                    self._save_checkpoint()
                self.checkpoints.poll()
                asked = time.monotonic()
                recent.since += asked - paused  # what is beside the steps says nothing of them
                if stopping:
                    break
            self.checkpoints.finish(must=True)
        self.unreadable = self.world.sum(self.unreadable)

    @contextmanager
    def _open_log(self) -> Iterator[MetricsLog]:
        """Yields the metrics of this run; config.yaml says from now on that it is one."""
        metrics = self.out / "metrics.jsonl"
        self.out.mkdir(parents=True, exist_ok=True)
        log = MetricsLog(self.out, self.settings, writes=self.world.is_first)
        if self.world.is_first:
            drop_after(metrics, self.run.step)
            write_config(self.out, self.settings, self.data)
        self.world.barrier()
        try:
            yield log
        finally:
            log.close()

    def _measure(self, log: MetricsLog) -> None:
        """Measures the model on the held-out images."""
        if not len(self.held_out.data):
            return
        sharded = self.settings.parallel == "fsdp" and self.world.size > 1
        # Sharded weights are only whole while all processes do the same.
        world = World(0, 1, self.world.device) if sharded else self.world
        with self.run.averaged(), holding.whole(self.run.towers):
            self.scores = self.held_out.measure(self.run.model, world)
        log.write(self.run.step, self.scores)

    def _save_checkpoint(self) -> None:
        """Begins to write a checkpoint, unless the weights may be spoilt."""
        if self.run.is_sound():
            card = {**self.card, "skipped": int(self.run.skipped[0])}
            self.checkpoints.save(self.run.step, self.run.state_dict(), card)

    def _save_model(self) -> None:
        """Writes model/, ready for AutoModel."""
        if not self.run.is_sound():
            raise InputError(
                "The gradient of the last step is not finite, so there is no model to save; lower "
                "optim.learning_rate and go on from the last checkpoint with --resume."
            )
        with self.run.averaged():
            weights = holding.full_weights(self.run.towers)
            folder = new_folder(self.out / "model") if self.world.is_first else nullcontext()
            with folder as place:
                if place is not None:
                    card = model_card(self.settings, self.images, self.run.model, self.scores)
                    save_model(self.run.model, place, card=card, weights=weights)
                if self.run.head is not None:
                    head = place / "entity_head" if place is not None else Path()
                    counts = self.images.class_counts.tolist()
                    save_head(self.run.head, self.images.entity_ids, head, images=counts)
        self.world.barrier()


class _StopRequest:
    """Notes SIGTERM and Ctrl-C, so that the running step ends and is saved."""

    def __init__(self):
        self.requested = False

    def __enter__(self) -> _StopRequest:
        try:
            self._previous = {n: signal.signal(n, self._note) for n in _STOP_SIGNALS}
        except ValueError:  # not the main thread: somebody else handles signals
            self._previous = {}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr)
        self.requested = True


def make_model(settings: TrainSettings, data: TrainData, *, device: str) -> MofiModel:
    """Returns the model to begin with: a new one, or the one that the recipe names."""
    if settings.model.init is not None:
        if is_open_clip(settings.model.init):
            raise InputError(
                f"{settings.model.init!r} is a checkpoint of open_clip, which can label but not be "
                "trained here; pass a Hugging Face one, such as openai/clip-vit-base-patch32."
            )
        return load_model(settings.model.init, device=device)
    preset = settings.model.preset
    tokenizer = train_tokenizer(
        data.texts(),
        vocab_size=settings.model.vocab_size,
        context_length=CONTEXT_LENGTHS.get(preset, 77),
    )
    size = settings.model.image_size or IMAGE_SIZES[preset]
    network = build_network(preset, special_tokens(tokenizer), image_size=size)
    model = MofiModel(network, tokenizer, Transform(size), device)
    torch.nn.init.constant_(model.logit_scale, IMAGE_TEXT[settings.loss.image_text].logit_scale)
    return model


def _make_loader(
    settings: TrainSettings,
    images: TrainData,
    model: MofiModel,
    texts: TextMix,
    teachers: list[Teacher],
    world: World,
) -> Loader:
    reads_texts = settings.loss.contrastive > 0
    order = Order(len(images), settings.seed)
    if settings.balance > 0:
        targets = images.targets(np.arange(len(images)))
        order = balanced_order(
            targets, images.class_counts, balance=settings.balance, seed=settings.seed
        )
    # Compiled towers want texts of one length.
    length = model.context_length if settings.compile else None
    tokenize = partial(model.text_inputs.copy(), length=length)
    maker = BatchMaker(
        images,
        model.transform,
        order,
        batch_size=settings.batch_size,
        share=world.share(settings.batch_size),
        texts=texts if reads_texts else None,
        tokenize=tokenize if reads_texts else None,
        teachers=teachers,
        draw_entity=settings.loss.entity == "drawn",
        cache_bytes=CACHE_BYTES // (world.here * max(settings.workers, 1)),
    )
    pin = world.device.type == "cuda"
    return Loader(maker, threads=settings.threads, workers=settings.workers, pin=pin)
