"""How far each parameter of a dual encoder lies from its tower's output, for layer-wise step sizes.

0 is what follows a tower's last layer (final norm, pooling, projection), 1 is what precedes its
first one (patch or token embeddings); the layers lie evenly between. A layer is what Hugging Face's
networks keep in a ModuleList, or in one of a stage's. Pretrained early layers need little change:
ULMFiT (arXiv 1801.06146), BEiT (arXiv 2106.08254).
"""

from __future__ import annotations

import torch


def layer_distances(network: torch.nn.Module) -> dict[str, float]:
    """Returns {parameter's name: share of its tower's layers that follow it}, 0 to 1."""
    distances = {name: 0.0 for name, _ in network.named_parameters()}
    for tower in ("vision_model.", "text_model."):
        layers = {n: _layer_of(network, n) for n in distances if n.startswith(tower)}
        order = list(dict.fromkeys(layer for layer in layers.values() if layer is not None))
        begun = False
        for name, layer in layers.items():  # in the order in which the network computes them
            begun = begun or layer is not None
            if layer is not None:
                distances[name] = (len(order) - order.index(layer)) / (len(order) + 1)
            elif order and not begun:
                distances[name] = 1.0
    return distances


def _layer_of(network: torch.nn.Module, name: str) -> str | None:
    """Returns the layer that holds a parameter, if any: a stage's layer where there are stages."""
    module, parts, found = network, name.split("."), []
    for place, part in enumerate(parts[:-1]):
        if isinstance(module, torch.nn.ModuleList):
            found.append(".".join(parts[: place + 1]))
        module = module.get_submodule(part)
    return found[:2][-1] if found else None
