"""The training run: a recipe and a dataset -> run/{config.yaml, metrics.jsonl, model/}.

Three recipes share this loop: `supervised` learns which entity an image shows (CosFace over
entities), `contrastive` matches images and texts (InfoNCE), `multitask` sums both. It runs in one
process, or in all those that `torchrun` starts.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import openmofi
from openmofi.arrays.random_keys import DRAWS_VERSION, Purpose, random_key
from openmofi.config import TrainSettings, override
from openmofi.errors import InputError, MismatchError
from openmofi.files.folders import alone_in, local_path, new_folder
from openmofi.model import MofiModel, load_model, save_model
from openmofi.model.onnx_encoder import onnx_parts
from openmofi.model.open_clip import is_open_clip
from openmofi.model.presets import CONTEXT_LENGTHS, IMAGE_SIZES, build_network, preset_transform
from openmofi.model.tokenizer import load_tokenizer, special_tokens, train_tokenizer
from openmofi.progress import progress
from openmofi.train import towers as holding
from openmofi.train.card import model_card
from openmofi.train.checkpoints import Checkpoints
from openmofi.train.class_balance import ClassBalance
from openmofi.train.data import TrainData, open_train_data, with_synthetic
from openmofi.train.data_vectors import class_means
from openmofi.train.distributed import World, join_world
from openmofi.train.head_files import save_head
from openmofi.train.heldout import HeldOut
from openmofi.train.imported_teacher import ImportedTeacher, check_texts, open_teachers
from openmofi.train.loader import CACHE_BYTES, BatchMaker, Loader
from openmofi.train.losses import IMAGE_TEXT
from openmofi.train.metrics_log import MetricsLog, drop_after, last_loss, last_scores
from openmofi.train.order import Order
from openmofi.train.recipe import (
    check,
    check_place,
    read_recipe,
    with_steps,
    write_config,
)
from openmofi.train.run import Run
from openmofi.train.teacher import Teacher, check_teachers
from openmofi.train.texts import TextMix
from openmofi.train.wise_ft import WeightAverage, choose_share

TOKENIZER = "tokenizer"
"""Folder of a run with what a new model's tokenizer learnt, for --resume."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class TrainSummary:
    """The result of a run."""

    out: Path
    steps: int
    images: int
    """Number of training images."""
    classes: int
    loss: float
    unreadable: int
    """How often an image could not be read."""
    skipped: int
    """Number of steps without a finite gradient."""
    scores: dict[str, float]
    """Last scores on the held-out images, if there are any; with `wise_ft` the saved weights'."""
    choice: WeightAverage | None
    """With `wise_ft`: which mean of the first and the last weights was saved."""
    seconds: float
    finished: bool
    """False if the run was asked to stop; the same command with --resume continues it."""


def train(
    recipe: Path | str | TrainSettings,
    *,
    data: Path | str,
    out: Path | str,
    labels: Path | str | None = None,
    texts: Path | str | None = None,
    kb: Path | str | None = None,
    resume: bool = False,
    changes: dict | None = None,
) -> TrainSummary:
    """Trains a model by a recipe; under torchrun, with all the processes that it started.

    Args:
        recipe: a YAML file, or settings.
        data: output of `openmofi select`; or pairs, alone for a recipe that uses only captions.
        out: the run's directory.
        labels: entities of the images where `data` is pairs, a CSV or Parquet file.
        texts: CSV with id, name and description of these entities.
        kb: knowledge base with the same, if there is no such CSV.
        resume: whether to continue from the newest checkpoint in `out`, which any number of
            processes may have written.
        changes: settings that override the recipe's, as nested dicts.

    Raises:
        OpenMOFIError: a mistake in the recipe or the data, or `out` belongs to another run.
    """
    settings = recipe if isinstance(recipe, TrainSettings) else read_recipe(recipe)
    settings = override(settings, changes or {})
    started, data, out = time.monotonic(), Path(data), local_path(out)
    with ExitStack() as closing_run:
        world = closing_run.enter_context(join_world(settings.device))

        # ---- data, settings and place: the user's mistakes are reported here ---------------------
        with world.in_turn():  # the first one may have files to write
            everything = open_train_data(data, labels=labels, texts=texts, kb=kb)
            everything = with_synthetic(everything, settings.loss.synthetic, source=data)
        parts = everything.split(settings.evaluation, seed=settings.seed)
        images = parts.learnt
        settings = with_steps(settings, images=len(images))
        check(settings, images)
        check_place(out, settings, resume=resume)
        world.share(settings.batch_size)

        # ---- the model, and the batches ahead of it ----------------------------------------------
        is_new = not (out / "checkpoints/latest").is_file()
        torch.manual_seed(random_key(settings.seed, Purpose.WEIGHTS))
        learnt_before = None if is_new else out / TOKENIZER
        model = make_model(settings, images, device=str(world.device), tokenizer=learnt_before)
        mix = TextMix(images, settings.loss.text)
        teachers = open_teachers(settings.loss.teachers, synthetic=settings.loss.synthetic)
        check_texts(teachers, settings.loss.text)
        check_teachers(teachers, images, settings.augment)
        means = None
        if settings.loss.supervised > 0 and settings.head.start == "means" and is_new:
            means = class_means(model, images, world, seed=settings.seed)
        run = Run(model, images, settings, world, start_rows=means)
        loader = _make_loader(settings, images, model, mix, teachers, world)
        reads_texts = settings.loss.contrastive > 0
        held_out = HeldOut(parts, settings.evaluation, reads_texts=reads_texts)

        # ---- from the newest checkpoint, if there is one -----------------------------------------
        if world.is_first:
            closing_run.enter_context(alone_in(out))
        checkpoints = Checkpoints(out / "checkpoints", world, keep=settings.keep_checkpoints)
        card = {
            "data": everything.fingerprint() + everything.synthetic_digest(),
            "openmofi": openmofi.__version__,
            "draws": DRAWS_VERSION,
        }
        _go_on(run, checkpoints, card, out)
        stop = closing_run.enter_context(_StopRequest())
        loss, scores, unreadable = float("nan"), {}, 0
        went_on = run.step < settings.steps
        if not went_on:
            loss, scores = last_loss(out / "metrics.jsonl"), last_scores(out / "metrics.jsonl")

        # ---- the steps: wait for a batch, learn from it; now and then write, measure, save -------
        with ExitStack() as closing:
            log, recent, bar = None, _Recent(settings.batch_size), None
            if world.is_first and went_on:
                bar = closing.enter_context(progress(out.name, total=settings.steps, unit="steps"))
                bar.skip(run.step)
            batches = loader.batches(run.step, settings.steps)
            closing.callback(batches.close)
            asked = time.monotonic()
            for batch in batches:
                recent.waited += time.monotonic() - asked
                if log is None:  # only now are all of the user's inputs known to be right
                    log = closing.enter_context(_open_log(out, settings, run, data))
                recent.measured.append(run.train_step(batch))
                unreadable += batch.num_unreadable
                stopping = world.any(stop.requested)
                last = run.step == settings.steps or stopping

                if run.step % settings.log_every == 0 or last:
                    line = recent.line(run)
                    run.is_sound()
                    loss = line["loss"]
                    log.write(run.step, line)
                    recent = _Recent(settings.batch_size)
                if bar is not None:
                    bar.advance(note=f"loss {loss:.3f}" if math.isfinite(loss) else "")
                paused = time.monotonic()
                measures = run.step % settings.evaluation.every == 0 or run.step == settings.steps
                if measures and len(held_out):
                    scores = _measure(run, held_out)
                    log.write(run.step, scores)
                saves = run.step % settings.checkpoint_every == 0 or last
                if saves and run.is_sound():  # otherwise the weights may be spoilt
                    skipped = {"skipped": int(run.skipped[0])}
                    checkpoints.save(run.step, run.state_dict(), {**card, **skipped})
                checkpoints.poll()
                asked = time.monotonic()
                recent.since += asked - paused  # measuring and saving do not count as step time
                if stopping:
                    break
            checkpoints.finish(must=True)
        if went_on:
            unreadable = world.sum(unreadable)

        # ---- model/, after the last step ---------------------------------------------------------
        has_model = (out / "model/config.json").is_file()
        choice = WeightAverage.read(out) if settings.wise_ft else None
        if run.step >= settings.steps and (went_on or not has_model):
            if settings.wise_ft:
                choice = choose_share(partial(_measure, run, held_out))
                if choice is None and world.is_first:
                    print(
                        "warning: no entity has two held-out images to compare the first and the "
                        "last weights by, so the last are saved; raise evaluation.holdout.",
                        file=sys.stderr,
                    )
            _save_model(run, settings, images, out, choice.scores if choice else scores, choice)
        return TrainSummary(
            out=out,
            steps=run.step,
            images=len(images),
            classes=len(images.entity_ids),
            loss=loss,
            unreadable=unreadable,
            skipped=int(run.skipped[0]),
            scores=choice.scores if choice is not None else scores,
            choice=choice,
            seconds=time.monotonic() - started,
            finished=run.step >= settings.steps,
        )


@dataclass
class _Recent:
    """Measurements since the last line of metrics.jsonl."""

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


def _go_on(run: Run, checkpoints: Checkpoints, card: dict[str, Any], out: Path) -> None:
    """Continues from the newest checkpoint, if there is one.

    Raises:
        MismatchError: it is of other data, or of a version that draws other random numbers.
    """
    found = checkpoints.latest()
    if found is None:
        return
    path, before = found
    same_draws = before.get("draws") == card["draws"]
    if not same_draws and before["step"] < run.settings.steps:
        raise MismatchError(
            f"The run in {str(out)!r} was begun by a version of openmofi that draws "
            "other random numbers, and would now see images in another order; start "
            "a new run with another --out."
        )
    if same_draws and before["data"] != card["data"]:
        raise MismatchError(
            "The data changed since this run's last checkpoint; bring it back, or start a "
            "new run with another --out."
        )
    state = run.state_dict()
    checkpoints.load(path, state)
    run.load_state_dict(state, step=before["step"])
    run.skipped[0] = before.get("skipped", 0)


@contextmanager
def _open_log(out: Path, settings: TrainSettings, run: Run, data: Path) -> Iterator[MetricsLog]:
    """Yields the log of a run, and marks its directory as one by config.yaml."""
    out.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(out, settings, writes=run.world.is_first)
    if run.world.is_first:
        drop_after(out / "metrics.jsonl", run.step)
        write_config(out, settings, data)
        if settings.model.init is None and run.step == 0:
            with new_folder(out / TOKENIZER) as folder:
                run.model.tokenizer.save_pretrained(folder)
    run.world.barrier()
    try:
        yield log
    finally:
        log.close()


def _measure(run: Run, held_out: HeldOut, share: float = 1.0) -> dict[str, float]:
    """Measures the model on the held-out images."""
    sharded = run.settings.parallel == "fsdp" and run.world.size > 1
    # Sharded weights are complete only while all processes do the same.
    world = World(0, 1, run.world.device) if sharded else run.world
    with run.averaged(share), holding.whole(run.towers):
        return held_out.measure(run.model, world)


def _save_model(
    run: Run,
    settings: TrainSettings,
    images: TrainData,
    out: Path,
    scores: dict[str, float],
    choice: WeightAverage | None,
) -> None:
    """Writes model/, ready for AutoModel.

    Raises:
        InputError: the weights may be spoilt.
    """
    if not run.is_sound():
        raise InputError(
            "The gradient of the last step is not finite, so there is no model to save; lower "
            "optim.learning_rate and continue from the last checkpoint with --resume."
        )
    with run.averaged(1.0 if choice is None else choice.share):
        weights = holding.full_weights(run.towers)
        if choice is not None and run.world.is_first:
            choice.write(out)
        folder = new_folder(out / "model") if run.world.is_first else nullcontext()
        with folder as place:
            if place is not None:
                card = model_card(settings, images, run.model, scores, choice)
                save_model(run.model, place, card=card, weights=weights)
            if run.head is not None:
                head = place / "entity_head" if place is not None else Path()
                counts = images.class_counts.tolist()
                save_head(run.head, images.entity_ids, head, images=counts)
    run.world.barrier()


class _StopRequest:
    """Records SIGTERM and Ctrl-C, so that the current step can end and be saved."""

    def __init__(self):
        self.requested = False

    def __enter__(self) -> _StopRequest:
        try:
            self._previous = {n: signal.signal(n, self._note) for n in _STOP_SIGNALS}
        except ValueError:  # not in the main thread: something else handles signals
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


def make_model(
    settings: TrainSettings, data: TrainData, *, device: str, tokenizer: Path | None = None
) -> MofiModel:
    """Returns the initial model: a new one, or the one that the recipe names.

    Args:
        settings: those of the run.
        data: whose texts a new model's tokenizer learns.
        device: auto, cpu, cuda or cuda:N.
        tokenizer: folder of one that learnt them before, if it is there.
    """
    if settings.model.init is not None:
        if is_open_clip(settings.model.init):
            raise InputError(
                f"{settings.model.init!r} is a checkpoint of open_clip, which can label but not be "
                "trained here; pass a Hugging Face one, such as openai/clip-vit-base-patch32."
            )
        model = load_model(settings.model.init, device=device, to_train=True)
        if onnx_parts(model.network):
            raise InputError(
                f"{settings.model.init!r} is computed by onnxruntime, which cannot train it; pass "
                "the model that it was made from."
            )
        if settings.loss.contrastive:
            model.check_reads_texts()
        return model
    preset = settings.model.preset
    if tokenizer is not None and tokenizer.is_dir():
        words = load_tokenizer(tokenizer)
    else:
        words = train_tokenizer(
            data.texts(),
            vocab_size=settings.model.vocab_size,
            context_length=CONTEXT_LENGTHS.get(preset, 77),
        )
    size = settings.model.image_size or IMAGE_SIZES[preset]
    network = build_network(preset, special_tokens(words), image_size=size)
    model = MofiModel(network, words, preset_transform(preset, image_size=size), device)
    torch.nn.init.constant_(model.logit_scale, IMAGE_TEXT[settings.loss.image_text].logit_scale)
    return model


def _make_loader(
    settings: TrainSettings,
    images: TrainData,
    model: MofiModel,
    texts: TextMix,
    teachers: Sequence[Teacher | ImportedTeacher],
    world: World,
) -> Loader:
    reads_texts = settings.loss.contrastive > 0
    balance = None
    if settings.balance > 0 and images.classes is not None:
        balance = ClassBalance(images.classes, images.rows, settings.balance)
    order = Order(len(images), settings.seed, balance)
    # Compiled towers need texts of one length.
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
        rand_ops=settings.augment.rand_ops,
        draw_entity=settings.loss.entity == "drawn",
        cache_bytes=CACHE_BYTES // (world.here * max(settings.workers, 1)),
    )
    pin = world.device.type == "cuda"
    return Loader(maker, threads=settings.threads, workers=settings.workers, pin=pin)
