"""Textures of the test half. Each painter draws one picture of its material, with a structural fault if given."""

import numpy as np

from .canvas import (
    SIZE,
    Fault,
    Scene,
    blob_points,
    blur,
    cells,
    colour,
    edge,
    fill,
    fractal_noise,
    lighten,
    near_cell,
    noise,
    paint,
    pick,
    polygons,
    relief,
    rotated,
    texture_frame,
    vary,
)


_EVERYWHERE = np.ones((SIZE, SIZE), dtype=np.float32)


def woven_linen(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Plain weave of uneven threads; a thread may be missing over a stretch, or float over several others."""
    u, v = texture_frame(rng, 0.3, 1.5)
    pitch = np.float32(rng.uniform(7, 10.5))
    u, v = u / pitch + 0.12 * noise(rng, 7, 40), v / pitch + 0.12 * noise(rng, 40, 7)
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    x, y = u - i - 0.5, v - j - 0.5
    thickness = rng.normal(0, 0.06, (2, 64)).astype(np.float32)
    tone = rng.normal(0, 0.07, (2, 64)).astype(np.float32)
    warp_on_top = np.mod(i + j, 2) == 0
    base = pick(
        rng, [(0.75, 0.68, 0.55), (0.55, 0.5, 0.42), (0.35, 0.42, 0.55), (0.6, 0.35, 0.35), (0.85, 0.83, 0.78)]
    )
    weft_base = vary(rng, base, 0.07)
    warp = np.clip((0.48 + thickness[0][np.mod(i, 64)] - np.abs(x)) * 9, 0, 1)
    weft = np.clip((0.48 + thickness[1][np.mod(j, 64)] - np.abs(y)) * 9, 0, 1)
    if fault is not None:
        row, column = fault.rng.integers(SIZE // 4, SIZE - SIZE // 4, 2)
        i0, j0 = i[row, column], j[row, column]
        if fault.kind == "missing_part":
            reach = fault.rng.integers(6, 11)
            warp = np.where((i == i0) & (np.abs(j - j0) <= reach), 0, warp)
        else:
            reach = fault.rng.integers(3, 6)
            twill = np.mod(i + j + (j - j0) // 2, 3) > 0
            warp_on_top = np.where((np.abs(i - i0) <= reach) & (np.abs(j - j0) <= reach), twill, warp_on_top)
    warp_shade = tone[0][np.mod(i, 64)] - 0.9 * x**2 + np.where(warp_on_top, 0.12, -0.14) - 0.5 * (y**2)
    weft_shade = tone[1][np.mod(j, 64)] - 0.9 * y**2 + np.where(warp_on_top, -0.14, 0.12) - 0.5 * (x**2)
    fuzz = 0.06 * noise(rng, 112)
    ground = fill(base * 0.22)
    low, high = (weft, weft_base, weft_shade), (warp, base, warp_shade)
    image_warp_top = ground
    for cover, thread, shade in (low, high):
        image_warp_top = paint(image_warp_top, cover, lighten(fill(thread), shade + fuzz))
    image_weft_top = ground
    for cover, thread, shade in (high, low):
        image_weft_top = paint(image_weft_top, cover, lighten(fill(thread), shade + fuzz))
    image = np.where(warp_on_top[..., None], image_warp_top, image_weft_top)
    return Scene(image, _EVERYWHERE, ground)


def pebbled_leather(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Leather with rounded pebbles between dark creases."""
    u, v = texture_frame(rng, 1.5, 4.0)
    nearest, second, number = cells(rng, u, v * np.float32(rng.uniform(0.75, 1)), rng.uniform(8, 13))
    groove = second - nearest
    height = np.clip(groove / 5, 0, 1) ** 0.6 + 0.15 * noise(rng, 100)
    shade = 0.9 * relief(blur(height, 0.7), rng.uniform(0, 2 * np.pi)) + 0.14 * height - 0.1
    shade = shade + rng.normal(0, 0.025, 4096).astype(np.float32)[number] + 0.05 * fractal_noise(rng, 3)
    base = pick(rng, [(0.4, 0.22, 0.13), (0.16, 0.15, 0.16), (0.55, 0.16, 0.14), (0.66, 0.53, 0.4), (0.2, 0.27, 0.24)])
    return Scene(lighten(fill(base), shade), _EVERYWHERE, fill(vary(rng, colour(0.7, 0.6, 0.5)) * 0.6))


def perforated_sheet(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Sheet metal with round holes in rows; a hole may be missing, or punched out of place or size."""
    u, v = texture_frame(rng, 0.8, 0.3)
    pitch = np.float32(rng.uniform(17, 27))
    row = np.floor(v / pitch)
    u = u + pitch * np.float32(rng.choice([0, 0.5])) * np.mod(row, 2)
    column = np.floor(u / pitch)
    x, y = u - (column + 0.5) * pitch, v - (row + 0.5) * pitch
    radius = pitch * np.float32(rng.uniform(0.22, 0.33))
    present = np.ones_like(x)
    size = np.full_like(x, radius)
    if fault is not None:
        i, j = near_cell(fault, u, v, pitch, pitch)
        here = (column == i) & (row == j)
        if fault.kind == "missing_part":
            present = np.where(here, 0, 1).astype(np.float32)
        elif fault.rng.random() < 0.5:
            slip = fault.rng.choice([-1, 1], 2) * fault.rng.uniform(0.15, 0.2, 2) * pitch
            x, y = np.where(here, x - slip[0], x), np.where(here, y - slip[1], y)
        else:
            size = np.where(here, radius * fault.rng.choice([0.5, 1.4]), size)
    distance = size - np.hypot(x, y)
    metal = fill(
        pick(rng, [(0.62,), (0.75,), (0.45, 0.47, 0.5), (0.6, 0.5, 0.35), (0.3, 0.4, 0.5), (0.8, 0.78, 0.74)])
    )
    across, _ = rotated(rng.uniform(0, np.pi))
    glow = 0.18 * np.cos(across * np.float32(rng.uniform(0.012, 0.03)) + np.float32(rng.uniform(0, 6)))
    metal = lighten(metal, glow + 0.03 * noise(rng, 6, 110) + 0.02 * noise(rng, 100))
    behind = fill(vary(rng, colour(rng.choice([0.06, 0.1, 0.9])), 0.03))
    opening = edge(distance) * present
    light = rng.uniform(0, 2 * np.pi)
    facing = (x * np.cos(light) + y * np.sin(light)) / np.maximum(np.hypot(x, y), 1)
    lip = edge(1.3 - np.abs(distance + 1.2)) * present
    image = paint(lighten(metal, 0.4 * lip * facing), opening, lighten(behind, -0.3 * edge(2.5 - distance)))
    return Scene(image, 1 - opening, behind)


def ceramic_mosaic(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Small glazed tiles with a highlight each; a tile may be missing, or lie turned in its place."""
    u, v = texture_frame(rng, 0.8, 0.8)
    pitch = np.float32(rng.uniform(23, 36))
    column, row = np.floor(u / pitch).astype(int), np.floor(v / pitch).astype(int)
    x, y = u - (column + 0.5) * pitch, v - (row + 0.5) * pitch
    cell = np.mod(row, 32) * 32 + np.mod(column, 32)
    base = rng.uniform(0.15, 0.85, 3)
    palette = np.stack([vary(rng, colour(*np.clip(base + step, 0.08, 0.92)), 0.06) for step in (-0.15, 0, 0.12, 0.25)])
    choice = rng.integers(0, rng.integers(2, 5), 1024)
    tone = rng.normal(0, 0.05, 1024).astype(np.float32)
    slip = (0.02 * pitch * rng.standard_normal((2, 1024))).astype(np.float32)
    x, y = x + slip[0][cell], y + slip[1][cell]
    present = np.ones_like(x)
    if fault is not None:
        i, j = near_cell(fault, u, v, pitch, pitch)
        here = (column == i) & (row == j)
        if fault.kind == "missing_part":
            present = np.where(here, 0, 1).astype(np.float32)
        else:
            turned = rotated(fault.rng.choice([-1, 1]) * fault.rng.uniform(0.3, 0.75), x, y)
            x, y = np.where(here, turned[0], x), np.where(here, turned[1], y)
    half = pitch * np.float32(rng.uniform(0.41, 0.45))
    inside = half - np.maximum(np.abs(x), np.abs(y))
    inside = np.minimum(inside, half * 1.85 - np.abs(x) - np.abs(y))
    tile = edge(inside) * present
    glaze = 0.35 * np.exp(-((x / pitch + 0.2) ** 2 + (y / pitch + 0.22) ** 2) / 0.02) - 0.25 * edge(2.2 - inside)
    image = lighten(palette[choice[cell]], tone[cell] + glaze + 0.03 * noise(rng, 60))
    grout = lighten(fill(vary(rng, colour(rng.choice([0.25, 0.55, 0.85])), 0.04)), 0.10 * noise(rng, 100))
    return Scene(paint(grout, tile, image), _EVERYWHERE, grout * 0.7)


def corrugated_sheet(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Ridged cardboard or sheet; the ridges may bend aside or be crushed flat somewhere."""
    u, v = texture_frame(rng, 0.7, 1.2)
    pitch = np.float32(rng.uniform(11, 20))
    strength = np.ones_like(u)
    if fault is not None:
        row, column = fault.rng.integers(SIZE // 4, SIZE - SIZE // 4, 2)
        spread = fault.rng.uniform(13, 20)
        bump = np.exp(-(((u - u[row, column]) ** 2 + ((v - v[row, column]) / 1.3) ** 2) / spread**2))
        if fault.kind == "bent_part":
            u = u + np.float32(fault.rng.choice([-1, 1]) * fault.rng.uniform(0.6, 0.95) * pitch) * bump
        else:
            strength = 1 - np.clip(bump * 1.5, 0, 0.95)
    phase = u * (2 * np.pi / pitch)
    base = pick(rng, [(0.65, 0.5, 0.34), (0.55, 0.42, 0.3), (0.78, 0.76, 0.72), (0.45, 0.5, 0.55), (0.35, 0.45, 0.38)])
    wave = np.cos(phase) + 0.35 * np.cos(2 * phase + 0.6)
    shade = strength * (0.27 * wave + 0.2 * np.clip(np.cos(phase) - 0.75, 0, 1)) + 0.05 * fractal_noise(rng, 40, 2)
    shade = shade + 0.05 * noise(rng, 30, 112) * noise(rng, 8)
    return Scene(lighten(fill(base), shade), _EVERYWHERE, fill(base * 0.2))


def marble_slab(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Polished marble with clouds and soft winding veins."""
    u, v = rotated(rng.uniform(0, np.pi))
    warp = fractal_noise(rng, 4, 5)
    veins = np.abs(np.sin(u * np.float32(rng.uniform(0.015, 0.03)) + 1.3 * warp + 0.004 * v))
    fine = np.abs(np.sin(v * np.float32(rng.uniform(0.03, 0.05)) + 1.6 * fractal_noise(rng, 5, 5)))
    dark = rng.random() < 0.35
    base = pick(
        rng, [(0.2, 0.21, 0.22), (0.16, 0.25, 0.21), (0.3, 0.2, 0.18)] if dark else [(0.88,), (0.8, 0.74, 0.68)]
    )
    vein = vary(rng, colour(0.75, 0.72, 0.66) if dark else colour(0.45, 0.44, 0.45), 0.06)
    image = lighten(fill(base), 0.06 * warp)
    image = paint(image, 0.65 * np.clip(1 - veins / rng.uniform(0.15, 0.3), 0, 1) ** 1.5, vein)
    image = paint(image, 0.3 * np.clip(1 - fine / 0.12, 0, 1) ** 1.5, vein)
    return Scene(image, _EVERYWHERE, image * 0.3)


def tread_plate(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Floor plate with raised bars in alternating directions; a bar may be missing or lie the wrong way."""
    u, v = texture_frame(rng, 0.8, 0.5)
    pitch = np.float32(rng.uniform(22, 34))
    column, row = np.floor(u / pitch).astype(int), np.floor(v / pitch).astype(int)
    x, y = u - (column + 0.5) * pitch, v - (row + 0.5) * pitch
    turn = np.where(np.mod(column + row, 2) == 0, np.pi / 4, -np.pi / 4)
    present = np.ones_like(x)
    if fault is not None:
        i, j = near_cell(fault, u, v, pitch, pitch)
        here = (column == i) & (row == j)
        if fault.kind == "missing_part":
            present = np.where(here, 0, 1).astype(np.float32)
        else:
            turn = np.where(here, -turn, turn)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    length, width = pitch * 0.46, pitch * np.float32(rng.uniform(0.10, 0.14))
    inside = width * (1 - (along / length) ** 2) - np.abs(across)
    bar = edge(inside * 1.2) * present
    height = blur(bar, 1.0)
    base = pick(rng, [(0.5,), (0.62,), (0.38, 0.4, 0.43), (0.55, 0.5, 0.42), (0.3, 0.35, 0.32)])
    shade = 0.9 * relief(height, rng.uniform(0, 2 * np.pi)) + 0.22 * bar
    shade = shade + 0.06 * fractal_noise(rng, 20, 4) + 0.08 * noise(rng, 3)
    return Scene(lighten(fill(base), shade), _EVERYWHERE, fill(base * 0.15))


def plaid_flannel(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Twill cloth with crossing coloured stripes; a stripe's colour may be wrong for a stretch."""
    u, v = texture_frame(rng, 0.6, 2.0)
    repeat = np.float32(rng.uniform(46, 80))
    base = pick(rng, [(0.6, 0.15, 0.15), (0.2, 0.3, 0.45), (0.25, 0.4, 0.28), (0.7, 0.65, 0.55), (0.35, 0.3, 0.32)])
    tones = [np.clip(base + rng.normal(0, 0.3, 3), 0.04, 0.95).astype(np.float32) for _ in range(3)]
    starts, widths = rng.uniform(0, 1, 3), rng.uniform(0.08, 0.3, 3)

    def stripes(position: np.ndarray, wrong: np.ndarray | None) -> np.ndarray:
        image = fill(base)
        for tone, start, width in zip(tones, starts, widths, strict=True):
            offset = np.mod(position / repeat - start, 1) - 0.5
            cover = edge((width / 2 - np.abs(offset)) * repeat)
            image = paint(image, cover if wrong is None else cover * (1 - wrong), tone)
        return image

    wrong = None
    if fault is not None:
        row, column = fault.rng.integers(SIZE // 4, SIZE - SIZE // 4, 2)
        centre = np.round((u[row, column] / repeat) - starts[0] - 0.5) + starts[0] + 0.5
        on_stripe = np.abs(u / repeat - centre) < widths[0] / 2 + 0.02
        wrong = (on_stripe & (np.abs(v - v[row, column]) < fault.rng.uniform(14, 28))).astype(np.float32)
    twill = np.mod((u + v) / 4.5, 1).astype(np.float32)
    mix = np.where(twill < 0.5, 0.75, 0.25).astype(np.float32)
    image = paint(stripes(v, None), mix, stripes(u, wrong))
    shade = 0.12 * np.sin(2 * np.pi * twill) + 0.07 * noise(rng, 112) + 0.05 * fractal_noise(rng, 4)
    return Scene(lighten(image, shade), _EVERYWHERE, fill(base * 0.2))


def loop_carpet(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Loop-pile carpet of two or three mixed yarns; loops may be missing in a bald spot."""
    u, v = texture_frame(rng, 1.5, 2.0)
    nearest, _, number = cells(rng, u, v, rng.uniform(6.5, 9.5), 0.6)
    base = pick(rng, [(0.4, 0.4, 0.42), (0.55, 0.45, 0.35), (0.25, 0.3, 0.4), (0.45, 0.25, 0.25), (0.35, 0.4, 0.3)])
    palette = np.stack([base, vary(rng, base, 0.12), vary(rng, base, 0.2)])
    image = palette[rng.choice(3, 4096, p=[0.6, 0.25, 0.15])][number]
    shade = 0.3 - 0.13 * nearest + 0.12 * noise(rng, 110)
    if fault is not None:
        bald = polygons([blob_points(fault.rng, fault.rng.uniform(12, 20), 0.3) + fault.rng.uniform(-70, 70, 2)])
        image = paint(image, bald, vary(fault.rng, base * 0.75, 0.03))
        shade = shade * (1 - bald) + bald * 0.1 * np.sin(u * 1.6) * np.sin(v * 1.6)
    return Scene(lighten(image, shade), _EVERYWHERE, fill(base * 0.2))
