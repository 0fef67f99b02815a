"""What the pictures show, pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from moeclip_hf.visualization import (
    HEAT,
    OUTLINE,
    chosen_experts,
    expert_colors,
    make_legend,
    make_sheet,
    outline_mask,
    overlay_anomaly_map,
    overlay_experts,
)


def grey(width=40, height=20, value=100):
    return Image.new("L", (width, height), value)


def test_map_goes_from_the_lowest_to_the_highest_colour():
    values = torch.linspace(-3, 7, 40).repeat(20, 1)
    overlay = np.asarray(overlay_anomaly_map(grey(), values, opacity=1.0))
    assert overlay.shape == (20, 40, 3)
    assert overlay[5, 0].tolist() == HEAT[0].tolist()
    assert overlay[5, -1].tolist() == HEAT[-1].tolist()


def test_value_range_makes_images_comparable_and_clips():
    calm, striking = torch.full((20, 40), 1.0), torch.full((20, 40), 9.0)
    calm[0, 0] = striking[0, 0] = 5.0
    overlays = [np.asarray(overlay_anomaly_map(grey(), x, value_range=(2, 8), opacity=1.0)) for x in (calm, striking)]
    assert overlays[0][10, 20].tolist() == HEAT[0].tolist()
    assert overlays[1][10, 20].tolist() == HEAT[-1].tolist()
    assert overlays[0][0, 0].tolist() == overlays[1][0, 0].tolist()


def test_map_of_patches_is_resized_and_blended_with_the_grey_image():
    overlay = np.asarray(overlay_anomaly_map(grey(), np.zeros((4, 4)), opacity=0.25))
    assert overlay[0, 0].tolist() == np.round(0.75 * 100 + 0.25 * HEAT[0]).tolist()


def test_map_without_colour_is_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        overlay_anomaly_map(grey(), np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match=r"must have shape \(height, width\), but has \(1, 4, 4\)"):
        overlay_anomaly_map(grey(), np.zeros((1, 4, 4)))


@pytest.mark.parametrize("kind", ["pil", "numpy", "torch"])
def test_outline_lies_inside_of_the_mask_and_leaves_the_rest(kind):
    mask = np.zeros((20, 40), dtype=np.uint8)
    mask[5:15, 10:30] = 255
    given = {"pil": Image.fromarray(mask), "numpy": mask, "torch": torch.from_numpy(mask)}[kind]
    pixels = np.asarray(outline_mask(grey(), given, width=2))
    is_line = (pixels == OUTLINE).all(axis=-1)
    expected = mask > 0
    expected[7:13, 12:28] = False
    assert np.array_equal(is_line, expected)
    assert (pixels[~is_line] == 100).all()


def test_outline_is_closed_at_the_border_of_the_image():
    is_line = (np.asarray(outline_mask(grey(), np.ones((20, 40)), width=1)) == OUTLINE).all(axis=-1)
    expected = np.ones((20, 40), dtype=bool)
    expected[1:-1, 1:-1] = False
    assert np.array_equal(is_line, expected)


def test_chosen_experts_leave_out_the_class_token():
    router_logits = torch.zeros(2, 5, 3)
    router_logits[:, 0, 2] = 9
    router_logits[1, 1:, 1] = torch.tensor([1.0, -1, 0, 2])
    assert chosen_experts(router_logits).tolist() == [[[0, 0], [0, 0]], [[1, 0], [0, 1]]]
    with pytest.raises(ValueError, match="6 patches"):
        chosen_experts(torch.zeros(1, 7, 3))


def test_each_patch_has_the_colour_of_its_expert():
    experts = torch.tensor([[0, 1], [3, 2]])
    pixels = np.asarray(overlay_experts(grey(40, 20), experts, 4, opacity=1.0))
    colors = expert_colors(4)
    assert [tuple(pixels[y, x]) for y, x in ((9, 19), (9, 20), (10, 19), (10, 20))] == [
        colors[i] for i in (0, 1, 3, 2)
    ]


@pytest.mark.parametrize("num_experts", [1, 4, 6, 8, 12])
def test_experts_have_distinct_colours(num_experts):
    assert len(set(expert_colors(num_experts))) == num_experts


def test_sheet_holds_every_image_and_the_legend():
    rows = [[Image.new("RGB", (30, 30), color) for color in ("red", "lime", "blue")], [grey(20, 10)] * 3]
    sheet = make_sheet(
        rows,
        column_titles=["a", "b", "c"],
        row_titles=["first\nline", "second"],
        legend=make_legend(4),
        tile_size=60,
    )
    found = {tuple(color): count for count, color in sheet.getcolors(sheet.width * sheet.height)}
    assert [found[color] for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))] == [3600] * 3
    assert found[(100, 100, 100)] >= 3 * 60 * 30
    assert all(color in found for color in [*expert_colors(4), tuple(HEAT[0]), tuple(HEAT[-1])])
    plain = make_sheet(rows, column_titles=["a", "b", "c"], tile_size=60)
    assert plain.width == sheet.width
    assert plain.height < sheet.height


def test_a_narrow_sheet_breaks_its_legend_into_lines():
    wide, narrow = (
        make_sheet([[grey()] * columns], column_titles="x" * columns, legend=make_legend(12), tile_size=200)
        for columns in (8, 1)
    )
    assert narrow.height > wide.height + 60
    colors = {color for _, color in narrow.getcolors(narrow.width * narrow.height)}
    assert set(expert_colors(12)) <= colors


def test_sheet_names_what_does_not_match():
    with pytest.raises(ValueError, match="2 images for 1 `column_titles`"):
        make_sheet([[grey(), grey()]], column_titles=["a"])
    with pytest.raises(ValueError, match="`row_titles` has 2 entries for 1 rows"):
        make_sheet([[grey()]], column_titles=["a"], row_titles=["x", "y"])
    with pytest.raises(ValueError, match="`rows` is empty"):
        make_sheet([], column_titles=["a"])
