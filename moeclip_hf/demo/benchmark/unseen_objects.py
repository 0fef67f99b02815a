"""Objects of the test half. Each painter draws one picture of its object, with a structural fault if given."""

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
)


def _pose(rng: np.random.Generator, spread: float = 14) -> tuple[float, float, float]:
    """Returns an object's middle `x, y` and its angle, any direction."""
    x, y = rng.uniform(-spread, spread, 2)
    return float(x), float(y), float(rng.uniform(0, 2 * np.pi))


def hex_nut(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Six-sided nut with a threaded bore; a corner may be missing, or the thread."""
    x, y, angle = _pose(rng)
    radius = rng.uniform(66, 86)
    corners = circle_points(6, radius)
    if fault is not None and fault.kind == "missing_part":
        corners[0] *= fault.rng.uniform(0.72, 0.8)
        corners = np.roll(corners, fault.rng.integers(6), axis=0)
        turn = fault.rng.integers(6) * np.pi / 3
        corners = place(circle_points(6, radius), angle=turn)
        before, after = (corners[0] * 0.6 + corners[5] * 0.4), (corners[0] * 0.6 + corners[1] * 0.4)
        corners = np.concatenate([[before, after], corners[1:]])
    body = polygons([place(corners, (x, y), angle)])
    distance = np.hypot(X - x, Y - y)
    bore = radius * rng.uniform(0.4, 0.5)
    opening = edge(bore - distance)
    base = pick(rng, [(0.6,), (0.72,), (0.45, 0.44, 0.43), (0.7, 0.55, 0.25), (0.3, 0.32, 0.36)])
    turns = np.arctan2(Y - y, X - x) - angle
    facet = np.cos(np.floor(turns / (np.pi / 3)) * np.pi / 3 + angle + rng.uniform(0, 6))
    bevel = np.clip((distance / radius - 0.82) * 12, 0, 1)
    shade = 0.2 * facet * bevel - 0.12 * bevel + 0.05 * np.sin(distance * 1.9) + 0.16 * np.cos(2 * turns + angle)
    shade = shade + 0.4 * relief(blur(body - opening, 1.2), rng.uniform(0, 2 * np.pi)) + 0.03 * noise(rng, 80)
    behind = tabletop(rng)
    image = paint(cast_shadow(behind, body, rng), body, lighten(fill(base), shade))
    pitch = np.float32(rng.uniform(3.4, 5))
    spiral = np.sin((distance - bore) * (2 * np.pi / pitch) + turns)
    bare = fault is not None and fault.kind == "swapped_part"
    wall = lighten(fill(base * 0.55), (0 if bare else 0.6) * spiral + 0.3 * np.cos(turns - 1))
    image = paint(image, opening, wall)
    image = paint(image, edge(bore * 0.76 - distance), behind * 0.75)
    return Scene(image, body * (1 - opening), behind)


def blister_pack(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Foil card with pills under clear domes; a pill may be missing, broken, or another kind."""
    x, y, _ = _pose(rng, 8)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.12)
    columns, rows = [(4, 2), (5, 3), (4, 3)][rng.integers(3)]
    gap = {4: 43, 5: 36}[columns] * rng.uniform(0.93, 1.02)
    card = rounded_box(x, y, columns * gap / 2 + 6, rows * gap / 2 + 6, 10, angle)
    foil = pick(rng, [(0.72,), (0.62, 0.64, 0.68), (0.75, 0.68, 0.5), (0.5,)])
    u, v = rotated(angle, X - np.float32(x), Y - np.float32(y))
    knurl = np.sin(u * 1.4) * np.sin(v * 1.4)
    behind = tabletop(rng)
    sheet = lighten(fill(foil), 0.10 * knurl + 0.10 * noise(rng, 5))
    image = paint(cast_shadow(behind, card, rng), card, sheet)
    pill = pick(rng, [(0.92,), (0.85, 0.3, 0.25), (0.9, 0.8, 0.4), (0.4, 0.6, 0.8), (0.75, 0.55, 0.7)])
    long = rng.random() < 0.5
    reach = gap * rng.uniform(0.28, 0.33)
    light = rng.uniform(0, 2 * np.pi)
    turns = rng.normal(0, 0.12, columns * rows)
    victim = int(fault.rng.integers(columns * rows)) if fault is not None else -1
    region = np.zeros_like(X)
    for index in range(columns * rows):
        column, row = index % columns, index // columns
        at = np.array([[(column - (columns - 1) / 2) * gap, (row - (rows - 1) / 2) * gap]])
        spot = place(at, (x, y), angle)[0]
        dome = disc(*spot, gap * 0.42)
        image = lighten(image, 0.5 * relief(blur(dome, 1.6), light) - 0.08 * dome)
        if not (index == victim and fault.kind == "missing_part"):
            narrow = reach * (0.55 if long else 1.0)
            if index == victim and fault.kind == "swapped_part":
                narrow = reach * (1.0 if long else 0.55)
            body = rounded_box(*spot, reach * 1.08, narrow, narrow, angle + turns[index] + np.pi / 4 * long)
            if index == victim and fault.kind == "broken_part":
                normal = fault.rng.uniform(0, 2 * np.pi)
                side = (X - spot[0]) * np.cos(normal) + (Y - spot[1]) * np.sin(normal)
                body = body * edge(reach * fault.rng.uniform(-0.1, 0.35) + 1.2 * noise(fault.rng, 70) - side)
            pill_shade = 0.55 * relief(blur(body, 2.0), light)
            image = paint(image, body, lighten(fill(pill), pill_shade))
            region = np.maximum(region, body)
        glint = np.float32(spot) + np.float32(gap * 0.22) * np.array([np.cos(light), np.sin(light)], dtype=np.float32)
        image = np.clip(image + 0.4 * edge((gap * 0.07 - np.hypot(X - glint[0], Y - glint[1])) * 0.5)[..., None], 0, 1)
    return Scene(image, card, behind)


def pocket_comb(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Comb with many thin teeth; a tooth may be broken off or bent."""
    x, y, _ = _pose(rng, 10)
    angle = rng.choice([0, np.pi]) + rng.normal(0, 0.22)
    count, length = int(rng.integers(16, 25)), rng.uniform(62, 84)
    width = 176.0
    pitch = width / count
    top = -length / 2 - 12
    shapes = []
    victim = int(fault.rng.integers(2, count - 2)) if fault is not None else -1
    taper = rng.uniform(0.2, 0.3)
    for tooth in range(count):
        left = -width / 2 + tooth * pitch
        root, tip, lean = top + 18, top + 18 + length, 0.0
        if tooth == victim and fault.kind == "missing_part":
            tip = root + length * fault.rng.uniform(0.05, 0.45)
        if tooth == victim and fault.kind == "bent_part":
            lean = fault.rng.choice([-1, 1]) * pitch * fault.rng.uniform(0.7, 1.1)
        heights = np.linspace(0, 1, 9)
        shift = lean * heights**2
        half = pitch * 0.31 * (1 - taper * heights)
        middle = left + pitch / 2 + shift
        down = root + heights * (tip - root)
        outline = np.concatenate([np.stack([middle - half, down], 1), np.stack([middle + half, down], 1)[::-1]])
        shapes.append(outline)
    shapes.append(np.array([[-width / 2, top], [width / 2, top], [width / 2, top + 20], [-width / 2, top + 20]]))
    body = polygons([place(shape, (x, y), angle) for shape in shapes])
    base = pick(rng, [(0.12,), (0.4, 0.24, 0.12), (0.75, 0.7, 0.6), (0.15, 0.25, 0.45), (0.6, 0.15, 0.25), (0.6,)])
    behind = tabletop(rng)
    if abs(float(behind.mean() - base.mean())) < 0.18:
        behind = np.clip(behind + (0.4 if base.mean() < 0.5 else -0.4), 0.04, 0.96)
    light = rng.uniform(0, 2 * np.pi)
    shade = 0.5 * relief(blur(body, 1.3), light) + 0.10 * fractal_noise(rng, 6)
    image = paint(cast_shadow(behind, body, rng), body, lighten(fill(base), shade))
    return Scene(image, body, behind)


def domino_tile(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Domino with one to six pips a half; a pip may be missing from its pattern or sit out of place."""
    x, y, angle = _pose(rng, 10)
    half = rng.uniform(40, 46)
    body = rounded_box(x, y, half * 2, half, 9, angle)
    base = pick(rng, [(0.9, 0.88, 0.8), (0.12,), (0.55, 0.36, 0.22), (0.2, 0.3, 0.28), (0.8, 0.75, 0.78)])
    ink = colour(0.1) if base.mean() > 0.45 else colour(0.92)
    light = rng.uniform(0, 2 * np.pi)
    shade = 0.8 * relief(blur(body, 3.0), light) + 0.04 * fractal_noise(rng, 5) + 0.05 * noise(rng, 5, 60)
    behind = tabletop(rng)
    image = paint(cast_shadow(behind, body, rng), body, lighten(fill(base), shade))
    patterns = {
        2: [(-1, -1), (1, 1)],
        3: [(-1, -1), (0, 0), (1, 1)],
        4: [(-1, -1), (1, -1), (-1, 1), (1, 1)],
        5: [(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)],
        6: [(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, 0), (1, 0)],
    }
    left, right = rng.integers(4, 7, 2)
    spots = []
    for side, number in ((-1, left), (1, right)):
        spots += [(side * half + px * half * 0.55, py * half * 0.55) for px, py in patterns[int(number)]]
    spots = np.array(spots)
    kept = np.ones(len(spots), dtype=bool)
    if fault is not None:
        corners = np.flatnonzero(np.abs(np.abs(spots[:, 1]) - half * 0.55) < 1e-6)
        victim = int(fault.rng.choice(corners))
        if fault.kind == "missing_part":
            kept[victim] = False
        else:
            spots[victim] += fault.rng.choice([-1, 1], 2) * half * fault.rng.uniform(0.17, 0.24, 2)
    for spot in place(spots, (x, y), angle)[kept]:
        pip = disc(*spot, half * 0.14)
        image = paint(image, pip, ink)
        image = lighten(image, 0.6 * relief(blur(pip, 1.0), light + np.pi) * body)
    bar = rounded_box(x, y, 1.6, half * 0.82, 1, angle)
    return Scene(paint(image, bar, ink), body, behind)


def tree_leaf(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Leaf with a midrib and side veins; a side vein may be missing, or a lobe of the leaf."""
    x, y, angle = _pose(rng, 10)
    length, width = rng.uniform(92, 104), rng.uniform(44, 62)
    along = np.linspace(-1, 1, 60)
    serration = 1 + 0.03 * np.sin(along * rng.uniform(40, 70))
    half = width * np.sqrt(np.clip(1 - along**2, 0, 1)) * (1 - rng.uniform(0.1, 0.4) * along) * serration
    if fault is not None and fault.kind == "missing_part":
        centre, spread = fault.rng.uniform(-0.5, 0.5), fault.rng.uniform(0.1, 0.18)
        bite = 1 - fault.rng.uniform(0.45, 0.7) * np.exp(-(((along - centre) / spread) ** 4))
    else:
        bite = np.ones_like(along)
    upper, lower = np.stack([along * length, half * bite], 1), np.stack([along * length, -half], 1)
    body = polygons([place(np.concatenate([upper, lower[::-1]]), (x, y), angle)])
    bend = rng.normal(0, 0.05)
    base = pick(rng, [(0.25, 0.45, 0.15), (0.4, 0.55, 0.2), (0.65, 0.5, 0.15), (0.6, 0.25, 0.12), (0.18, 0.32, 0.15)])
    veins, widths = [[(-length * 1.06, 0), (length * 0.98, 0)]], [3.2]
    count = int(rng.integers(6, 10))
    slope = rng.uniform(0.5, 0.9)
    for index in range(count):
        start = -0.85 + 1.6 * index / count
        for side in (-1, 1):
            reach = width * 1.1 * np.sqrt(max(0.02, 1 - min(1, abs(start + 0.2)) ** 2))
            curve = np.array([0, 0.5, 1.0])
            points = np.stack([start * length + reach * slope * curve**1.2, side * reach * curve * (1 + bend)], 1)
            veins.append(points)
            widths.append(1.4)
    strokes = [place(np.array(vein), (x, y), angle) for vein in veins]
    vein_cover = lines(strokes, widths)
    mottle = 0.08 * fractal_noise(rng, 12, 3)
    shade = mottle + 0.6 * relief(blur(body - 0.6 * vein_cover, 1.6), rng.uniform(0, 2 * np.pi))
    behind = tabletop(rng)
    blade = lighten(fill(base), shade)
    blade = paint(blade, vein_cover * 0.65, np.clip(base * 1.5 + 0.08, 0, 1))
    stalk = lines([strokes[0]], 3.2)
    image = paint(cast_shadow(behind, np.maximum(body, stalk), rng), stalk, base * 0.9)
    return Scene(paint(image, body, blade), body, behind)


def pin_connector(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Plastic housing with two rows of metal pins; a pin may be missing, bent, or pushed in."""
    x, y, _ = _pose(rng, 8)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15)
    columns = int(rng.integers(5, 9))
    gap = 170 / columns
    rows = 2 if columns > 5 else 3
    row_gap = gap * rng.uniform(1.0, 1.2)
    tall = rows * row_gap / 2 + 12
    body = rounded_box(x, y, 98, tall, 7, angle)
    well = rounded_box(x, y, 90, tall - 8, 4, angle)
    base = pick(rng, [(0.13,), (0.85, 0.83, 0.78), (0.15, 0.25, 0.5), (0.2, 0.4, 0.3), (0.55, 0.15, 0.12)])
    light = rng.uniform(0, 2 * np.pi)
    shade = 0.6 * relief(blur(body - 0.8 * well, 1.2), light) - 0.25 * well + 0.04 * fractal_noise(rng, 30, 2)
    behind = tabletop(rng)
    image = paint(cast_shadow(behind, body, rng), body, lighten(fill(base), shade))
    metal = pick(rng, [(0.78,), (0.8, 0.66, 0.35), (0.62, 0.6, 0.58)], 0.03)
    victim = int(fault.rng.integers(columns * rows)) if fault is not None else -1
    drop = place([[gap * 0.2, gap * 0.24]], angle=light)[0]
    for index in range(columns * rows):
        column, row = index % columns, index // columns
        at = np.array([[(column - (columns - 1) / 2) * gap, (row - (rows - 1) / 2) * row_gap]])
        spot = place(at, (x, y), angle)[0]
        socket = rounded_box(*spot, gap * 0.32, gap * 0.32, 2, angle)
        image = paint(image, socket * 0.6, base * 0.35)
        if index == victim and fault.kind == "missing_part":
            continue
        lean = np.zeros(2)
        if index == victim and fault.kind == "bent_part":
            lean = place([[gap * fault.rng.uniform(0.3, 0.42), 0]], angle=fault.rng.uniform(0, 2 * np.pi))[0]
        foot = rounded_box(*spot, gap * 0.2, gap * 0.2, 1, angle)
        shaft = lines([np.array([spot, spot + drop + lean])], float(gap * 0.32))
        image = paint(image, np.maximum(foot, shaft), metal * 0.55)
        head = rounded_box(*(spot + drop + lean), gap * 0.17, gap * 0.17, 1, angle)
        image = paint(image, head, np.clip(metal * 1.2, 0, 1))
    return Scene(image, body * (1 - well) if tall > 45 else body, behind)


def ball_bearing(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Two steel rings with balls between them; a ball may be missing, or of another metal."""
    x, y, angle = _pose(rng)
    radius = rng.uniform(68, 86)
    distance, turns = np.hypot(X - x, Y - y), np.arctan2(Y - y, X - x)
    body = edge(radius - distance) * edge(distance - radius * 0.34)
    race = edge(radius * 0.115 - np.abs(distance - radius * 0.67))
    base = pick(rng, [(0.62,), (0.5, 0.52, 0.56), (0.72, 0.7, 0.66), (0.4,)])
    shade = 0.25 * np.cos(2 * turns + rng.uniform(0, 6)) + 0.06 * np.sin(distance * 2.2)
    edges = ring(x, y, radius * 0.95, 2) + ring(x, y, radius * 0.39, 2)
    light = rng.uniform(0, 2 * np.pi)
    shade = shade + 0.5 * relief(blur(body - race, 1.0), light) - 0.25 * edges
    behind = tabletop(rng)
    image = paint(cast_shadow(behind, body, rng), body, lighten(fill(base), shade))
    image = paint(image, race, lighten(fill(base * 0.3), 0.2 * np.cos(turns - light)))
    count = int(rng.integers(8, 12))
    spots = place(circle_points(count, radius * 0.67), (x, y), angle)
    size = radius * 0.105
    victim = int(fault.rng.integers(count)) if fault is not None else -1
    for index, spot in enumerate(spots):
        if index == victim and fault.kind == "missing_part":
            continue
        ball = disc(*spot, size)
        tone = base * 1.1
        if index == victim and fault.kind == "swapped_part":
            tone = np.clip(base * colour(1.15, 0.85, 0.5), 0, 1)
        glint = np.float32(spot) + np.float32(size * 0.35) * np.array([np.cos(light), np.sin(light)], dtype=np.float32)
        offset = np.hypot(X - glint[0], Y - glint[1]) / np.float32(size)
        image = paint(image, ball, lighten(fill(tone), 0.7 * np.exp(-(offset**2) * 6) - 0.45 * offset**2))
    return Scene(image, body * (1 - race), behind)


def folding_ruler(rng: np.random.Generator, fault: Fault | None) -> Scene:
    """Strips of a scale with short and long marks; a mark may be missing or out of place."""
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15)
    base = pick(rng, [(0.88, 0.78, 0.4), (0.9,), (0.7, 0.55, 0.36), (0.55,), (0.2, 0.22, 0.25)])
    ink = colour(0.1) if base.mean() > 0.4 else colour(0.92)
    behind = tabletop(rng)
    image, region = behind, np.zeros_like(X)
    pitch = rng.uniform(8.5, 12)
    start = rng.uniform(0, pitch)
    shifts = rng.uniform(-14, 14, 2)
    count = int(190 / pitch)
    strip = int(fault.rng.integers(2)) if fault is not None else -1
    victim = int(fault.rng.integers(3, count - 3)) if fault is not None else -1
    for index, middle in enumerate((-46, 46)):
        x, y = place([[shifts[index], middle]], angle=angle)[0]
        body = rounded_box(x, y, 104, 33, 5, angle)
        shade = 0.5 * relief(blur(body, 1.5), rng.uniform(0, 2 * np.pi)) + 0.05 * noise(rng, 4, 70)
        image = paint(cast_shadow(image, body, rng), body, lighten(fill(base), shade))
        marks, widths = [], []
        for mark in range(count):
            at = -96 + start + mark * pitch
            reach = 26 if mark % 5 == 0 else 14
            if index == strip and fault.kind == "missing_part" and 0 <= mark - victim < 2:
                continue
            if index == strip and fault.kind == "swapped_part" and mark == victim:
                at, reach = at + fault.rng.choice([-1, 1]) * pitch * fault.rng.uniform(0.32, 0.42), 40 - reach
            marks.append(place([[at, -32], [at, -32 + reach]], (x, y), angle))
            widths.append(2.4 if mark % 5 == 0 else 1.7)
        image = paint(image, lines(marks, widths), ink)
        rivet = place([[92, 18]], (x, y), angle)[0]
        image = paint(image, disc(*rivet, 6), colour(0.72, 0.62, 0.4))
        image = paint(image, ring(*rivet, 6, 1.4), colour(0.3))
        region = np.maximum(region, body)
    return Scene(image, region, behind)
