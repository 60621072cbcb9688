"""What settings, tensors and states were called in earlier versions: one table of renames.

Network files, checkpoints and command lines of earlier versions keep working through it.
"""

from collections.abc import Mapping
from typing import Any

# 'section.field' as it was -> as it is.
SETTINGS = {
    "camera.swap": "camera.swap_poses_prob",
    "loss.pull_weight": "loss.pose_consistency_weight",
    "loss.spread_weight": "loss.pose_entropy_weight",
    "generator.pose": "camera.poses",
}
# (setting as it was, its value) -> the value as it is.
VALUES = {("data.crop", "centre"): "center"}
# Settings that said no more than another one does.
REDUNDANT = {("generator.pose", "learned")}
# Settings without an equivalent, whose effect was too small to be seen.
DROPPED = {"loss.pose_spread_weight"}
# Parts of a checkpoint's training state.
STATES = {"g_optimiser": "g_optimizer", "d_optimiser": "d_optimizer"}
# Beginnings of the names of tensors in network files and checkpoints.
TENSORS = {"prior.": "pose_source."}


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings {'section.field': value} in today's spelling.

    A renamed setting replaces one that already has its new name.
    """
    items = [(key, value) for key, value in settings.items() if not _is_gone(key, value)]
    items.sort(key=lambda item: item[0] in SETTINGS)  # renamed ones last
    return {
        SETTINGS.get(key, key): VALUES.get((key, value), value) if isinstance(value, str) else value
        for key, value in items
    }


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A dumped config {section: {field: value}} in today's spelling; other entries stay."""
    sections = {name: fields for name, fields in config.items() if isinstance(fields, Mapping)}
    flat = {
        f"{name}.{field}": value for name, part in sections.items() for field, value in part.items()
    }
    current: dict[str, Any] = {
        name: {} if name in sections else part for name, part in config.items()
    }
    for key, value in current_settings(flat).items():
        section, _, field = key.partition(".")
        current.setdefault(section, {})[field] = value
    return current


def current_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's training state under today's names of its parts and tensors.

    D had no moving average at first: it begins at D. Whether psi had settled was not kept: it had.
    """
    renamed = {STATES.get(name, name): part for name, part in state.items()}
    renamed.setdefault("D_ema", renamed["D"])
    if "diversity" in renamed:
        diversity = renamed["diversity"]
        renamed["diversity"] = {"settled_psi": diversity["psi"]} | diversity
    return renamed | {name: current_tensors(renamed[name]) for name in ("G", "G_ema")}


def current_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of a network {name: tensor} under today's names."""
    return {_current_name(name): tensor for name, tensor in tensors.items()}


def _current_name(tensor: str) -> str:
    for old, new in TENSORS.items():
        if tensor.startswith(old):
            return new + tensor.removeprefix(old)
    return tensor


def _is_gone(key: str, value: Any) -> bool:
    return key in DROPPED or (isinstance(value, str) and (key, value) in REDUNDANT)
