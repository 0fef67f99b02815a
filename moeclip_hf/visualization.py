"""Pictures of what a model found: maps laid over images, outlines of masks, chosen experts, and sheets of them."""

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps


# From low to high: dark blue, blue, cyan, green, yellow, red.
HEAT = np.array([(35, 25, 110), (40, 110, 240), (30, 200, 210), (110, 220, 70), (250, 210, 50), (215, 30, 20)])
OUTLINE = (255, 0, 200)
# Colours that remain apart with the common forms of colour blindness (Okabe and Ito).
EXPERT_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (0, 114, 178), (240, 228, 66))

# Pixels between tiles, around the sheet, and from line to line of text.
_GAP, _MARGIN, _LINE = 6, 8, 20

Color = tuple[int, int, int]


def overlay_anomaly_map(
    image: Image.Image,
    anomaly_map: torch.Tensor | np.ndarray,
    *,
    value_range: tuple[float, float] | None = None,
    opacity: float = 0.5,
) -> Image.Image:
    """Lays an anomaly map over the grey version of its image, blue where low and red where high.

    Args:
        image (`PIL.Image.Image`): the image.
        anomaly_map (`torch.Tensor` or `np.ndarray` of shape `(height, width)`):
            Map of any size and unit; it is resized bilinearly to the image.
        value_range (`tuple[float, float]`, *optional*):
            Values of the lowest and the highest colour, the map's own minimum and maximum by default. Give the same
            range to all images that shall be compared.
        opacity (`float`, *optional*, defaults to 0.5): share of the map's colours, in [0, 1].

    Returns:
        `PIL.Image.Image`: RGB, of the image's size.

    Raises:
        ValueError: if the map is not finite or has other than two dimensions.
    """
    values = _to_array("anomaly_map", anomaly_map).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("`anomaly_map` contains NaN or infinity, which has no colour.")
    lowest, highest = (values.min(), values.max()) if value_range is None else value_range
    values = np.asarray(Image.fromarray(values).resize(image.size, Image.Resampling.BILINEAR))
    shares = np.clip((values - lowest) / max(highest - lowest, 1e-12), 0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    colors = np.stack([np.interp(shares, stops, channel) for channel in HEAT.T], axis=-1)
    return _blend(image, colors, opacity)


def outline_mask(image: Image.Image, mask: Image.Image | torch.Tensor | np.ndarray, *, width: int = 2) -> Image.Image:
    """Draws the outline of a mask's regions on an image, inside of the regions.

    Args:
        image (`PIL.Image.Image`): the image.
        mask (`PIL.Image.Image`, `torch.Tensor` or `np.ndarray` of shape `(height, width)`):
            Nonzero where anomalous; resized to the image by nearest neighbour.
        width (`int`, *optional*, defaults to 2): the line's width in pixels of the image.

    Returns:
        `PIL.Image.Image`: RGB, of the image's size.
    """
    mask = np.asarray(mask) if isinstance(mask, Image.Image) else _to_array("mask", mask)
    inside = Image.fromarray((mask != 0).astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)
    # The frame of zeros closes the outline of a region that the image's border cuts off.
    framed = ImageOps.expand(inside, border=width)
    core = ImageOps.crop(framed.filter(ImageFilter.MinFilter(2 * width + 1)), border=width)
    edge = ImageChops.subtract(inside, core)
    outlined = image.convert("RGB")
    outlined.paste(OUTLINE, mask=edge)
    return outlined


def chosen_experts(router_logits: torch.Tensor) -> torch.Tensor:
    """Finds the expert that each patch's router prefers.

    Args:
        router_logits (`torch.Tensor` of shape `(batch_size, 1 + grid_size ** 2, num_experts)`):
            One layer's entry of `MoECLIPOutput.router_logits`, class token first.

    Returns:
        `torch.Tensor` of shape `(batch_size, grid_size, grid_size)`, int64: numbers of experts, the lower one in a tie.

    Raises:
        ValueError: if the patches do not form a square grid.
    """
    num_patches = router_logits.shape[1] - 1
    grid_size = round(num_patches**0.5)
    if grid_size**2 != num_patches:
        raise ValueError(f"`router_logits` has {num_patches} patches, which form no square grid: pass one layer's.")
    return router_logits[:, 1:].argmax(dim=-1).unflatten(1, (grid_size, grid_size))


def overlay_experts(
    image: Image.Image, experts: torch.Tensor | np.ndarray, num_experts: int, *, opacity: float = 0.55
) -> Image.Image:
    """Lays each patch's chosen expert over the grey version of an image, one colour an expert.

    Args:
        image (`PIL.Image.Image`): the image.
        experts (`torch.Tensor` or `np.ndarray` of shape `(grid_size, grid_size)`):
            Numbers of experts, e.g. one image's entry of `chosen_experts`.
        num_experts (`int`): number of experts there are, on which the colours depend.
        opacity (`float`, *optional*, defaults to 0.55): share of the experts' colours, in [0, 1].

    Returns:
        `PIL.Image.Image`: RGB, of the image's size.
    """
    colors = np.array(expert_colors(num_experts), dtype=np.uint8)[_to_array("experts", experts)]
    return _blend(image, np.asarray(Image.fromarray(colors).resize(image.size, Image.Resampling.NEAREST)), opacity)


def expert_colors(num_experts: int) -> list[Color]:
    """Gives each expert a colour of its own.

    Args:
        num_experts (`int`): number of experts.

    Returns:
        `list[tuple[int, int, int]]`: one RGB colour an expert.
    """
    if num_experts <= len(EXPERT_COLORS):
        return list(EXPERT_COLORS[:num_experts])
    hues = [colorsys.hsv_to_rgb(number / num_experts, 0.8, 0.95) for number in range(num_experts)]
    return [tuple(round(255 * channel) for channel in hue) for hue in hues]


def make_legend(num_experts: int = 0) -> dict[str, list[Color]]:
    """Explains the colours of anomaly maps, and of experts, for the foot of a sheet.

    Args:
        num_experts (`int`, *optional*, defaults to 0): number of experts to explain.

    Returns:
        `dict[str, list[tuple[int, int, int]]]`: each text with its colours; several colours form a scale.
    """
    legend = {"map: low to high": [tuple(color) for color in HEAT.tolist()]}
    return legend | {f"expert {number}": [color] for number, color in enumerate(expert_colors(num_experts))}


def make_sheet(
    rows: Sequence[Sequence[Image.Image]],
    *,
    column_titles: Sequence[str],
    row_titles: Sequence[str] | None = None,
    legend: dict[str, list[Color]] | None = None,
    tile_size: int = 224,
) -> Image.Image:
    """Arranges images in rows and columns, with titles and a legend.

    Args:
        rows (`Sequence[Sequence[PIL.Image.Image]]`): one image for each column in each row.
        column_titles (`Sequence[str]`): what stands above each column.
        row_titles (`Sequence[str]`, *optional*): what stands above each row's images; may have several lines.
        legend (`dict[str, list[tuple[int, int, int]]]`, *optional*):
            Texts and colours at the foot, see `make_legend`; several colours of a text are drawn as a scale.
        tile_size (`int`, *optional*, defaults to 224):
            Side in pixels of the squares into which the images are fitted, their proportions kept.

    Returns:
        `PIL.Image.Image`: the sheet, RGB on white.

    Raises:
        ValueError: if there is no row, or the numbers of images and titles do not match.
    """
    _check_titles(rows, column_titles, row_titles)
    tiles = [[_fit(image, tile_size) for image in row] for row in rows]
    tile_heights = [max(tile.height for tile in row) for row in tiles]
    title_height = _LINE * max(title.count("\n") + 1 for title in row_titles) if row_titles else 0
    step, font = tile_size + _GAP, ImageFont.load_default(14)
    width = 2 * _MARGIN + step * len(column_titles) - _GAP
    legend_top = _MARGIN + _LINE + sum(tile_heights) + (title_height + _GAP) * len(tiles) + _MARGIN
    legend_places, legend_height = _place_legend(legend or {}, width, font)
    sheet = Image.new("RGB", (width, legend_top + legend_height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(column_titles):
        pen.text((_MARGIN + step * column, _MARGIN), title, "black", font)
    top = _MARGIN + _LINE
    for number, row in enumerate(tiles):
        if row_titles:
            pen.multiline_text((_MARGIN, top), row_titles[number], (90, 90, 90), font)
        for column, tile in enumerate(row):
            left = _MARGIN + step * column + (tile_size - tile.width) // 2
            sheet.paste(tile, (left, top + title_height + (tile_heights[number] - tile.height) // 2))
        top += title_height + tile_heights[number] + _GAP
    for text, (left, line, swatch_width) in legend_places.items():
        _draw_entry(pen, (left, legend_top + line * _LINE), swatch_width, text, legend[text], font)
    return sheet


def _check_titles(rows, column_titles, row_titles) -> None:
    if not rows:
        raise ValueError("`rows` is empty: a sheet needs at least one row of images.")
    for row in rows:
        if len(row) != len(column_titles):
            raise ValueError(f"`rows` has a row of {len(row)} images for {len(column_titles)} `column_titles`.")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"`row_titles` has {len(row_titles)} entries for {len(rows)} rows.")


def _fit(image: Image.Image, tile_size: int) -> Image.Image:
    scale = tile_size / max(image.size)
    size = tuple(max(round(side * scale), 1) for side in image.size)
    # Enlarged pixels stay visible as what they are; a reduction is averaged.
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _place_legend(legend: dict, width: int, font) -> tuple[dict[str, tuple[int, int, int]], int]:
    """Breaks a legend into lines: left edge, line and width of the swatch of each entry, and the height of all."""
    places, left, line = {}, _MARGIN, 0
    for text, colors in legend.items():
        swatch_width = _LINE if len(colors) == 1 else 4 * _LINE
        entry_width = swatch_width + 6 + round(font.getlength(text)) + 18
        if left > _MARGIN and left + entry_width > width:
            left, line = _MARGIN, line + 1
        places[text] = (left, line, swatch_width)
        left += entry_width
    return places, (line + 1) * _LINE + _MARGIN if legend else 0


def _draw_entry(pen: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, text: str, colors, font) -> None:
    left, top = corner
    scale = np.array(colors, dtype=float)
    for x in range(width):
        color = [np.interp(x / (width - 1), np.linspace(0, 1, len(scale)), channel) for channel in scale.T]
        pen.line([(left + x, top + 2), (left + x, top + _LINE - 6)], tuple(round(channel) for channel in color))
    pen.text((left + width + 6, top), text, "black", font)


def _blend(image: Image.Image, colors: np.ndarray, opacity: float) -> Image.Image:
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    return Image.fromarray(np.round(grey * (1 - opacity) + colors * opacity).astype(np.uint8))


def _to_array(name: str, values: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"`{name}` must have shape (height, width), but has {array.shape}: pass one image's.")
    return array
