"""The training run: a recipe and a dataset -> run/{config.yaml, metrics.jsonl, model/}.

Three recipes share this loop. `supervised` learns which entity a picture shows (CosFace over
entities), `contrastive` matches pictures and texts (InfoNCE), `multitask` sums both.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.nn import functional as F

import openmofi
from openmofi.config import OptimSettings, TrainSettings, as_dict, override
from openmofi.errors import InputError, MismatchError, OpenMOFIError, SettingsError
from openmofi.folders import new_folder
from openmofi.model import MofiModel, load_model, save_model
from openmofi.model.mofi import pick_device
from openmofi.model.presets import CONTEXT_LENGTHS, IMAGE_SIZES, build_network
from openmofi.model.tokenizer import special_tokens, train_tokenizer
from openmofi.model.transform import Transform
from openmofi.progress import progress
from openmofi.train.augment import augment
from openmofi.train.data import Batch, Loader, TrainData, open_train_data
from openmofi.train.entity_head import EntityHead, save_head
from openmofi.train.losses import INITIAL_LOGIT_SCALE, MAX_LOGIT_SCALE, info_nce
from openmofi.train.schedule import learning_rate_factor
from openmofi.train.state import load_state, save_state
from openmofi.train.texts import TextMix, same_meaning, targets_of

_FREE_TO_CHANGE = frozenset({"steps", "threads", "device", "log_every", "checkpoint_every", "data"})
"""Settings that may differ when a run is resumed; the data itself is compared by its contents."""


@dataclass(frozen=True)
class TrainSummary:
    """What a run did."""

    out: Path
    steps: int
    images: int
    classes: int
    loss: float
    unreadable: int
    seconds: float
    finished: bool
    """False if the run was asked to stop; the same command with --resume goes on."""


def read_recipe(path: Path | str) -> TrainSettings:
    """Returns the settings of a recipe.

    Raises:
        InputError: the file is missing or is not YAML.
        SettingsError: it names a setting that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no recipe {str(path)!r}; see the folder recipes/ for some.")
    try:
        changes = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"The recipe {str(path)!r} is not YAML: {first_line}.") from None
    if not isinstance(changes, dict):
        raise InputError(f"The recipe {str(path)!r} must list settings, as in `steps: 500`.")
    return override(TrainSettings(), changes)


class Run:
    """The state of a training run: networks, optimisers, step."""

    def __init__(self, settings: TrainSettings, data: TrainData):
        _check(settings, data)
        self.settings, self.data = settings, data
        self.device = pick_device(settings.device)
        torch.manual_seed(settings.seed)
        self.model = _make_model(settings, data)
        self.head = None
        if settings.loss.supervised > 0:
            head = EntityHead(
                len(data.entity_ids), self.model.dim, settings.head, seed=settings.seed
            )
            self.head = head.to(self.device)
        self.texts = TextMix(data, settings.loss.text, seed=settings.seed)
        self.optimizer = _make_optimizer(self.model.network, settings.optim)
        self.step = 0

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Learns from one batch and returns what was measured."""
        settings, network = self.settings, self.model.network
        network.train()
        targets = targets_of(self.data, batch.rows)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + batch.step)
        pixels = torch.from_numpy(batch.pixels).to(self.device)
        inputs = self.model.transform.normalise(augment(pixels, settings.augment, generator))

        # ---- forward ----
        bf16 = settings.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            images = self.model.image_features(inputs)
            texts, drawn = None, []
            if settings.loss.contrastive > 0:
                drawn = self.texts.draw(batch.rows, targets[:, 0], step=batch.step)
                texts = self.model.text_features(drawn)
        images = F.normalize(images.float(), dim=-1)
        measured: dict[str, float] = {}
        loss = torch.zeros((), device=self.device)
        targets_on_device = torch.from_numpy(targets).to(self.device)
        if texts is not None:
            groups = None
            if settings.loss.mask_same_entity:
                groups = same_meaning(targets[:, 0], drawn).to(self.device)
            scale = self.model.logit_scale
            contrastive = info_nce(
                images, F.normalize(texts.float(), dim=-1), scale, groups_B=groups
            )
            loss = loss + settings.loss.contrastive * contrastive
            measured["contrastive"] = contrastive.item()
        if self.head is not None:
            supervised, accuracy = self.head.loss(images, targets_on_device, step=batch.step)
            loss = loss + settings.loss.supervised * supervised
            measured |= {"supervised": supervised.item(), "accuracy": accuracy.item()}
        measured["loss"] = loss.item()
        if not np.isfinite(measured["loss"]):
            raise OpenMOFIError(
                f"The loss became {measured['loss']} at step {batch.step}; lower "
                "optim.learning_rate, as in --set optim.learning_rate=1e-3."
            )

        # ---- backward and update ----
        factor = learning_rate_factor(batch.step, steps=settings.steps, settings=settings.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.optim.clip_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if self.head is not None:
            self.head.step(learning_rate=factor * settings.head.learning_rate)
        self.step = batch.step + 1
        return measured

    def state_dict(self) -> dict:
        """Returns everything that resuming needs."""
        return {
            "step": self.step,
            "data": self.data.fingerprint(),
            "network": self.model.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "head": self.head.state_dict() if self.head is not None else None,
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes up a state."""
        if state["data"] != self.data.fingerprint():
            raise MismatchError(
                "The data changed since this run's last checkpoint; bring it back, or start a new "
                "run with another --out."
            )
        self.step = state["step"]
        self.model.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.head is not None:
            self.head.load_state_dict(state["head"])


def train(
    recipe: Path | str | TrainSettings,
    *,
    data: Path | str,
    out: Path | str,
    resume: bool = False,
    changes: dict | None = None,
) -> TrainSummary:
    """Trains a model as a recipe says.

    Args:
        recipe: a YAML file, or settings.
        data: output of `openmofi select`, or raw pairs for a recipe that uses captions alone.
        out: the run's directory.
        resume: go on from the newest checkpoint in `out`.
        changes: settings that override the recipe's, as nested dicts.

    Raises:
        OpenMOFIError: a mistake in the recipe or the data, or `out` belongs to another run.
    """
    settings = recipe if isinstance(recipe, TrainSettings) else read_recipe(recipe)
    settings = override(settings, changes or {})
    started, out = time.monotonic(), Path(out)
    run = Run(settings, open_train_data(data))
    _prepare(out, settings, Path(data), resume=resume)
    state = load_state(out / "checkpoints") if resume else None
    if state is not None:
        run.load_state_dict(state)
        _drop_metrics_after(out / "metrics.jsonl", run.step)
    if run.step >= settings.steps and (out / "model" / "config.json").is_file():
        loss, unreadable, finished = _last_loss(out / "metrics.jsonl"), 0, True
    else:
        loss, unreadable, finished = _run_steps(run, out)
        if finished:
            _save(run, out)
    return TrainSummary(
        out=out,
        steps=run.step,
        images=len(run.data),
        classes=len(run.data.entity_ids),
        loss=loss,
        unreadable=unreadable,
        seconds=time.monotonic() - started,
        finished=finished,
    )


def _run_steps(run: Run, out: Path) -> tuple[float, int, bool]:
    """Returns (mean of the last losses, unreadable pictures, whether all steps were done)."""
    settings = run.settings
    loader = _make_loader(run)
    recent: list[dict[str, float]] = []
    loss, unreadable, waited = float("nan"), 0, 0.0
    stop = _StopRequest()
    mark = time.monotonic()
    with progress(out.name, total=settings.steps, unit="steps") as bar, stop:
        bar.advance(run.step)
        ask = time.monotonic()
        for batch in loader.batches(run.step, settings.steps):
            waited += time.monotonic() - ask
            recent.append(run.train_step(batch))
            unreadable += batch.num_unreadable
            last = run.step == settings.steps
            if run.step % settings.log_every == 0 or last or stop.requested:
                now = time.monotonic()
                seconds = now - mark
                line = {name: float(np.mean([m[name] for m in recent])) for name in recent[0]}
                loss = line["loss"]
                line |= {
                    "images_per_second": len(recent) * settings.batch_size / seconds,
                    "data_wait": waited / seconds,
                }
                _log(out / "metrics.jsonl", run.step, line)
                recent, waited, mark = [], 0.0, now
            bar.advance(note=f"loss {loss:.3f}")
            if run.step % settings.checkpoint_every == 0 or last or stop.requested:
                save_state(out / "checkpoints", run.step, run.state_dict())
            if stop.requested:
                break
            ask = time.monotonic()
    loader.close()
    return loss, unreadable, run.step >= settings.steps


class _StopRequest:
    """Notes SIGTERM, so that the running step ends and is saved."""

    def __init__(self):
        self.requested = False

    def __enter__(self) -> _StopRequest:
        try:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        except ValueError:  # not the main thread: somebody else handles signals
            self._previous = None
        return self

    def __exit__(self, *exception) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, *_) -> None:
        self.requested = True


def _check(settings: TrainSettings, data: TrainData) -> None:
    if settings.loss.supervised <= 0 and settings.loss.contrastive <= 0:
        raise SettingsError("loss.supervised and loss.contrastive are both 0; give one a weight.")
    if settings.loss.supervised > 0 and data.vocabulary is None:
        raise InputError(
            "This recipe needs entities and the data is raw pairs; run `openmofi label` and "
            "`openmofi select` first, or set loss.supervised=0."
        )
    if len(data) < settings.batch_size:
        raise InputError(
            f"The data has {len(data)} images, fewer than a batch; lower it with "
            f"--set batch_size={max(len(data) // 4, 1)}."
        )


def _make_model(settings: TrainSettings, data: TrainData) -> MofiModel:
    if settings.model.init is not None:
        return load_model(settings.model.init, device=settings.device)
    preset = settings.model.preset
    tokenizer = train_tokenizer(
        data.texts(),
        vocab_size=settings.model.vocab_size,
        context_length=CONTEXT_LENGTHS.get(preset, 77),
    )
    size = settings.model.image_size or IMAGE_SIZES[preset]
    network = build_network(preset, special_tokens(tokenizer), image_size=size)
    model = MofiModel(network, tokenizer, Transform(size), settings.device)
    torch.nn.init.constant_(model.logit_scale, INITIAL_LOGIT_SCALE)
    return model


def _make_optimizer(network: torch.nn.Module, optim: OptimSettings) -> torch.optim.Optimizer:
    """Returns AdamW; decay on matrices only, other steps for the text side and tokens."""
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in network.named_parameters():
        text = name.startswith(("text_model.", "text_projection."))
        tokens = name.endswith("token_embedding.weight")
        factor = optim.text_learning_rate_factor if text else 1.0
        peak = optim.learning_rate * (optim.token_learning_rate_factor if tokens else factor)
        decay = optim.weight_decay if parameter.ndim > 1 and not tokens else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ],
        betas=(0.9, optim.beta2),
    )


def _make_loader(run: Run) -> Loader:
    settings = run.settings
    return Loader(
        run.data,
        run.model.transform,
        batch_size=settings.batch_size,
        seed=settings.seed,
        threads=settings.threads,
    )


def _prepare(out: Path, settings: TrainSettings, data: Path, *, resume: bool) -> None:
    """Makes the run's directory, or refuses one that belongs to another run."""
    config = out / "config.yaml"
    resolved = {**as_dict(settings), "data": str(data)}
    if config.is_file() and resume:
        before = yaml.safe_load(config.read_text())
        changed = sorted(
            k for k in resolved if k not in _FREE_TO_CHANGE and before.get(k) != resolved[k]
        )
        if changed:
            raise MismatchError(
                f"{str(out)!r} was started with other settings ({', '.join(changed)}); resume with "
                "the same ones, or choose another --out."
            )
    elif config.is_file():
        raise MismatchError(
            f"{str(out)!r} already holds a run; add --resume to go on, or choose another --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(resolved, sort_keys=False))


def _log(path: Path, step: int, line: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"step": step, **{k: round(v, 5) for k, v in line.items()}}) + "\n")


def _last_loss(path: Path) -> float:
    lines = path.read_text().splitlines()
    return json.loads(lines[-1])["loss"] if lines else float("nan")


def _drop_metrics_after(path: Path, step: int) -> None:
    """Removes what was logged beyond the checkpoint that the run resumes from."""
    if path.is_file():
        lines = [ln for ln in path.read_text().splitlines() if json.loads(ln)["step"] <= step]
        path.write_text("".join(line + "\n" for line in lines))


def _save(run: Run, out: Path) -> None:
    with new_folder(out / "model") as folder:
        save_model(run.model, folder, card=_model_card(run))
        if run.head is not None:
            save_head(run.head, run.data.entity_ids, folder / "entity_head")


def _model_card(run: Run) -> str:
    settings = run.settings
    recipe = yaml.safe_dump(as_dict(settings), sort_keys=False)
    return f"""---
library_name: transformers
tags: [openmofi, image-feature-extraction, zero-shot-image-classification]
---
# {settings.model.init or settings.model.preset}, trained with OpenMOFI {openmofi.__version__}

A dual encoder (images and texts into one space of {run.model.dim} dimensions), trained for
{run.step} steps of {settings.batch_size} on {len(run.data)} images of
{len(run.data.entity_ids)} entities. Load it with `openmofi.model.load_model(path)`, or with
`transformers.AutoModel` and `AutoTokenizer`; `preprocessor_config.json` says how pictures enter.

```yaml
{recipe}```
"""
