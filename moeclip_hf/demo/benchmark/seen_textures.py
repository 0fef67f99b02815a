"""Textures of the training half. Each painter draws one picture of its material, with a structural fault if given."""

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


def brushed_steel(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Metal with fine parallel streaks and a broad reflection."""
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15)
    u, v = rotated(angle)
    streaks = rng.standard_normal((3, 512)).astype(np.float32)
    drift = np.float32(rng.uniform(0.004, 0.02))
    shade = sum(
        streaks[i][np.mod(np.floor(v * (1 + 0.6 * i) + drift * u * (i - 1)).astype(int), 512)] for i in range(3)
    )
    shade = 0.035 * blur(shade, 0.6) * (1 + 0.4 * noise(rng, 14, 40))
    glow = np.exp(-(((v - rng.uniform(-90, 90)) / rng.uniform(50, 110)) ** 2))
    image = fill(pick(rng, [(0.5,), (0.62,), (0.36,), (0.6, 0.54, 0.44), (0.52, 0.56, 0.62)]))
    return Scene(lighten(image, shade + 0.22 * glow), _EVERYWHERE, fill(colour(0.05)))


def oak_plank(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Boards with a wandering grain and dark joints."""
    u, v = rotated(rng.choice([0, np.pi / 2]) + rng.normal(0, 0.06))
    width = np.float32(rng.uniform(45, 90))
    position = v / width + np.float32(rng.random())
    board = np.floor(position).astype(int)
    tone = rng.normal(0, 0.07, 16)[np.mod(board, 16)].astype(np.float32)
    shift = rng.uniform(0, 300, 16)[np.mod(board, 16)].astype(np.float32)
    warp = 2.2 * noise(rng, 3, 7) + 0.5 * noise(rng, 6, 30)
    grain = np.sin((v + shift) * np.float32(rng.uniform(0.35, 0.8)) + 2.0 * warp + 0.01 * u)
    fine = noise(rng, 10, 120) if abs(u[0, 1] - u[0, 0]) > 0.7 else noise(rng, 120, 10)
    pores = np.clip(fine - 0.8, 0, 1)
    joint = edge(np.float32(rng.uniform(0.9, 1.8)) - np.abs(position - np.round(position)) * width)
    image = fill(pick(rng, [(0.62, 0.45, 0.27), (0.45, 0.3, 0.18), (0.75, 0.62, 0.45), (0.32, 0.22, 0.15), (0.5,)]))
    image = lighten(image, tone + 0.11 * grain + 0.05 * fine - 0.25 * pores)
    image = paint(image, 0.85 * joint, image * 0.25)
    return Scene(image, _EVERYWHERE, image * 0.15)


def knitted_wool(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Columns of V-shaped stitches; a dropped stitch leaves a gap, a wrong one has another yarn's colour."""
    u, v = texture_frame(rng, 0.2, 1.5)
    width, height = np.float32(rng.uniform(15, 22)), np.float32(rng.uniform(10, 14))
    column = np.floor(u / width).astype(int)
    side = np.abs(u / width - column - 0.5) * 2  # 0 in the column's middle, 1 at its borders
    slant = v / height + 0.9 * side
    stitch = np.floor(slant).astype(int)
    along = slant - stitch - 0.5
    yarn = np.clip(1 - (2.1 * along) ** 2, 0, 1) * np.clip(1 - (1.9 * (side - 0.5)) ** 4, 0, 1)
    base = pick(
        rng, [(0.55, 0.2, 0.2), (0.2, 0.3, 0.5), (0.75, 0.72, 0.65), (0.3, 0.4, 0.28), (0.4,), (0.2, 0.2, 0.22)]
    )
    image = fill(base)
    stripes = rng.random(32) < rng.choice([0, 0.35])
    image = paint(image, stripes[np.mod(stitch, 32)].astype(np.float32), vary(rng, base, 0.25))
    fuzz = 0.1 * noise(rng, 110) + 0.1 * noise(rng, 60)
    shade = 0.62 * yarn - 0.42 + fuzz * yarn
    if fault is not None:
        i, j = near_cell(fault, u, v, width, height)
        if fault.kind == "missing_part":
            tall = fault.rng.integers(2, 5)
            gap = (column == i) & (stitch >= j) & (stitch < j + tall)
            shade = np.where(gap, 0.55 * np.exp(-((along * 4) ** 2)) - 0.72, shade)
        else:
            wrong = (np.abs(column - i) <= fault.rng.integers(0, 2)) & (np.abs(stitch - j) <= fault.rng.integers(1, 3))
            other = vary(fault.rng, np.clip(base + fault.rng.choice([-0.2, 0.22]), 0.05, 0.95), 0.06)
            image = paint(image, wrong.astype(np.float32), other)
    return Scene(lighten(image, shade), _EVERYWHERE, fill(base * 0.12))


def speckled_granite(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Polished stone of irregular grains in a few colours."""
    u, v = texture_frame(rng, 1.5, 3.0)
    nearest, second, number = cells(rng, u, v, rng.uniform(6, 12), 0.95)
    tones = [(0.75, 0.7, 0.66), (0.45, 0.42, 0.42), (0.15, 0.14, 0.15), (0.65, 0.5, 0.45), (0.85, 0.84, 0.82)]
    palette = np.stack([vary(rng, colour(*tone), 0.04) for tone in tones])
    share = rng.dirichlet([2, 2, 1.2, 1.5, 1.5])
    image = palette[rng.choice(5, 4096, p=share)][number]
    image = lighten(image, 0.10 * fractal_noise(rng, 28, 3))
    image = paint(image, 0.35 * edge(0.8 - (second - nearest)), image * 0.6)
    return Scene(blur(image, 0.5), _EVERYWHERE, fill(colour(0.10)))


def wire_mesh(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Round wires crossing over and under; a wire may be broken, or lie out of place."""
    u, v = texture_frame(rng, 0.4, 1.0)
    pitch = np.float32(rng.uniform(17, 26))
    radius = np.float32(pitch * rng.uniform(0.12, 0.2))
    behind = fill(vary(rng, colour(rng.choice([0.1, 0.3, 0.8])), 0.05))
    base = pick(rng, [(0.6,), (0.75, 0.72, 0.65), (0.4, 0.42, 0.45), (0.6, 0.45, 0.25), (0.2, 0.45, 0.35)])
    if abs(float(base.mean()) - float(behind.mean())) < 0.2:
        behind = behind * 0 + np.float32(0.08 if base.mean() > 0.4 else 0.85)
    wander = noise(rng, 6)
    image = behind
    region = np.zeros((SIZE, SIZE), dtype=np.float32)
    broken, broken_direction = None, None
    if fault is not None:
        i, j = near_cell(fault, u, v, pitch, pitch)
        direction = int(fault.rng.integers(2))
        if fault.kind == "missing_part":
            across, along = ((u, v), (v, u))[direction]
            middle = ((j, i)[direction] + 0.5) * pitch
            gap = np.abs(along - middle) < pitch * fault.rng.uniform(0.35, 0.9)
            broken, broken_direction = gap & (np.floor(across / pitch) == (i, j)[direction]), direction
        else:
            bump = np.exp(-(((u - (i + 0.5) * pitch) ** 2 + (v - (j + 0.5) * pitch) ** 2) / (0.9 * pitch) ** 2))
            push = np.float32(fault.rng.choice([-1, 1]) * fault.rng.uniform(0.35, 0.5)) * pitch * bump
            u, v = (u + push, v) if direction == 0 else (u, v + push)
    for direction, (across, along) in enumerate(((u, v), (v, u))):
        index = np.floor(across / pitch)
        offset = across - (index + 0.5) * pitch + 0.8 * wander
        over = np.cos(np.pi * (along / pitch - 0.5) + np.pi * (index + direction))
        cover = edge(radius - np.abs(offset))
        if direction == broken_direction:
            cover = np.where(broken, 0, cover)
        shading = np.sqrt(np.clip(1 - (offset / (radius + 1)) ** 2, 0, 1)) - 0.55 - 0.2 * offset / radius
        wire = lighten(fill(base), shading + 0.18 * over)
        hidden = (region > 0.5) & (over < 0)
        image = paint(image, np.where(hidden, 0, cover), wire)
        region = np.maximum(region, cover)
    return Scene(image, _EVERYWHERE, behind)


def dotted_wallpaper(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Paper printed with a regular motif; a motif may be missing, or printed in the wrong place."""
    u, v = texture_frame(rng, 0.8, 0.8)
    pitch = np.float32(rng.uniform(22, 34))
    row = np.floor(v / pitch)
    u = u + pitch * np.float32(rng.choice([0, 0.5])) * np.mod(row, 2)
    column = np.floor(u / pitch)
    x, y = u - (column + 0.5) * pitch, v - (row + 0.5) * pitch
    base = pick(rng, [(0.88, 0.85, 0.75), (0.6, 0.72, 0.75), (0.3, 0.35, 0.45), (0.75, 0.6, 0.6), (0.92,)])
    ink = np.clip(base + rng.choice([-1, 1]) * rng.uniform(0.3, 0.5) + rng.normal(0, 0.1, 3), 0.05, 0.95)
    ink = (np.clip(base - 0.4, 0.05, 1) if np.abs(ink - base).max() < 0.25 else ink).astype(np.float32)
    present = _EVERYWHERE
    if fault is not None:
        i, j = near_cell(fault, u, v, pitch, pitch)
        here = (column == i) & (row == j)
        if fault.kind == "missing_part":
            present = np.where(here, fault.rng.choice([0, 0.25]), 1).astype(np.float32)
        else:
            slip = fault.rng.choice([-1, 1], 2) * fault.rng.uniform(0.14, 0.2, 2) * pitch
            x, y = np.where(here, x - slip[0], x), np.where(here, y - slip[1], y)
    size = pitch * np.float32(rng.uniform(0.22, 0.3))
    motif = rng.integers(4)
    distance = np.hypot(x, y)
    if motif == 0:
        shape = edge(size - distance)
    elif motif == 1:
        shape = edge(size * (0.8 + 0.28 * np.cos(5 * np.arctan2(y, x))) - distance)
    elif motif == 2:
        shape = edge(size - np.abs(x) - np.abs(y))
    else:
        shape = edge(size * 0.28 - np.abs(distance - size * 0.85))
    image = paint(fill(base), shape * present, ink)
    image = lighten(image, 0.025 * noise(rng, 112) + 0.02 * fractal_noise(rng, 5))
    return Scene(image, _EVERYWHERE, fill(vary(rng, colour(0.55, 0.5, 0.45))))


def rough_concrete(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Grey cast surface with clouds, grains and air pores."""
    image = fill(pick(rng, [(0.55,), (0.42,), (0.68, 0.66, 0.62), (0.5, 0.46, 0.4), (0.3, 0.31, 0.33)]))
    grain = fractal_noise(rng, rng.integers(30, 60), 3, 0.8)
    shade = rng.uniform(0.05, 0.12) * fractal_noise(rng, rng.integers(3, 6), 4) + rng.uniform(0.04, 0.09) * grain
    nearest, _, number = cells(rng, *texture_frame(rng, 1.5, 0.0), rng.uniform(22, 34), 0.95)
    radii = np.clip(rng.normal(0.4, 1.0, 4096), 0, 2.6).astype(np.float32)[number]
    pores = edge(radii - nearest) * (radii > 0.6)
    shade = shade - 0.55 * pores + relief(blur(grain, 0.7), rng.uniform(0, 2 * np.pi)) * rng.uniform(0.02, 0.08)
    return Scene(lighten(image, shade), _EVERYWHERE, image * 0.15)


def plaster_wall(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Coloured wall with the bumps of a roller, lit from the side."""
    base = pick(rng, [(0.85, 0.83, 0.78), (0.8, 0.7, 0.5), (0.55, 0.65, 0.6), (0.75, 0.55, 0.48), (0.6, 0.62, 0.68)])
    across = rng.integers(16, 44)
    height = fractal_noise(rng, across, 3, 0.6)
    shade = relief(blur(height, 0.8), rng.uniform(0, 2 * np.pi)) * rng.uniform(0.12, 0.3) * 30 / across
    shade = shade + 0.04 * noise(rng, 4)
    if fault is not None:
        flake = polygons([blob_points(fault.rng, fault.rng.uniform(10, 20), 0.35) + fault.rng.uniform(-70, 70, 2)])
        under = lighten(fill(vary(fault.rng, base * 0.82, 0.05)), 0.3 * shade)
        lip = relief(blur(flake, 0.8), 0.8) * 0.9
        return Scene(lighten(paint(lighten(fill(base), shade), flake, under), lip), _EVERYWHERE, fill(base * 0.3))
    return Scene(lighten(fill(base), shade), _EVERYWHERE, fill(base * 0.3))


def brick_wall(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Bricks of varying tone in running bond; one may be missing, or laid askew."""
    u, v = texture_frame(rng, 0.12, 1.2)
    height = np.float32(rng.uniform(20, 30))
    width = height * np.float32(rng.uniform(1.9, 2.6))
    row = np.floor(v / height).astype(int)
    u = u + width * 0.5 * np.mod(row, 2)
    column = np.floor(u / width).astype(int)
    x, y = u - (column + 0.5) * width, v - (row + 0.5) * height
    tone = rng.normal(0, 0.11, 1024).astype(np.float32)[np.mod(row * 37 + column * 11, 1024)]
    joint = np.float32(rng.uniform(1.5, 3))
    mortar = fill(vary(rng, colour(rng.choice([0.3, 0.6, 0.8])), 0.04))
    base = pick(rng, [(0.6, 0.3, 0.22), (0.5, 0.36, 0.3), (0.7, 0.6, 0.48), (0.45,), (0.36, 0.24, 0.22)])
    present = _EVERYWHERE
    if fault is not None:
        i, j = near_cell(fault, u, v, width, height)
        here = (column == i) & (row == j)
        if fault.kind == "missing_part":
            present = np.where(here, 0, 1).astype(np.float32)
            mortar = np.where(here[..., None], mortar * 0.45, mortar)
        else:
            turn = fault.rng.choice([-1, 1]) * fault.rng.uniform(0.1, 0.16)
            turned = rotated(turn, x, y)
            x, y = np.where(here, turned[0], x), np.where(here, turned[1], y)
            tone = np.where(here, tone + fault.rng.choice([-0.15, 0.15]), tone)
    inside = np.minimum(width / 2 - np.abs(x), height / 2 - np.abs(y)) - joint
    brick = edge(inside + 1.2 * noise(rng, 60)) * present
    image = lighten(fill(base), tone + 0.10 * fractal_noise(rng, 24, 4))
    image = paint(lighten(mortar, 0.08 * noise(rng, 90)), brick, image)
    image = lighten(image, 0.5 * relief(blur(brick, 0.8), rng.uniform(0, 2 * np.pi)))
    return Scene(image, _EVERYWHERE, image * 0.2)
