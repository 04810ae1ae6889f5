"""Directories as published checkpoints have them, with a few random weights: kind -> folder."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    MobileNetV1Config,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

SIDE, CONTEXT = 16, 12
WORDS = [
    "<pad>",
    "<unk>",
    "a",
    "red",
    "green",
    "apple",
    "lime",
    "on",
    "the",
    "table",
    "<s>",
    "</s>",
]
START, END = WORDS.index("<s>"), WORDS.index("</s>")
_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_TEXT = _TOWER | {"vocab_size": len(WORDS), "max_position_embeddings": CONTEXT, "pad_token_id": 0}
_IDS = {"bos_token_id": START, "eos_token_id": END}
_VISION = _TOWER | {"image_size": SIDE, "patch_size": 8}
_SQUARE = {"height": SIDE, "width": SIDE}
PROCESSORS = {
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": _SQUARE,
    },
    "mobilenet": {
        "image_processor_type": "MobileNetV1ImageProcessor",
        "size": {"shortest_edge": SIDE + 5},  # larger than what is kept, as MobileNet's 256 and 224
        "crop_size": _SQUARE,
    },
    "siglip": {
        "image_processor_type": "SiglipImageProcessor",
        "size": _SQUARE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
    },
}
PROCESSORS |= {"bert": PROCESSORS["mobilenet"], "siglip2": PROCESSORS["siglip"]}


def write_model(folder: Path, kind: str) -> Path:
    """Writes a tiny checkpoint: clip, siglip, siglip2 (of one resolution), mobilenet or bert."""
    torch.manual_seed(0)
    network = _network(kind).eval()
    for parameter in network.parameters():  # far from their tiny initial values
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    _tokenizer(kind).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
    return folder


def write_captioner(folder: Path) -> Path:
    """Writes a tiny BLIP that says something else of every image, in random words."""
    torch.manual_seed(2)
    text = _TEXT | _IDS | {"sep_token_id": END, "encoder_hidden_size": 16}
    config = BlipConfig(text_config=text, vision_config=_VISION, projection_dim=8)
    network = BlipForConditionalGeneration(config).eval()
    for parameter in network.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    processor = BlipProcessor(BlipImageProcessorPil(size=_SQUARE), _tokenizer("clip"))
    processor.save_pretrained(folder)
    return folder


def _network(kind):
    if kind == "clip":
        text = _TEXT | _IDS
        config = CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=8)
        return CLIPModel(config)
    if kind.startswith("siglip"):
        text = _TEXT | _IDS | {"projection_size": 16}
        return SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION))
    vision = MobileNetV1Config(image_size=SIDE, depth_multiplier=0.25)
    vision.hidden_size = 256
    text = BertConfig(**_TEXT) if kind == "bert" else CLIPTextConfig(**_TEXT, **_IDS)
    both = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=8)
    return VisionTextDualEncoderModel(both)


def _tokenizer(kind):
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "$A </s>" if kind.startswith("siglip") else "<s> $A </s>"
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", START), ("</s>", END)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=CONTEXT, **names)
