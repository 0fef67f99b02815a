"""Losses of MoECLIP as pure functions of tensors, computed in float32.

Source: Park et al., CVPR 2026, https://arxiv.org/abs/2603.03101: focal and dice losses on the anomaly maps,
cross-entropy on the image embedding, load balancing of the routers and the equiangular-frame (ETF) loss.

An anomaly map's two-class softmax depends on the difference of the two class logits alone, so the maps come in as one
logit per pixel, anomalous minus normal.
"""

import torch
from torch import nn


FOCAL_GAMMA = 2
FOCAL_SMOOTHING = 1e-5
DICE_SMOOTHING = 1.0
NORM_EPS = 1e-6


def focal_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Focal loss with gamma 2 and label smoothing 1e-5: the mean of -(1 - pt)^2 log pt over an image's pixels.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, height, width)`): Anomalous minus normal logit of each pixel.
        masks (`torch.Tensor` of shape `(batch_size, height, width)`): 1 anomalous, 0 normal, floating point.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`: loss of each image.
    """
    true_class = torch.sigmoid((2 * masks - 1) * logits)
    pt = (1 - FOCAL_SMOOTHING) * true_class + FOCAL_SMOOTHING * (1 - true_class) + FOCAL_SMOOTHING
    return (-((1 - pt) ** FOCAL_GAMMA) * pt.log()).mean(dim=(-2, -1))


def dice_loss(probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Dice loss: 1 - (2 sum(p g) + 1) / (sum p + sum g + 1) over an image's pixels.

    Args:
        probabilities (`torch.Tensor` of shape `(batch_size, height, width)`): Probability of the class.
        masks (`torch.Tensor` of shape `(batch_size, height, width)`): 1 where the class is, 0 elsewhere.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`: loss of each image.
    """
    overlap = (probabilities * masks).sum(dim=(-2, -1))
    total = probabilities.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1))
    return 1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)


def segmentation_loss(patch_logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Focal and dice losses of both classes, summed over the anomaly maps and averaged over the images with a mask.

    Args:
        patch_logits (`torch.Tensor` of shape `(num_maps, batch_size, grid_size, grid_size)`):
            Anomalous minus normal logit of each patch. The maps are enlarged to the masks' size (bilinear, corners
            aligned).
        masks (`torch.Tensor` of shape `(batch_size, height, width)`): 1 anomalous, 0 normal, floating point.
        known (`torch.Tensor` of shape `(batch_size,)`, bool): Whether the image's mask is known.

    Returns:
        `torch.Tensor`: scalar; a zero attached to the graph if no mask is known.
    """
    share = known.float() / known.sum().clamp(min=1)
    masks = masks * known[:, None, None]
    per_image = torch.zeros_like(share)
    for logits in patch_logits:
        # (batch_size, height, width)
        logits = nn.functional.interpolate(
            logits.unsqueeze(1), size=masks.shape[-2:], mode="bilinear", align_corners=True
        ).squeeze(1)
        anomalous = logits.sigmoid()
        per_image = per_image + focal_loss(logits, masks)
        per_image = per_image + dice_loss(1 - anomalous, 1 - masks) + dice_loss(anomalous, masks)
    return (share * per_image).sum()


def classification_loss(image_embeds: torch.Tensor, text_embeds: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the image's similarities to its object's two texts, without temperature.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): Image embeddings.
        text_embeds (`torch.Tensor` of shape `(batch_size, 2, projection_dim)`): Normal and anomalous text.
        labels (`torch.Tensor` of shape `(batch_size,)`, int64): 0 normal, 1 anomalous.

    Returns:
        `torch.Tensor`: scalar.
    """
    logits = torch.einsum("bp,bcp->bc", image_embeds, text_embeds)
    return nn.functional.cross_entropy(logits, labels)


def load_balancing_loss(router_logits: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation of the experts' total probability over the tokens of one layer.

    The standard deviation is the unbiased one. On several processes the loss is each one's own, averaged.

    Args:
        router_logits (`torch.Tensor` of shape `(..., num_experts)`): Router logits of one MoE layer.

    Returns:
        `torch.Tensor`: scalar, 0 for a single expert.
    """
    load = router_logits.softmax(dim=-1).flatten(0, -2).sum(dim=0)  # (num_experts,)
    if load.numel() == 1:
        return 0 * load.sum()
    return load.var() / (load.mean() + NORM_EPS) ** 2


def expert_cosines(codes: torch.Tensor, lora_b: torch.Tensor, scaling: float) -> torch.Tensor:
    """Cosines between the outputs of all experts at each token, without forming the outputs.

    With E_i = scaling * B_i h_i, the inner products are scaling^2 h_i^T (B_i^T B_j) h_j, and B^T B is small. An output
    shorter than 1e-6 is divided by 1e-6 instead of its norm, so that the cosines of all-zero experts are 0.

    Args:
        codes (`torch.Tensor` of shape `(..., num_experts, r)`): Codes h_i of each token.
        lora_b (`torch.Tensor` of shape `(num_experts, hidden_size, r)`): Output matrices of the experts.
        scaling (`float`): Scale of the experts' outputs.

    Returns:
        `torch.Tensor` of shape `(num_tokens, num_experts, num_experts)`, float32.
    """
    codes = scaling * codes.float().flatten(0, -3)  # (num_tokens, num_experts, r)
    lora_b = lora_b.float()
    small_gram = torch.einsum("ivr,jvs->irjs", lora_b, lora_b)
    gram = (torch.einsum("tir,irjs->tijs", codes, small_gram) * codes.unsqueeze(1)).sum(dim=-1)
    # clamped before the root, whose slope at zero is infinite
    norm = gram.diagonal(dim1=-2, dim2=-1).clamp(min=NORM_EPS**2).sqrt()
    return gram / (norm.unsqueeze(-1) * norm.unsqueeze(-2))


def etf_loss(codes: torch.Tensor, lora_b: torch.Tensor, scaling: float) -> torch.Tensor:
    """Distance of one layer's experts from an equiangular tight frame (ETF).

    The mean squared error, over tokens and pairs of experts, between the cosines of their outputs and the frame's: 1 on
    the diagonal, -1 / (num_experts - 1) off it. All experts count, routed or not.

    Args:
        codes (`torch.Tensor` of shape `(..., num_experts, r)`): Codes of all experts at each token.
        lora_b (`torch.Tensor` of shape `(num_experts, hidden_size, r)`): Output matrices of the experts.
        scaling (`float`): Scale of the experts' outputs.

    Returns:
        `torch.Tensor`: scalar, 0 for a single expert.
    """
    num_experts = codes.shape[-2]
    if num_experts == 1:
        return 0 * codes.sum()
    identity = torch.eye(num_experts, device=codes.device)
    target = identity - (1 - identity) / (num_experts - 1)
    return (expert_cosines(codes, lora_b, scaling) - target).square().mean()


__all__ = [
    "classification_loss",
    "dice_loss",
    "etf_loss",
    "expert_cosines",
    "focal_loss",
    "load_balancing_loss",
    "segmentation_loss",
]
