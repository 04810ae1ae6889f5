"""Trains a reader of hard mentions: annotated texts + an encoder -> a pointer or a decoder.

    gold mentions -> the linker's candidates -> examples -> the reader learns to choose

A name is held out with all its mentions. There the scale of what the reader adds is fitted, since
readers are soon too sure of themselves, and the step after which the truth is most probable is
kept. Only texts whose mentions are all annotated show what NIL is.

State is written at each evaluation; the same call goes on from it and ends with the same bits.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

import openmofi
from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import FusionSettings, as_dict, override
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.evaluate.linking_data import LinkingData
from openmofi.evaluate.linking_fit import examples_in
from openmofi.files.folders import alone_in, check_replaceable, local_path, new_folder, replace_file
from openmofi.label.encoder import model_digest
from openmofi.link.linker import Linker
from openmofi.link.weights import LinkWeights
from openmofi.model.fusion_decoder import load_encoder_decoder
from openmofi.model.fusion_files import CARD
from openmofi.model.sides import is_dual, is_encoder_decoder
from openmofi.progress import progress
from openmofi.train.adapt_score import hashed
from openmofi.train.decoder_training import DecoderTraining
from openmofi.train.distributed import World, join_world
from openmofi.train.fusion_examples import (
    MentionExamples,
    examples_of_descriptions,
    examples_of_group,
    joined,
)
from openmofi.train.pointer_training import PointerTraining

_FEWEST = 100
_FEWEST_APART = 10
_MOST_HELD_OUT = 2000
_WARMUP = 0.1
_STATE = "state.pt"
_SCALES = tuple(n / 10 for n in range(16))
_CLIP = 1.0


class Learner(Protocol):
    """A reader that learns; `PointerTraining` and `DecoderTraining` are the two."""

    network: Any

    def groups(self) -> list[tuple[list[Tensor], float, float]]:
        """Returns parameters, their relative step size and their weight decay."""
        ...

    def begin(self, examples: MentionExamples, /) -> None:
        """Does what comes before the first step."""
        ...

    def loss(self, examples: MentionExamples, /) -> Float[Tensor, " b"]:
        """Returns the loss of each mention."""
        ...

    def logits(self, examples: MentionExamples, /) -> Float[Tensor, "b k"]:
        """Returns logits of candidates, relative to NIL."""
        ...

    def save(self, folder: Path, weights: LinkWeights, card: dict[str, Any], /) -> None:
        """Writes the reader into an empty folder."""
        ...

    def card(self, figures: str, /) -> str:
        """Returns the model card."""
        ...


@dataclass(frozen=True)
class FusionSummary:
    """What came of training a reader."""

    out: Path
    mentions: int
    """Those that teach something."""
    nil: int
    """Mentions that mean nothing; only completely annotated texts have any."""
    held_out: int
    steps: int
    """The step that was kept; 0: none was better than what it began with."""
    before: dict[str, float]
    """Of held-out mentions, by the linear score: accuracy, and mean log likelihood of the truth."""
    after: dict[str, float]
    """The same with the reader, and the scale of what it adds."""


def fit_fusion(
    linker: Linker,
    data: Sequence[LinkingData],
    *,
    encoder: str | Path,
    out: Path | str,
    settings: FusionSettings | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> FusionSummary:
    """Trains a reader on annotated texts and writes it; an interrupted call goes on.

    Args:
        linker: finds the candidates, and gives the linear score to which the reader adds.
        data: texts with gold mentions, as for `evaluate.linking_fit.fit_on`.
        encoder: directory or hub id of what to start from: a text encoder becomes a pointer, an
            encoder-decoder a decoder.
        out: folder to write.
        settings: of the training.
        changes: settings to change, as `config.parse_assignments` gives them.
        device: auto, cpu, cuda or cuda:N; under torchrun, each process takes its own GPU.

    Raises:
        InputError: the encoder or the data cannot be read, or there are too few mentions.
        MismatchError: an interrupted training had other data or settings.
    """
    out = local_path(out)
    chosen: FusionSettings = override(settings or FusionSettings(), dict(changes or {}))
    check_replaceable(out, lambda folder: (folder / CARD).is_file(), "a fusion reader")
    groups = [(examples_in(linker, one), [d.text for d in one.documents]) for one in data]
    parts = [examples_of_group(linker, *group) for group in groups]
    if chosen.descriptions:
        most = chosen.descriptions
        parts.append(examples_of_descriptions(linker, most=most, seed=chosen.seed))
    examples = joined(parts)
    described = {"kb": linker.kb.fingerprint, "data": [one.name for one in data]}
    where = {"encoder": encoder, "out": out, "settings": chosen, "device": device}
    return train_reader(examples, linker.weights, described=described, **where)


def train_reader(
    examples: MentionExamples,
    weights: LinkWeights,
    *,
    described: dict[str, Any],
    encoder: str | Path,
    out: Path,
    settings: FusionSettings,
    device: str,
) -> FusionSummary:
    """Trains a reader on examples and writes it; see `fit_fusion`.

    Args:
        examples: of one or more knowledge bases.
        weights: of the linear score, by which all examples were scored.
        described: what tells these examples from others.
        encoder: what to start from.
        out: folder to write.
        settings: of the training.
        device: see `fit_fusion`.
    """
    if len(examples) < _FEWEST:
        raise InputError(
            f"The data has {len(examples)} mentions with a choice of meanings in the knowledge "
            f"base; training a reader needs {_FEWEST}."
        )
    with join_world(device) as world:
        run = _Training(examples, str(encoder), settings, world)
        described = {
            **described,
            "encoder": model_digest(str(encoder)),
            "examples": examples.digest(weights),
            "settings": as_dict(settings),
            "processes": world.size,
        }
        own = out.with_name(f".{out.name}.training")
        with alone_in(own) if world.is_first else nullcontext():
            run.restore(own / _STATE, described)
            run.train(own / _STATE, described)
            summary = run.summary(out)
            if world.is_first:
                with new_folder(out) as folder:
                    card = {**described, "openmofi": openmofi.__version__, "encoder": str(encoder)}
                    card |= {n: v for n, v in asdict(summary).items() if n != "out"}
                    card["scale"] = summary.after["scale"]
                    run.learner.save(folder, weights, card)
                    lines = "".join(json.dumps(line) + "\n" for line in run.log)
                    (folder / "metrics.jsonl").write_text(lines)
                    (folder / "README.md").write_text(run.learner.card(_figures(summary, card)))
                shutil.rmtree(own, ignore_errors=True)
        world.barrier()
    return summary


def _learner(
    encoder: str, examples: MentionExamples, settings: FusionSettings, world: World
) -> Learner:
    """Returns a reader that learns: a decoder of an encoder-decoder, or a pointer.

    Raises:
        InputError: it is neither an encoder-decoder nor a text encoder.
        SettingsError: layers of an encoder-decoder are to be left out.
    """
    if is_encoder_decoder(encoder):
        if settings.text_layers:
            raise SettingsError(
                "Setting 'text_layers' is for pointers; a decoder keeps all layers."
            )
        decoder = load_encoder_decoder(encoder, device=str(world.device))
        return DecoderTraining(decoder, world.device)
    if is_dual(encoder):
        raise InputError(
            f"{encoder!r} is a dual encoder, whose texts are made for images; expected a text "
            "encoder, such as sentence-transformers/all-MiniLM-L6-v2, or an encoder-decoder, such "
            "as google/flan-t5-small."
        )
    return PointerTraining(encoder, examples.texts.described, settings, world.device)


class _Training:
    """The state of a training."""

    def __init__(
        self, examples: MentionExamples, encoder: str, settings: FusionSettings, world: World
    ):
        self.examples, self.settings, self.world = examples, settings, world
        self.train_rows, self.held_out = self._split()
        torch.manual_seed(self._seed())  # the same in all processes
        self.learner = _learner(encoder, examples, settings, world)
        self.network = self.learner.network
        self.steps_of_epoch = -(-len(self.train_rows) // settings.batch_size)
        self.steps, self.step = settings.epochs * self.steps_of_epoch, 0
        rate = settings.learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {"params": part, "lr": rate * factor, "peak": rate * factor, "weight_decay": decay}
                for part, factor, decay in self.learner.groups()
            ]
        )
        self.log: list[dict[str, Any]] = []
        self.before = self.measure((0.0,))
        self.best: tuple[int, dict[str, float], dict[str, Tensor]] = (0, self.before, {})

    def _seed(self, *numbers: int) -> int:
        return random_key(self.settings.seed, Purpose.FUSION_STEP, *numbers) >> 1

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (mentions to learn from, held-out mentions).

        No name is in both, or where there are few names, no text.
        """
        key = random_key(self.settings.seed, Purpose.FUSION_HELD_OUT)
        places = [str(number) for number in range(len(self.examples))]
        apart = (self.examples.names, self.examples.mentions.texts, places)
        units = next(units for units in apart if len(set(units)) >= _FEWEST_APART)
        drawn = np.array([hashed(unit, key) for unit in units])
        # At least one unit is held out, and at least one is not.
        held = drawn < max(self.settings.holdout, np.nextafter(drawn.min(), 1))
        rows = np.flatnonzero(held)
        return np.flatnonzero(~held), rows[np.argsort(drawn[rows], kind="stable")][:_MOST_HELD_OUT]

    def train(self, state: Path, described: dict[str, Any]) -> None:
        """Trains to the end, and leaves the weights of the best step."""
        if self.step == 0:
            if self.world.is_first:
                self.learner.begin(self.examples.some(self.train_rows))
            self._share_parameters()
            self._evaluate()
        with progress("read", total=self.steps, unit="steps") as bar:
            bar.skip(self.step)
            while self.step < self.steps:
                self._advance()
                bar.advance(1)
                if self.step % self.settings.evaluate_every == 0 or self.step == self.steps:
                    self._evaluate()
                    if self.world.is_first and self.step < self.steps:
                        self.save(state, described)
        self.network.load_state_dict(self.best[2])

    def _share_parameters(self) -> None:
        """Gives all processes those of the first."""
        if self.world.size > 1:
            for parameter in self.network.parameters():
                dist.broadcast(parameter.data, 0, group=self.world.group)

    def _advance(self) -> None:
        """Does one step; each process takes its part of the mentions."""
        self.network.train()
        torch.manual_seed(self._seed(self.step, self.world.rank))
        factor = min(1.0, (self.step + 1) / max(1, int(_WARMUP * self.steps)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor * (1 - self.step / self.steps)
        rows = self._batch()
        own = rows[self.world.rank :: self.world.size]
        self.optimizer.zero_grad(set_to_none=False)
        if len(own):
            chosen = self.examples.some(own, self.settings.max_candidates)
            (self.learner.loss(chosen).sum() / len(rows)).backward()
        if self.world.size > 1:
            for parameter in self.network.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad, group=self.world.group)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        self.optimizer.step()
        self.step += 1

    def _batch(self) -> np.ndarray:
        """Returns the mentions of the next step."""
        size = self.settings.batch_size
        epoch, at = divmod(self.step, self.steps_of_epoch)
        key = random_key(self.settings.seed, Purpose.FUSION_ORDER, epoch)
        order = np.random.default_rng(key).permutation(self.train_rows)
        return order[at * size : (at + 1) * size]

    # ---- held out ------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        """Measures the reader, and keeps its weights if no earlier ones were better."""
        scores = self.measure()
        self.log.append({"step": self.step, **{n: round(v, 5) for n, v in scores.items()}})
        # Where the scale is 0, nothing is added, whatever the weights are.
        if not self.best[2] or scores["log_likelihood"] > self.best[1]["log_likelihood"]:
            state = self.network.state_dict()
            self.best = self.step, scores, {name: v.detach().clone() for name, v in state.items()}

    @torch.no_grad()
    def measure(self, scales: Sequence[float] = _SCALES) -> dict[str, float]:
        """Returns accuracy and mean log likelihood of the truth, of held-out mentions.

        Given that a mention means something where NIL is not annotated.

        Args:
            scales: of what the reader adds; the one with the highest likelihood is returned, too.
        """
        self.network.eval()
        right, likelihood = np.zeros(len(scales)), np.zeros(len(scales))
        size, rows = self.settings.batch_size, self.held_out
        for at in range(0, len(rows), size):
            chosen = self.examples.some(rows[at : at + size])
            linear, offered = chosen.padded(chosen.logit, 0.0)
            added = np.zeros_like(linear)
            if any(scales):
                found = self.learner.logits(chosen).double().cpu().numpy()
                added = np.where(offered, found - linear, 0)
            truth, _ = chosen.padded(chosen.target, 0.0)
            truth = np.hstack([truth.sum(1, keepdims=True) == 0, truth])
            nil = np.where(chosen.knows_nil, 0, -np.inf)[:, None]
            for number, scale in enumerate(scales):
                logit = np.where(offered, linear + scale * added, -np.inf)
                logit = np.hstack([nil, logit])
                log_p = logit - np.logaddexp.reduce(logit, axis=1, keepdims=True)
                right[number] += np.take_along_axis(truth, logit.argmax(1)[:, None], 1).sum()
                likelihood[number] += (truth * np.where(truth > 0, log_p, 0)).sum()
        best = int(likelihood.argmax())
        scores = {"accuracy": right[best], "log_likelihood": likelihood[best]}
        found = {name: float(score / len(rows)) for name, score in scores.items()}
        return {**found, "scale": scales[best]}

    def summary(self, out: Path) -> FusionSummary:
        """Returns the figures of the best step."""
        is_nil = np.add.reduceat(self.examples.target, self.examples.begin[:-1]) == 0
        step, after, _ = self.best
        counts = len(self.examples), int(is_nil.sum()), len(self.held_out)
        return FusionSummary(out, *counts, step, self.before, after)

    # ---- going on ------------------------------------------------------------------------------

    def save(self, path: Path, described: dict[str, Any]) -> None:
        """Writes everything that the next steps depend on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "described": described,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "log": self.log,
        }
        with replace_file(path) as partial:
            torch.save(state, partial)

    def restore(self, path: Path, described: dict[str, Any]) -> None:
        """Goes on from the state of an interrupted training, if there is one.

        Raises:
            MismatchError: that training was another.
        """
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.world.device, weights_only=True)
        if state["described"] != described:
            changed = [n for n, v in described.items() if state["described"].get(n) != v]
            raise MismatchError(
                f"{path.parent} holds an interrupted training with other {', '.join(changed)}; "
                "give the same arguments to go on, or delete that folder to begin again."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best, self.log = state["step"], tuple(state["best"]), state["log"]


def _figures(summary: FusionSummary, card: dict[str, Any]) -> str:
    """Returns what a model card says of the training."""
    rows = "".join(
        f"| {name} | {summary.before[name]:.3f} | {summary.after[name]:.3f} |\n"
        for name in ("accuracy", "log_likelihood")
    )
    return f"""It began as `{card["encoder"]}` and learnt with OpenMOFI {card["openmofi"]} from
{summary.mentions:,} mentions of {", ".join(card["data"])}; step {summary.steps} was the best on
{summary.held_out:,} held-out mentions:

| held out | linear score | with the reader |
|---|---|---|
{rows}
Use it with `openmofi link --fusion FOLDER`.
"""
