"""The experts of MoECLIP: frozen orthogonal feature separation, the patch router and the mixture of LoRA experts.

Source: Park et al., "MoECLIP: Patch-Specialized Experts for Zero-shot Anomaly Detection", CVPR 2026,
https://arxiv.org/abs/2603.03101.
"""

import math

import torch
from torch import nn
from transformers import initialization as init

from .configuration_moeclip import MoELoraConfig, validate_expert_sizes


def split_features(hidden_size: int, num_experts: int) -> list[int]:
    """Cuts the features into consecutive chunks, one per expert, whose sizes differ by at most one.

    Args:
        hidden_size (`int`): Number of features.
        num_experts (`int`): Number of chunks.

    Returns:
        `list[int]`: Sizes of the chunks, the larger ones first.
    """
    size, larger = divmod(hidden_size, num_experts)
    return [size + 1] * larger + [size] * (num_experts - larger)


def orthogonal_split_lora_a(num_experts: int, r: int, hidden_size: int, generator: torch.Generator) -> torch.Tensor:
    """Draws the frozen `lora_A` of FOFS: orthonormal rows inside an expert's own chunk of features, zero outside.

    So `lora_A[i] @ lora_A[j].T` is the identity for i = j and zero otherwise.

    Args:
        num_experts (`int`): Number of experts.
        r (`int`): Rank of each expert, at most the size of the smallest chunk.
        hidden_size (`int`): Number of input features.
        generator (`torch.Generator`): Source of the Gaussian matrices, on the CPU.

    Returns:
        `torch.Tensor` of shape `(num_experts, r, hidden_size)`, float32, on the CPU.
    """
    # device and dtype are named because models are built on the meta device and under a half-precision default
    lora_a = torch.zeros(num_experts, r, hidden_size, device="cpu", dtype=torch.float32)
    start = 0
    for expert, size in enumerate(split_features(hidden_size, num_experts)):
        gaussian = torch.randn(size, r, generator=generator, device="cpu", dtype=torch.float32)
        orthonormal, _ = torch.linalg.qr(gaussian)  # (size, r)
        lora_a[expert, :, start : start + size] = orthonormal.T
        start += size
    return lora_a


def dense_lora_a(num_experts: int, r: int, hidden_size: int, generator: torch.Generator) -> torch.Tensor:
    """Draws the trained `lora_A` of the ablation without FOFS: Kaiming-uniform with a = sqrt(5), as in LoRA.

    Args:
        num_experts (`int`): Number of experts.
        r (`int`): Rank of each expert.
        hidden_size (`int`): Number of input features.
        generator (`torch.Generator`): Source of the values, on the CPU.

    Returns:
        `torch.Tensor` of shape `(num_experts, r, hidden_size)`, float32, on the CPU.
    """
    bound = 1 / math.sqrt(hidden_size)  # sqrt(6 / ((1 + a^2) * fan_in)) with a^2 = 5
    uniform = torch.rand(num_experts, r, hidden_size, generator=generator, device="cpu", dtype=torch.float32)
    return (2 * uniform - 1) * bound


def select_experts(probabilities: torch.Tensor, num_experts_per_tok: int, break_ties_at_random: bool) -> torch.Tensor:
    """Routes each token to its most probable experts.

    The router starts uniform, so that every token ties. Ties are broken at random in training, so that every expert
    learns from the first step on, and by the lowest index otherwise.

    Args:
        probabilities (`torch.Tensor` of shape `(..., num_experts)`): Router probabilities.
        num_experts_per_tok (`int`): Number of experts to choose.
        break_ties_at_random (`bool`): Use torch's global generator to break ties.

    Returns:
        `torch.Tensor` of shape `(..., num_experts_per_tok)`, int64: chosen experts, most probable first.
    """
    if not break_ties_at_random:
        return probabilities.argsort(dim=-1, descending=True, stable=True)[..., :num_experts_per_tok]
    shuffle = torch.rand_like(probabilities).argsort(dim=-1)
    shuffled = probabilities.gather(-1, shuffle)
    order = shuffled.argsort(dim=-1, descending=True, stable=True)[..., :num_experts_per_tok]
    return shuffle.gather(-1, order)


def routing_weights(probabilities: torch.Tensor, selected_experts: torch.Tensor) -> torch.Tensor:
    """Renormalises the chosen experts' probabilities to sum to one; the other experts weigh zero.

    Args:
        probabilities (`torch.Tensor` of shape `(..., num_experts)`): Router probabilities.
        selected_experts (`torch.Tensor` of shape `(..., num_experts_per_tok)`): Chosen experts.

    Returns:
        `torch.Tensor` of shape `(..., num_experts)`: weights of the experts.
    """
    chosen = torch.zeros_like(probabilities).scatter(-1, selected_experts, 1.0)
    weights = probabilities * chosen
    return weights / weights.sum(dim=-1, keepdim=True)


class MoELoraExperts(nn.Module):
    r"""Router and LoRA experts of one encoder layer, applied to all of its output tokens.

    With p = softmax(router x), w the renormalised top-k of p and E_i(x) = (alpha / r) B_i A_i x, a token x becomes
    (1 - m) x + m y |x| / (|y| + 1e-6), where y = sum_i w_i E_i(x). All experts are computed at once by two thin
    products: the low-rank codes h = A x of every expert, then B applied to the weighted codes.

    Everything here is computed in float32 whatever the input: at the start B = 0, the norm match divides by 1e-6, and
    the first gradient of B leaves the range of half precision.

    Args:
        config (`MoELoraConfig`): Sizes and options of the experts.
        hidden_size (`int`): Number of features of a token.
        layer_index (`int`): 0-based number of the encoder layer; it tells the layers' initial `lora_A` apart.

    Tensors: `router` (num_experts, hidden_size), `lora_A` (num_experts, r, hidden_size; a buffer under FOFS),
    `lora_B` (num_experts, hidden_size, r).
    """

    def __init__(self, config: MoELoraConfig, hidden_size: int, layer_index: int):
        super().__init__()
        validate_expert_sizes(config, hidden_size)
        self.num_experts_per_tok = config.num_experts_per_tok
        self.scaling = config.lora_alpha / config.r
        self.adapter_weight = config.adapter_weight
        self.orthogonal_split = config.orthogonal_split
        self.init_seed = config.seed * 1_000_003 + layer_index
        self.dropout = nn.Dropout(config.lora_dropout)

        lora_a = torch.empty(config.num_experts, config.r, hidden_size)
        if config.orthogonal_split:
            self.register_buffer("lora_A", lora_a)
        else:
            self.lora_A = nn.Parameter(lora_a)
        self.router = nn.Parameter(torch.empty(config.num_experts, hidden_size))
        self.lora_B = nn.Parameter(torch.empty(config.num_experts, hidden_size, config.r))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Sets the initial values: `router` and `lora_B` zero, `lora_A` drawn from the layer's own seed."""
        generator = torch.Generator(device="cpu").manual_seed(self.init_seed)
        draw = orthogonal_split_lora_a if self.orthogonal_split else dense_lora_a
        # transformers' functions leave tensors alone that a checkpoint has already filled
        init.copy_(self.lora_A, draw(*self.lora_A.shape, generator))
        init.zeros_(self.router)
        init.zeros_(self.lora_B)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mixes the tokens with the output of their experts.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
                Output of the frozen encoder layer, class token included.

        Returns:
            `tuple(torch.Tensor)`: mixed tokens of the input's shape and dtype; router logits
            `(batch_size, sequence_length, num_experts)`, float32; codes of all experts
            `(batch_size, sequence_length, num_experts, r)`, float32.
        """
        with torch.autocast(device_type=hidden_states.device.type, enabled=False):
            # torch multiplies a permuted tensor by other kernels for trained weights than for frozen ones
            tokens = hidden_states.float().contiguous()
            router_logits = tokens @ self.router.float().T
            weights = self._route(router_logits)  # (batch_size, sequence_length, num_experts)
            codes = self._encode(tokens)  # (batch_size, sequence_length, num_experts, r)
            update = self._decode(weights.unsqueeze(-1) * codes)
            token_norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
            update_norm = torch.linalg.vector_norm(update, dim=-1, keepdim=True)
            gain = self.adapter_weight * token_norm / (update_norm + 1e-6)
            mixed = torch.addcmul((1 - self.adapter_weight) * tokens, update, gain)
        return mixed.to(hidden_states.dtype), router_logits, codes

    def _route(self, router_logits: torch.Tensor) -> torch.Tensor:
        probabilities = router_logits.softmax(dim=-1)
        selected = select_experts(probabilities.detach(), self.num_experts_per_tok, self.training)
        return routing_weights(probabilities, selected)

    def _encode(self, tokens: torch.Tensor) -> torch.Tensor:
        codes = self.dropout(tokens) @ self.lora_A.float().flatten(0, 1).T  # (..., num_experts * r)
        return codes.unflatten(-1, self.lora_A.shape[:2])

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        lora_b = self.lora_B.float().transpose(0, 1).flatten(1)  # (hidden_size, num_experts * r)
        return codes.flatten(-2) @ (self.scaling * lora_b).T

    def extra_repr(self) -> str:
        """Sizes shown when the module is printed."""
        num_experts, r, hidden_size = self.lora_A.shape
        return f"{hidden_size=}, {num_experts=}, k={self.num_experts_per_tok}, {r=}, fofs={self.orthogonal_split}"


__all__ = ["MoELoraExperts"]
