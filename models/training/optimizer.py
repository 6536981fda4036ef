"""What a step makes of the gradients: AdamW, or Muon for the matrices inside the layers and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from models.network.marian import Marian
from models.training.config import Training

_MOMENTUM = 0.95
_LARGER = 2.0  # Muon's rate, times AdamW's; with 4 the loss stayed where AdamW's was, with 2 it fell


class Optimizer(Protocol):
    """What the loop needs of one; `torch.optim.Optimizer` has it."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Muon:
    """Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) by torch, whose steps are as large as AdamW's
    (Liu et al. 2025, https://arxiv.org/abs/2502.16982), and AdamW for embeddings, biases and norms, as one."""

    def __init__(self, matrices: Sequence[Tensor], adamw: torch.optim.AdamW, training: Training) -> None:
        muon = torch.optim.Muon(
            list(matrices),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            momentum=_MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        )
        for group in muon.param_groups:
            group["factor"] = _LARGER
        self._parts: tuple[torch.optim.Optimizer, ...] = (muon, adamw)
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def optimizer_of(network: Marian, training: Training) -> Optimizer:
    """As `training.optimizer` says; biases and norms do not decay."""
    decaying = [p for p in network.parameters() if p.dim() > 1 and p is not network.final_logits_bias]
    inner = [p for part in (network.encoder, network.decoder) for p in part.parameters() if p.dim() == 2]
    by_muon = {id(p) for p in inner} if training.optimizer == "muon" else set[int]()
    others = {id(p) for p in decaying}
    groups = [
        {"params": [p for p in decaying if id(p) not in by_muon], "weight_decay": training.weight_decay},
        {"params": [p for p in network.parameters() if id(p) not in others], "weight_decay": 0.0},
    ]
    betas = (training.beta1, training.beta2)
    adamw = torch.optim.AdamW(groups, lr=training.learning_rate, betas=betas, eps=1e-9, fused=True)
    return Muon(inner, adamw, training) if by_muon else adamw
