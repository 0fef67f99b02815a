"""The two training recipes: what the paper describes, and what the authors' released code does when it runs."""

from typing import NamedTuple


class Preset(NamedTuple):
    """The values in which the two recipes differ; all others are the defaults of `MoECLIPTrainingArguments`.

    Attributes:
        learning_rate (`float`): Adam's rate before the first halving.
        max_grad_norm (`float`): The global gradient norm is clipped here; 0 for no clipping.
        router_aux_loss_coef (`float` or `None`): Weight of the balance loss; `None` keeps the model's own.
        etf_loss_coef (`float` or `None`): Weight of the ETF loss; `None` keeps the model's own.
        lora_dropout (`float` or `None`): Dropout on the experts' input; `None` keeps the model's own.
        hidden_act (`str` or `None`): Activation of both CLIP towers, for the building of the model; `None` keeps
            CLIP's own.
    """

    learning_rate: float
    max_grad_norm: float
    router_aux_loss_coef: float | None
    etf_loss_coef: float | None
    lora_dropout: float | None
    hidden_act: str | None


PRESETS = {
    # Where `paper` keeps the model's own value, the default of MoECLIPConfig is the paper's: 0.01, 0.01 and 0.05. So
    # an ablation that is written in the configuration stays one. Clipping is not in the paper: the experts' B starts
    # at zero, where the norm match makes its first gradient some 1e5 times too large, and Adam would remember it.
    "paper": Preset(
        learning_rate=5e-4,
        max_grad_norm=1.0,
        router_aux_loss_coef=None,
        etf_loss_coef=None,
        lora_dropout=None,
        hidden_act=None,
    ),
    # The released code trains in eval mode, so neither auxiliary loss nor the experts' dropout takes part, and builds
    # CLIP with exact GELU whatever its weights were trained with.
    "released": Preset(
        learning_rate=5e-5,
        max_grad_norm=0.0,
        router_aux_loss_coef=0.0,
        etf_loss_coef=0.0,
        lora_dropout=0.0,
        hidden_act="gelu",
    ),
}


def get_preset(name: str) -> Preset:
    """Looks up a recipe by its name.

    Args:
        name (`str`): `"paper"` or `"released"`.

    Returns:
        `Preset`: The recipe's values.

    Raises:
        ValueError: If there is no recipe of this name.
    """
    if name not in PRESETS:
        raise ValueError(f"`preset` ({name!r}) must be one of {', '.join(map(repr, PRESETS))}.")
    return PRESETS[name]
