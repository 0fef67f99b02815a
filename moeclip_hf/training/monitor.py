"""What the experts do while they train: how far they move, how alike their outputs are, how the load is shared."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import TrainerCallback

from ..loss_moeclip import expert_cosines


def get_expert_load(router_logits: torch.Tensor, num_experts_per_tok: int) -> torch.Tensor:
    """Computes the share of the routing slots that each expert takes.

    Experts that tie for a token's last slots share them evenly: what breaking ties at random gives on average.

    Args:
        router_logits (`torch.Tensor` of shape `(..., num_experts)`): Router logits of one MoE layer.
        num_experts_per_tok (`int`): Experts chosen for each token.

    Returns:
        `torch.Tensor` of shape `(num_experts,)`: Shares that sum to 1.
    """
    logits = router_logits.flatten(0, -2)  # (num_tokens, num_experts)
    last_chosen = logits.topk(num_experts_per_tok, dim=-1).values[:, -1:]
    above, tied = logits > last_chosen, logits == last_chosen
    slots_left = num_experts_per_tok - above.sum(dim=-1, keepdim=True)
    slots = above + tied * slots_left / tied.sum(dim=-1, keepdim=True)
    return slots.mean(dim=0) / num_experts_per_tok


def get_expert_similarity(codes: torch.Tensor, lora_b: torch.Tensor, scaling: float) -> torch.Tensor:
    """Computes the mean cosine between the outputs of two different experts on the same token (paper, 0.02 to 0.45).

    Args:
        codes (`torch.Tensor` of shape `(..., num_experts, r)`): Codes of all experts at each token.
        lora_b (`torch.Tensor` of shape `(num_experts, hidden_size, r)`): Output matrices of the experts.
        scaling (`float`): Scale of the experts' outputs.

    Returns:
        `torch.Tensor`: Scalar in [-1, 1], 0 for a single expert.
    """
    cosines = expert_cosines(codes, lora_b, scaling)  # (num_tokens, num_experts, num_experts)
    num_experts = cosines.shape[-1]
    pairs = cosines.sum(dim=(-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return pairs.mean() / max(num_experts * (num_experts - 1), 1)


class ExpertMonitor(TrainerCallback):
    """Follows the experts of each MoE layer through training, at the cost of a copy of their `lora_B` a step.

    Args:
        get_experts (`Callable`): Returns the `MoELoraExperts` by their 0-based encoder layer.
    """

    def __init__(self, get_experts: Callable[[], dict[int, nn.Module]]):
        self._get_experts = get_experts
        self._experts: dict[int, nn.Module] = {}
        self._hooks = []
        # of the last training forward: {layer: (router logits, codes)}
        self._routing: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._before: dict[int, torch.Tensor] = {}
        self._moved: dict[int, torch.Tensor] = {}
        self._steps = 0

    def on_train_begin(self, args, state, control, **kwargs):
        """Starts to listen to the experts."""
        self.stop()
        self._experts = self._get_experts()
        self._hooks = [experts.register_forward_hook(self._listen(layer)) for layer, experts in self._experts.items()]

    def on_train_end(self, args, state, control, **kwargs):
        """Leaves the model without hooks."""
        self.stop()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Keeps `lora_B` as it is before the step."""
        self._before = {layer: experts.lora_B.detach().clone() for layer, experts in self._experts.items()}

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        """Measures the step, before the schedule changes the rate."""
        rate = optimizer.param_groups[0]["lr"]
        # the first step of a warm-up has no rate
        if getattr(optimizer, "step_was_skipped", False) or rate == 0:
            return
        for layer, experts in self._experts.items():
            moved = (experts.lora_B.detach() - self._before[layer]).abs().mean() / rate
            self._moved[layer] = self._moved[layer] + moved if layer in self._moved else moved
        self._steps += 1

    def collect(self) -> dict[str, torch.Tensor]:
        """Sums up what was seen since the last call.

        Returns:
            `dict[str, torch.Tensor]`: Scalars, for each MoE layer: `lora_B_update/layer_5` (mean absolute change of
            `lora_B`'s entries in a step over the step's learning rate, averaged over the steps), and of the last
            batch `expert_similarity/layer_5` and `expert_load/layer_5/expert_0` and so on.
        """
        values = {f"lora_B_update/layer_{layer}": moved / self._steps for layer, moved in self._moved.items()}
        for layer, (router_logits, codes) in self._routing.items():
            experts = self._experts[layer]
            similarity = get_expert_similarity(codes, experts.lora_B.detach(), experts.scaling)
            values[f"expert_similarity/layer_{layer}"] = similarity
            load = get_expert_load(router_logits, experts.num_experts_per_tok)
            values |= {f"expert_load/layer_{layer}/expert_{i}": share for i, share in enumerate(load)}
        self._moved, self._steps = {}, 0
        return values

    def state_dict(self) -> dict:
        """Gives what was measured since the last `collect`, for a checkpoint.

        Returns:
            `dict`: Tensors and numbers.
        """
        return {"moved": self._moved, "steps": self._steps}

    def load_state_dict(self, state: dict) -> None:
        """Continues from what a checkpoint holds.

        Args:
            state (`dict`): Of `state_dict`.
        """
        self._moved, self._steps = state["moved"], state["steps"]

    def stop(self) -> None:
        """Removes the hooks and forgets what was seen."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._routing, self._moved, self._steps = [], {}, {}, 0

    def _listen(self, layer: int) -> Callable:
        def keep(experts, args, output):
            if experts.training:
                _, router_logits, codes = output
                self._routing[layer] = (router_logits.detach(), codes.detach())

        return keep
