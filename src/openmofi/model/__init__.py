"""Stage 6, encoders: presets, Hugging Face directories, and the two towers ready for use."""

from openmofi.model.checkpoint import load_model, load_text_encoder, save_model
from openmofi.model.mofi import MofiModel

__all__ = ["MofiModel", "load_model", "load_text_encoder", "save_model"]
