"""Objects of the training half. Each painter draws one picture of its object, with a structural fault if given."""

import numpy as np

from .canvas import (
    Fault,
    Scene,
    X,
    Y,
    blur,
    cast_shadow,
    circle_points,
    colour,
    disc,
    edge,
    fill,
    fractal_noise,
    lighten,
    lines,
    noise,
    paint,
    pick,
    place,
    polygons,
    relief,
    ring,
    rotated,
    rounded_box,
    tabletop,
    vary,
)


def _pose(rng: np.random.Generator, spread: float = 14) -> tuple[float, float, float]:
    """Returns an object's middle `x, y` and its angle, any direction."""
    x, y = rng.uniform(-spread, spread, 2)
    return float(x), float(y), float(rng.uniform(0, 2 * np.pi))


def coat_button(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Button with a raised rim and four holes, sewn on crosswise; a hole or half of the thread may be missing."""
    x, y, angle = _pose(rng)
    radius = rng.uniform(62, 82)
    behind = tabletop(rng)
    body = disc(x, y, radius)
    base = pick(
        rng, [(0.3, 0.2, 0.15), (0.85, 0.82, 0.75), (0.15,), (0.2, 0.3, 0.5), (0.6, 0.2, 0.2), (0.5, 0.55, 0.4)]
    )
    distance = np.hypot(X - x, Y - y)
    height = body + 0.8 * edge(4 - np.abs(distance - radius * 0.85)) - 0.4 * edge((radius * 0.5 - distance) * 0.3)
    shade = 0.5 * relief(blur(height, 1.6), rng.uniform(0, 2 * np.pi)) + 0.05 * fractal_noise(rng, 8, 2)
    image = paint(cast_shadow(behind, body, rng), body, lighten(fill(base), shade))
    spots = place(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * radius * 0.17, (x, y), angle)
    missing = int(fault.rng.integers(4)) if fault is not None and fault.kind == "missing_part" else -1
    hole_radius = radius * rng.uniform(0.075, 0.095)
    for index, spot in enumerate(spots):
        if index != missing:
            image = paint(image, disc(*spot, hole_radius), behind * 0.35)
    thread = vary(rng, np.clip(base + rng.choice([-0.5, 0.5]), 0.1, 0.9).astype(np.float32), 0.08)
    strands = [spots[[0, 2]], spots[[1, 3]]] if rng.random() < 0.6 else [spots[[0, 1]], spots[[2, 3]]]
    if fault is not None and fault.kind == "swapped_part":
        strands = (
            [spots[[0, 2]], spots[[0, 3]]] if (strands[0] == spots[[0, 2]]).all() else [spots[[0, 1]], spots[[0, 2]]]
        )
    if missing >= 0:
        strands = [strand for strand in strands if not any((end == spots[missing]).all() for end in strand)]
    sewn = lines(strands, radius * 0.075)
    image = paint(image, sewn, lighten(fill(thread), 0.25 * noise(rng, 80)))
    return Scene(image, body * (1 - sewn), behind)


def gear_wheel(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Metal gear with a hub, round openings and teeth; a tooth may be missing."""
    x, y, angle = _pose(rng)
    count, radius = int(rng.integers(14, 25)), rng.uniform(64, 80)
    depth = radius * rng.uniform(0.12, 0.17)
    outline = []
    gone = int(fault.rng.integers(count)) if fault is not None else -1
    for tooth in range(count):
        for turn, reach in ((-0.42, -1), (-0.24, 0), (0.24, 0), (0.42, -1)):
            reach = -1 if tooth == gone else reach
            direction = (tooth + turn) * 2 * np.pi / count
            outline.append(np.array([np.cos(direction), np.sin(direction)]) * (radius + reach * depth))
    body = polygons([place(np.array(outline), (x, y), angle)])
    openings = int(rng.integers(3, 7))
    spots = place(circle_points(openings, radius * 0.5), (x, y), angle * 1.7)
    for spot in spots:
        body = body * (1 - disc(*spot, radius * rng.uniform(0.105, 0.12)))
    body = body * (1 - disc(x, y, radius * 0.17))
    behind = tabletop(rng)
    base = pick(rng, [(0.6,), (0.45, 0.46, 0.48), (0.7, 0.58, 0.32), (0.32,), (0.62, 0.45, 0.35)])
    turns = np.arctan2(Y - y, X - x)
    shade = 0.16 * np.cos(2 * turns + rng.uniform(0, 6)) + 0.06 * np.sin(np.hypot(X - x, Y - y) * 2.1)
    height = body + 0.7 * disc(x, y, radius * 0.3) * body + 0.5 * ring(x, y, radius * 0.74, 3)
    shade = shade + 0.5 * relief(blur(height, 1.0), rng.uniform(0, 2 * np.pi))
    image = paint(cast_shadow(behind, body, rng), body, lighten(fill(base), shade + 0.04 * noise(rng, 70)))
    return Scene(image, body, behind)


def circuit_board(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Printed board with tracks, chips and small parts; a part may be missing, or another in its place."""
    angle = rng.choice([0, np.pi / 2, np.pi, 1.5 * np.pi]) + rng.normal(0, 0.06)
    board = pick(rng, [(0.08, 0.35, 0.2), (0.1, 0.2, 0.4), (0.12, 0.12, 0.13), (0.45, 0.12, 0.12)])
    image = lighten(fill(board), 0.04 * fractal_noise(rng, 30, 2))
    copper = np.clip(board * 1.25 + 0.09, 0, 1)
    tracks = []
    for _ in range(16):
        start = rng.integers(-5, 6, 2) * 20.0
        stroke = [start]
        for _ in range(rng.integers(2, 5)):
            direction = rng.integers(8) * np.pi / 4
            stroke.append(stroke[-1] + np.array([np.cos(direction), np.sin(direction)]) * rng.uniform(18, 55))
        tracks.append(place(np.array(stroke), angle=angle))
    image = paint(image, lines(tracks, 2.6), copper)
    for track in tracks:
        for end in (track[0], track[-1]):
            image = paint(image, ring(*end, 3.4, 2.4), colour(0.75, 0.66, 0.4))
    slots = [(cx, cy) for cx in (-66, -22, 22, 66) for cy in (-66, -22, 22, 66)]
    kinds = rng.choice(4, 16, p=[0.3, 0.3, 0.15, 0.25])
    kinds[rng.integers(16)] = 2
    victim = -1
    if fault is not None:
        victim = int(fault.rng.choice(np.flatnonzero(kinds < 3)))
    tints = rng.normal(0, 0.04, 16)
    for index, (slot, kind) in enumerate(zip(slots, kinds, strict=True)):
        kind = 4 + kind if index == victim and fault.kind == "missing_part" else kind
        kind = int(kind == 0) if index == victim and fault.kind == "swapped_part" else kind
        image = _mount(image, kind, place(np.array([slot]), angle=angle)[0], angle, tints[index])
    return Scene(image, np.ones_like(X), fill(colour(0.75, 0.7, 0.5)))


def _mount(image: np.ndarray, kind: int, spot: np.ndarray, angle: float, tint: float) -> np.ndarray:
    """Draws one part of a board: 0 resistor, 1 capacitor, 2 chip, 3 nothing; 4 more means its bare pads alone."""
    silver, dark = colour(0.78 + tint), colour(0.13 + tint)
    if kind % 4 == 3:
        return image
    if kind % 4 == 2:
        for step in (-12, -4, 4, 12):
            for side in (-1, 1):
                pin = place(np.array([[step, side * 15.0]]), spot, angle)[0]
                image = paint(image, rounded_box(*pin, 1.8, 5, 0.6, angle), silver)
        if kind == 2:
            image = paint(image, rounded_box(*spot, 16, 12, 1.5, angle), dark)
            mark = place(np.array([[-11.5, -7.5]]), spot, angle)[0]
            image = paint(image, disc(*mark, 1.8), colour(0.6))
        return image
    for side in (-1, 1):
        pad = place(np.array([[side * 9.0, 0]]), spot, angle)[0]
        image = paint(image, rounded_box(*pad, 3.6, 6, 0.8, angle), silver)
    if kind == 0:
        image = paint(image, rounded_box(*spot, 8.5, 5.5, 1, angle), dark)
        image = paint(image, rounded_box(*spot, 3.5, 1, 0.5, angle), colour(0.75))
    elif kind == 1:
        image = paint(image, rounded_box(*spot, 8.5, 6, 1.5, angle), colour(0.68, 0.55, 0.38) + np.float32(tint))
    return image


def bottle_cap(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Crown cap with a fluted rim and a printed emblem; part of the print may be missing."""
    x, y, angle = _pose(rng)
    radius = rng.uniform(62, 78)
    turns = np.arctan2(Y - y, X - x) + angle
    distance = np.hypot(X - x, Y - y)
    flutes = np.cos(21 * turns)
    body = edge(radius * (1 + 0.035 * flutes) - distance)
    base = pick(rng, [(0.7, 0.12, 0.12), (0.12, 0.3, 0.55), (0.8, 0.65, 0.15), (0.1, 0.4, 0.25), (0.75,), (0.15,)])
    rim = np.clip((distance / radius - 0.76) * 5, 0, 1)
    shade = 0.28 * flutes * rim - 0.3 * np.clip(distance / radius - 0.9, 0, 1) * 6
    light = rng.uniform(0, 2 * np.pi)
    shade = shade + 0.5 * np.exp(-(((X - x - 30 * np.cos(light)) ** 2 + (Y - y - 30 * np.sin(light)) ** 2) / 700))
    ink = colour(0.93) if base.mean() < 0.6 else colour(0.12)
    face = lighten(fill(base), 0.03 * fractal_noise(rng, 10, 2))
    print_ring = ring(x, y, radius * 0.6, radius * 0.05)
    spikes = int(rng.integers(5, 9))
    tips = np.where(np.arange(2 * spikes) % 2 == 0, radius * 0.45, radius * rng.uniform(0.18, 0.25))
    if fault is not None:
        gone = int(fault.rng.integers(spikes)) * 2
        tips[gone] = tips[1]
        if fault.rng.random() < 0.5:
            start = fault.rng.uniform(-np.pi, np.pi)
            print_ring = print_ring * (np.mod(turns - start, 2 * np.pi) > fault.rng.uniform(0.35, 0.8))
    emblem = polygons([place(circle_points(2 * spikes, tips), (x, y), -angle)])
    face = paint(face, np.maximum(emblem, print_ring), ink)
    behind = tabletop(rng)
    image = paint(cast_shadow(behind, body, rng), body, lighten(face, shade))
    return Scene(image, body, behind)


def clock_dial(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Clock face with hour and minute marks and two hands; a mark may be missing or out of place."""
    x, y, _ = _pose(rng, 8)
    angle = rng.normal(0, 0.25)
    radius = rng.uniform(78, 92)
    behind = tabletop(rng)
    frame = disc(x, y, radius)
    face_colour = pick(rng, [(0.92,), (0.9, 0.87, 0.78), (0.12,), (0.2, 0.28, 0.4), (0.7, 0.75, 0.72)])
    ink = colour(0.1) if face_colour.mean() > 0.5 else colour(0.9)
    metal = pick(rng, [(0.7,), (0.7, 0.58, 0.3), (0.2,), (0.5, 0.3, 0.2)])
    shade = 0.35 * np.cos(np.arctan2(Y - y, X - x) - rng.uniform(0, 6))
    image = paint(cast_shadow(behind, frame, rng), frame, lighten(fill(metal), shade))
    face = disc(x, y, radius * 0.89)
    image = paint(image, face, lighten(fill(face_colour), 0.025 * fractal_noise(rng, 4)))
    turns, lengths = np.arange(60) * np.pi / 30, np.where(np.arange(60) % 5 == 0, 0.14, 0.05)
    widths = np.where(np.arange(60) % 5 == 0, radius * rng.uniform(0.03, 0.055), radius * 0.014)
    kept = np.ones(60, dtype=bool)
    if fault is not None:
        victim = int(fault.rng.integers(12)) * 5
        if fault.kind == "missing_part":
            kept[victim] = False
        else:
            turns[victim] += fault.rng.choice([-1, 1]) * fault.rng.uniform(0.12, 0.2)
    marks, mark_widths = [], []
    for turn, length, width in zip(turns[kept], lengths[kept], widths[kept], strict=True):
        marks.append(place([[0.83 * radius, 0], [(0.83 - length) * radius, 0]], (x, y), turn + angle))
        mark_widths.append(float(width))
    image = paint(image, lines(marks, mark_widths), ink)
    hands = rng.uniform(0, 2 * np.pi, 2)
    strokes = [
        place([[-8, 0], [radius * reach, 0]], (x, y), hand) for hand, reach in zip(hands, (0.45, 0.68), strict=True)
    ]
    hand_cover = np.maximum(lines(strokes, [5.0, 3.2]), disc(x, y, 5.5))
    image = lighten(image, -0.35 * np.roll(hand_cover, (3, 2), axis=(0, 1)) * face)
    image = paint(image, hand_cover, ink)
    return Scene(image, face, behind)


def round_biscuit(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Baked biscuit with a wavy rim and rings of pricked dots; a dot may be missing or out of place."""
    x, y, angle = _pose(rng)
    radius = rng.uniform(62, 80)
    turns, distance = np.arctan2(Y - y, X - x) + angle, np.hypot(X - x, Y - y)
    waves = int(rng.integers(16, 30))
    body = edge(radius * (1 + 0.02 * np.cos(waves * turns) + 0.01 * noise(rng, 5)) - distance)
    base = pick(rng, [(0.78, 0.58, 0.34), (0.68, 0.47, 0.26), (0.85, 0.7, 0.48), (0.32, 0.2, 0.13)])
    brown = np.clip(distance / radius - 0.55, 0, 1) * rng.uniform(0.3, 0.7)
    crumb = fractal_noise(rng, 45, 3, 0.7)
    shade = 0.06 * crumb + 0.05 * fractal_noise(rng, 5) - brown
    shade = shade + 0.45 * relief(blur(body, 3), rng.uniform(0, 2 * np.pi))
    image = lighten(fill(base), shade)
    image = lighten(image, 0.1 * edge(np.cos(waves * turns) * 3) * (distance > radius * 0.82))
    dots = [place(circle_points(n, radius * reach), (x, y), angle * n) for n, reach in ((5, 0.25), (10, 0.55))]
    dots = np.concatenate(dots) + rng.normal(0, 0.6, (15, 2))
    kept = np.ones(15, dtype=bool)
    if fault is not None:
        victim = int(fault.rng.integers(15))
        if fault.kind == "missing_part":
            kept[victim] = False
        else:
            dots[victim] += place([[radius * 0.12, 0]], angle=fault.rng.uniform(0, 2 * np.pi))[0]
    for dot in dots[kept]:
        pit = disc(*dot, radius * 0.045)
        image = lighten(image, -0.6 * pit + 0.25 * np.roll(pit, (2, 2), axis=(0, 1)) * (1 - pit))
    behind = tabletop(rng)
    image = paint(cast_shadow(behind, body, rng), body, image)
    return Scene(image, body, behind)


def china_saucer(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Saucer with a band of painted ornaments on its rim; an ornament may be missing."""
    x, y, angle = _pose(rng, 8)
    radius = rng.uniform(80, 96)
    distance = np.hypot(X - x, Y - y)
    body = disc(x, y, radius)
    base = pick(rng, [(0.92,), (0.88, 0.84, 0.74), (0.6, 0.7, 0.78), (0.3, 0.34, 0.4), (0.7, 0.5, 0.4)])
    height = np.clip((distance - radius * 0.6) / (radius * 0.12), 0, 1) + 0.3 * edge((radius * 0.95 - distance) * 0.5)
    light = rng.uniform(0, 2 * np.pi)
    shade = (
        1.4 * relief(blur(height, 2.0), light) + 0.08 * ((X - x) * np.cos(light) + (Y - y) * np.sin(light)) / radius
    )
    ink = np.clip(base + (-0.45 if base.mean() > 0.5 else 0.45) + rng.normal(0, 0.15, 3), 0.05, 0.95)
    count = int(rng.integers(10, 20))
    spots = place(circle_points(count, radius * 0.84), (x, y), angle)
    gone = int(fault.rng.integers(count)) if fault is not None else -1
    style = rng.integers(3)
    ornament = np.zeros_like(X)
    for index, spot in enumerate(spots):
        if index == gone:
            continue
        turn = angle + index * 2 * np.pi / count
        u, v = rotated(turn, X - np.float32(spot[0]), Y - np.float32(spot[1]))
        reach = np.float32(radius * 0.07)
        shape = (np.hypot(u, v), np.abs(u) * 0.7 + np.abs(v), np.hypot(u, v * 1.8))[style]
        ornament = np.maximum(ornament, edge(reach - shape))
    image = lighten(fill(base), 0.02 * noise(rng, 4))
    bands = ring(x, y, radius * 0.955, 2.2) + ring(x, y, radius * 0.64, 1.6)
    image = paint(image, np.clip(ornament + bands, 0, 1), ink.astype(np.float32))
    shine = np.exp(-(((X - x + 25 * np.cos(light)) ** 2 + (Y - y + 25 * np.sin(light)) ** 2) / 260))
    image = lighten(image, shade + rng.uniform(0.05, 0.3) * shine)
    behind = tabletop(rng)
    return Scene(paint(cast_shadow(behind, body, rng), body, image), body, behind)


def wax_candle(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Four round candles seen from above with a wick each; one may be missing or lack its wick."""
    x, y, angle = _pose(rng, 8)
    angle = angle if rng.random() < 0.3 else rng.normal(0, 0.1)
    gap = rng.uniform(43, 50)
    radius = gap * rng.uniform(0.72, 0.86)
    base = pick(
        rng, [(0.92, 0.88, 0.78), (0.7, 0.2, 0.2), (0.85, 0.7, 0.3), (0.4, 0.55, 0.45), (0.88,), (0.3, 0.3, 0.5)]
    )
    behind = tabletop(rng)
    spots = place(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * gap + rng.normal(0, 1.5, (4, 2)), (x, y), angle)
    wicks = rng.uniform(0, 2 * np.pi, 4)
    tones = rng.normal(0, 0.03, 4)
    image, region = behind, np.zeros_like(X)
    light = rng.uniform(0, 2 * np.pi)
    victim = int(fault.rng.integers(4)) if fault is not None else -1
    for index, spot in enumerate(spots):
        if index == victim and fault.kind == "missing_part":
            continue
        distance = np.hypot(X - np.float32(spot[0]), Y - np.float32(spot[1]))
        body = edge(radius - distance)
        cup = edge(radius * 0.93 - distance)
        height = body - 0.6 * edge((radius * 0.8 - distance) * 0.25)
        shade = tones[index] + 0.5 * relief(blur(height, 1.5), light)
        image = paint(cast_shadow(image, body, np.random.default_rng(index)), body, colour(0.72))
        image = paint(image, cup, lighten(fill(base), shade))
        pool = edge((radius * 0.45 - distance) * 0.4) * 0.12
        image = lighten(image, -pool)
        if not (index == victim and fault.kind == "swapped_part"):
            wick = lines([place([[0, 0], [radius * 0.3, 0]], spot, wicks[index])], 3.0)
            image = paint(image, wick, colour(0.15, 0.12, 0.1))
        region = np.maximum(region, cup)
    return Scene(image, region, behind)
