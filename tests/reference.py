"""MoECLIP written the slow, obvious way, straight from the formulas: one token, one expert, one pixel row at a time.

It reads weights under the names of OpenAI's CLIP and of the authors' checkpoint, so that it shares nothing with the
package but torch. Everything is differentiable by autograd.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Case:
    """Sizes and options of one random model, small enough for loops."""

    num_experts: int = 4
    num_experts_per_tok: int = 2
    r: int = 4
    lora_alpha: float = 8.0
    adapter_weight: float = 0.1
    fofs: bool = True
    shared: bool = True
    leaky_relu: bool = False
    kernel_sizes: tuple = (1, 3, 5)
    feature_layers: tuple = (0, 1, 2, 3)
    moe_layers: tuple = (0, 1, 2, 3)
    hidden_act: str = "gelu"
    image_size: int = 56
    pretrained_size: int = 42
    seed: int = 0
    width: int = 64
    text_width: int = 64
    projection: int = 24
    patch: int = 14
    layers: int = 4
    text_layers: int = 1
    vocabulary: int = 60
    context: int = 12

    @property
    def grid(self):
        return self.image_size // self.patch


def chunk_bounds(width, num_experts):
    """Consecutive chunks, the first `width % num_experts` of them one feature larger."""
    bounds, start = [], 0
    for expert in range(num_experts):
        size = width // num_experts + (1 if expert < width % num_experts else 0)
        bounds.append((start, start + size))
        start += size
    return bounds


def random_clip(case):
    generator = torch.Generator().manual_seed(case.seed)

    def draw(*shape, std=0.2):
        return std * torch.randn(*shape, generator=generator)

    def tower(prefix, width, layers):
        tensors = {}
        for i in range(layers):
            block = f"{prefix}transformer.resblocks.{i}."
            tensors |= {
                block + "attn.in_proj_weight": draw(3 * width, width),
                block + "attn.in_proj_bias": draw(3 * width),
                block + "attn.out_proj.weight": draw(width, width),
                block + "attn.out_proj.bias": draw(width),
                block + "ln_1.weight": 1 + draw(width),
                block + "ln_1.bias": draw(width),
                block + "ln_2.weight": 1 + draw(width),
                block + "ln_2.bias": draw(width),
                block + "mlp.c_fc.weight": draw(4 * width, width),
                block + "mlp.c_fc.bias": draw(4 * width),
                block + "mlp.c_proj.weight": draw(width, 4 * width, std=0.1),
                block + "mlp.c_proj.bias": draw(width),
            }
        return tensors

    old_grid = case.pretrained_size // case.patch
    return {
        "visual.class_embedding": draw(case.width),
        "visual.conv1.weight": draw(case.width, 3, case.patch, case.patch, std=0.05),
        "visual.positional_embedding": draw(1 + old_grid**2, case.width),
        "visual.ln_pre.weight": 1 + draw(case.width),
        "visual.ln_pre.bias": draw(case.width),
        "visual.ln_post.weight": 1 + draw(case.width),
        "visual.ln_post.bias": draw(case.width),
        "visual.proj": draw(case.width, case.projection),
        "token_embedding.weight": draw(case.vocabulary, case.text_width),
        "positional_embedding": draw(case.context, case.text_width),
        "ln_final.weight": 1 + draw(case.text_width),
        "ln_final.bias": draw(case.text_width),
        "text_projection": draw(case.text_width, case.projection),
        "logit_scale": torch.tensor(4.6),
        **tower("visual.", case.width, case.layers),
        **tower("", case.text_width, case.text_layers),
    }


def random_checkpoint(case):
    """An authors' checkpoint with random values, as `{"text_adapter", "image_adapter"}`."""
    generator = torch.Generator().manual_seed(case.seed + 1)

    def draw(*shape, std=0.2):
        return std * torch.randn(*shape, generator=generator)

    image = {
        "det_proj.ln.weight": 1 + draw(case.width),
        "det_proj.ln.bias": draw(case.width),
        "det_proj.adapter.0.weight": draw(case.width, 1, 3),
        "det_proj.adapter.2.weight": draw(case.projection, case.width, 1),
    }
    num_projections = len(case.feature_layers) * (1 if case.shared else len(case.kernel_sizes))
    for j in range(num_projections):
        image[f"seg_proj.{j}.fc.{'0.' if case.leaky_relu else ''}weight"] = draw(case.projection, case.width)
    for n in range(len(case.moe_layers)):
        image[f"moe_adapters.{n}.gate.weight"] = draw(case.num_experts, case.width)
        for i, (start, stop) in enumerate(chunk_bounds(case.width, case.num_experts)):
            a = draw(case.r, case.width)
            if case.fofs:
                q = torch.linalg.qr(draw(stop - start, case.r))[0]
                a = torch.zeros(case.r, case.width)
                a[:, start:stop] = q.T
            image[f"moe_adapters.{n}.experts.{i}.lora_A.weight"] = a
            image[f"moe_adapters.{n}.experts.{i}.lora_B.weight"] = draw(case.width, case.r)
    return {"text_adapter": {"0.fc.0.weight": draw(case.projection, case.text_width)}, "image_adapter": image}


def random_batch(case, batch_size=3, num_objects=2):
    generator = torch.Generator().manual_seed(case.seed + 2)
    size = case.image_size
    ids = torch.randint(1, case.vocabulary - 2, (num_objects, 5, case.context), generator=generator)
    for row in ids.view(-1, case.context):
        end = int(torch.randint(3, case.context, (), generator=generator))
        row[0], row[end], row[end + 1 :] = case.vocabulary - 2, case.vocabulary - 1, 0
    masks = torch.zeros(batch_size, size, size)
    masks[1:, 5 : size // 2, 3 : size // 3] = 1
    return {
        "pixel_values": torch.randn(batch_size, 3, size, size, generator=generator),
        "input_ids": ids,
        "prompt_state": torch.tensor([0, 0, 1, 1, 1]),
        "object_ids": torch.arange(batch_size) % num_objects,
        "labels": (masks.flatten(1).sum(1) > 0).long(),
        "mask_labels": masks,
    }


def activation(case, x):
    if case.hidden_act == "gelu":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return x * torch.sigmoid(1.702 * x)


def layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def block(case, tensors, prefix, x, causal):
    """One CLIP encoder layer on (batch, tokens, width), attention heads of width 64."""
    batch, length, width = x.shape
    normed = layer_norm(x, tensors[prefix + "ln_1.weight"], tensors[prefix + "ln_1.bias"])
    qkv = normed @ tensors[prefix + "attn.in_proj_weight"].T + tensors[prefix + "attn.in_proj_bias"]
    heads = []
    for h in range(width // 64):
        q, k, v = (qkv[..., part * width + h * 64 : part * width + (h + 1) * 64] for part in range(3))
        scores = q @ k.transpose(1, 2) / 8
        if causal:
            scores = scores + torch.full((length, length), -math.inf).triu(1)
        heads.append(scores.softmax(-1) @ v)
    attended = torch.cat(heads, -1) @ tensors[prefix + "attn.out_proj.weight"].T
    x = x + attended + tensors[prefix + "attn.out_proj.bias"]
    normed = layer_norm(x, tensors[prefix + "ln_2.weight"], tensors[prefix + "ln_2.bias"])
    hidden = activation(case, normed @ tensors[prefix + "mlp.c_fc.weight"].T + tensors[prefix + "mlp.c_fc.bias"])
    return x + hidden @ tensors[prefix + "mlp.c_proj.weight"].T + tensors[prefix + "mlp.c_proj.bias"]


def experts_of_token(case, adapter, n, x):
    """Every expert's output for one token x."""
    outputs = []
    for i in range(case.num_experts):
        a = adapter[f"moe_adapters.{n}.experts.{i}.lora_A.weight"]
        b = adapter[f"moe_adapters.{n}.experts.{i}.lora_B.weight"]
        outputs.append(case.lora_alpha / case.r * (b @ (a @ x)))
    return torch.stack(outputs)


def moe_layer(case, adapter, n, x):
    """Mixed tokens, router probabilities (tokens, K) and all expert outputs (tokens, K, V)."""
    mixed, probabilities, outputs = [], [], []
    for token in x.reshape(-1, case.width):
        p = torch.softmax(adapter[f"moe_adapters.{n}.gate.weight"] @ token, 0)
        chosen = sorted(range(case.num_experts), key=lambda i, p=p: (-p[i].item(), i))[: case.num_experts_per_tok]
        experts = experts_of_token(case, adapter, n, token)
        y = sum(p[i] / sum(p[j] for j in chosen) * experts[i] for i in chosen)
        y = y * token.norm() / (y.norm() + 1e-6)
        mixed.append((1 - case.adapter_weight) * token + case.adapter_weight * y)
        probabilities.append(p)
        outputs.append(experts)
    return torch.stack(mixed).view(x.shape), torch.stack(probabilities), torch.stack(outputs)


def resized_positions(case, weight):
    old = math.isqrt(len(weight) - 1)
    grid = weight[1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, (case.grid, case.grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([weight[:1], grid.permute(0, 2, 3, 1).reshape(case.grid**2, -1)])


def window_mean(case, patches, kernel):
    """Mean over a kernel x kernel window of the patch grid; what lies outside the grid counts as zeros."""
    grid = patches.reshape(len(patches), case.grid, case.grid, -1)
    means = []
    for row in range(case.grid):
        for column in range(case.grid):
            half = kernel // 2
            rows = range(max(0, row - half), min(case.grid, row + half + 1))
            columns = range(max(0, column - half), min(case.grid, column + half + 1))
            means.append(sum(grid[:, y, x] for y in rows for x in columns) / kernel**2)
    return torch.stack(means, 1)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def text_embeds(case, clip, checkpoint, input_ids, prompt_state):
    weight = checkpoint["text_adapter"]["0.fc.0.weight"]
    embeds = []
    for prompts in input_ids:
        states = {0: [], 1: []}
        for ids, state in zip(prompts, prompt_state.tolist(), strict=True):
            x = (clip["token_embedding.weight"][ids] + clip["positional_embedding"])[None]
            for i in range(case.text_layers):
                x = block(case, clip, f"transformer.resblocks.{i}.", x, causal=True)
            x = layer_norm(x, clip["ln_final.weight"], clip["ln_final.bias"])
            feature = weight @ x[0, ids.argmax()]
            states[state].append(unit(torch.where(feature > 0, feature, 0.01 * feature)))
        embeds.append(torch.stack([unit(torch.stack(states[s]).mean(0)) for s in (0, 1)]))
    return torch.stack(embeds)


def forward(case, clip, checkpoint, batch):
    """Everything the model returns, and the losses, in one dictionary."""
    adapter = checkpoint["image_adapter"]
    patches = nn.functional.conv2d(batch["pixel_values"], clip["visual.conv1.weight"], stride=case.patch)
    patches = patches.flatten(2).transpose(1, 2)
    x = torch.cat([clip["visual.class_embedding"].expand(len(patches), 1, -1), patches], 1)
    x = x + resized_positions(case, clip["visual.positional_embedding"])
    x = layer_norm(x, clip["visual.ln_pre.weight"], clip["visual.ln_pre.bias"])
    levels, probabilities, outputs = [], [], []
    for i in range(case.layers):
        x = block(case, clip, f"visual.transformer.resblocks.{i}.", x, causal=False)
        if i in case.moe_layers:
            x, p, experts = moe_layer(case, adapter, case.moe_layers.index(i), x)
            probabilities.append(p)
            outputs.append(experts)
        if i in case.feature_layers:
            levels.append(x[:, 1:])

    patch_embeds = []
    for level, tokens in enumerate(levels):
        for index, kernel in enumerate(case.kernel_sizes):
            features = window_mean(case, tokens, kernel)
            features = layer_norm(features, clip["visual.ln_post.weight"], clip["visual.ln_post.bias"])
            number = level if case.shared else level * len(case.kernel_sizes) + index
            projected = features @ adapter[f"seg_proj.{number}.fc.{'0.' if case.leaky_relu else ''}weight"].T
            if case.leaky_relu:
                projected = torch.where(projected > 0, projected, 0.01 * projected)
            patch_embeds.append(unit(projected))

    tokens = layer_norm(levels[-1], clip["visual.ln_post.weight"], clip["visual.ln_post.bias"])
    tokens = layer_norm(tokens, adapter["det_proj.ln.weight"], adapter["det_proj.ln.bias"])
    kernel = adapter["det_proj.adapter.0.weight"][:, 0]  # (width, 3)
    padded = nn.functional.pad(tokens, (0, 0, 1, 1))
    length = tokens.shape[1]
    hidden = sum(padded[:, offset : offset + length] * kernel[:, offset] for offset in range(3))
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    image_embeds = unit(hidden @ adapter["det_proj.adapter.2.weight"][:, :, 0].T).mean(1)

    texts = text_embeds(case, clip, checkpoint, batch["input_ids"], batch["prompt_state"])[batch["object_ids"]]
    results = {
        "patch_embeds": patch_embeds,
        "image_embeds": image_embeds,
        "text_embeds": texts,
        "image_score": torch.stack([(v @ t[1] + 1) / 2 for v, t in zip(image_embeds, texts, strict=True)]),
        "anomaly_logits": anomaly_logits(case, patch_embeds, texts),
        "classification_loss": cross_entropy(image_embeds, texts, batch["labels"]),
        "segmentation_loss": sum(segmentation(case, f, texts, batch["mask_labels"]) for f in patch_embeds),
        "aux_loss": sum(balance(p) for p in probabilities),
        "etf_loss": sum(etf(e) for e in outputs),
    }
    results["loss"] = (
        results["classification_loss"]
        + results["segmentation_loss"]
        + 0.01 * results["aux_loss"]
        + 0.01 * results["etf_loss"]
    )
    return results


def anomaly_logits(case, patch_embeds, texts):
    total = 0
    for features in patch_embeds:
        normal = torch.stack([f @ t[0] for f, t in zip(features, texts, strict=True)])
        anomalous = torch.stack([f @ t[1] for f, t in zip(features, texts, strict=True)])
        total = total + (100 * anomalous + 1 - 100 * normal) / 2
    return total.reshape(-1, case.grid, case.grid)


def cross_entropy(image_embeds, texts, labels):
    losses = []
    for v, t, label in zip(image_embeds, texts, labels.tolist(), strict=True):
        logits = t @ v
        losses.append(logits.exp().sum().log() - logits[label])
    return torch.stack(losses).mean()


def segmentation(case, features, texts, masks):
    """Focal and both dice losses of one map, from the two-channel softmax at full size."""
    logits = 100 * torch.stack([f @ t.T for f, t in zip(features, texts, strict=True)])  # (batch, patches, 2)
    logits = logits.transpose(1, 2).reshape(-1, 2, case.grid, case.grid)
    size = (case.image_size, case.image_size)
    logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=True)
    probabilities = logits.softmax(1)
    q = torch.where(masks == 1, probabilities[:, 1], probabilities[:, 0])
    e = 1e-5
    pt = (1 - e) * q + e * (1 - q) + e
    focal = (-((1 - pt) ** 2) * pt.log()).mean()
    return focal + dice(probabilities[:, 0], 1 - masks) + dice(probabilities[:, 1], masks)


def dice(probabilities, masks):
    losses = []
    for p, g in zip(probabilities, masks, strict=True):
        losses.append(1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1))
    return torch.stack(losses).mean()


def balance(probabilities):
    load = probabilities.sum(0)
    if len(load) == 1:
        return torch.zeros(())
    return (load.std(unbiased=True) / (load.mean() + 1e-6)) ** 2


def etf(outputs):
    """Mean squared distance of the experts' cosines from an equiangular frame, outputs (tokens, K, V)."""
    num_experts = outputs.shape[1]
    if num_experts == 1:
        return torch.zeros(())
    errors = []
    for experts in outputs:
        units = [e / max(e.norm(), torch.tensor(1e-6)) for e in experts]
        for i in range(num_experts):
            for j in range(num_experts):
                target = 1.0 if i == j else -1 / (num_experts - 1)
                errors.append((units[i] @ units[j] - target) ** 2)
    return torch.stack(errors).mean()


def trained_tensors(checkpoint, case):
    """The tensors that training changes, by their names in the checkpoint."""
    names = {"text_adapter.0.fc.0.weight": checkpoint["text_adapter"]["0.fc.0.weight"]}
    for name, tensor in checkpoint["image_adapter"].items():
        if not (case.fofs and "lora_A" in name):
            names[f"image_adapter.{name}"] = tensor
    return names
