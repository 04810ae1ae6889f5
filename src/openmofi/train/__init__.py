"""Stage 7, training: a selected dataset and a recipe -> a checkpoint."""

from openmofi.train.adapt import adapt
from openmofi.train.entity_head import EntityHead
from openmofi.train.loop import train
from openmofi.train.pair import pair
from openmofi.train.reinforce import reinforce

__all__ = ["EntityHead", "adapt", "pair", "reinforce", "train"]
