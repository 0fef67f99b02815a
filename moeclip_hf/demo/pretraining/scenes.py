"""Scenes: a bare material, or parts laid out on a ground, with the nouns that name what is seen.

Parts are a list that is rendered into a picture, so that a structural irregularity is the same list with one part
missing, moved, turned, exchanged or cut, rendered again: the mask is where the two pictures differ.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .fields import Canvas, blur
from .irregularities import Irregularity, visible_mask
from .shapes import OUTLINE_NOUNS, STYLES, Outline, Placement, draw_outline, random_outline, shade
from .textures import PATTERNS, TRAINING_PATTERNS, draw_material, draw_plain, random_colour


@dataclass(frozen=True)
class Part:
    """One outlined body: which material of the scene covers it, how bright it is, and how round it looks."""

    outline: Outline
    place: Placement
    material: int
    tone: float = 1.0
    style: str = "flat"
    structural: bool = True
    cut: np.ndarray | None = None


@dataclass
class Scene:
    """What a picture shows before anything is wrong with it.

    `noun` names the whole, `ground_noun` what lies behind it (None for a bare material). `foreground` is where an
    irregularity may lie. `parts` is empty for a bare material. `repaint` draws the picture with a structural fault, in
    scenes that have no parts.
    """

    canvas: Canvas
    image: np.ndarray
    foreground: np.ndarray
    noun: str
    ground_noun: str | None = None
    parts: tuple[Part, ...] = ()
    materials: tuple[np.ndarray, ...] = ()
    light: float = 0.0
    shadow: float = 0.0
    overlay: tuple[np.ndarray, np.ndarray] | None = None
    repaint: Callable[[np.random.Generator], np.ndarray] | None = None


def _window(canvas: Canvas, place: Placement) -> tuple[slice, slice]:
    unit, reach = canvas.pixels_per_unit, place.size * 1.5
    column, row = place.x * unit + canvas.width / 2, place.y * unit + canvas.height / 2
    rows = slice(max(int(row - reach * unit), 0), min(int(row + reach * unit) + 2, canvas.height))
    columns = slice(max(int(column - reach * unit), 0), min(int(column + reach * unit) + 2, canvas.width))
    return rows, columns


def render(scene: Scene, parts: tuple[Part, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The picture of these parts on the scene's ground (material 0), and their joint cover."""
    canvas = scene.canvas
    image = scene.materials[0].copy()
    union = np.zeros(canvas.shape, np.float32)
    drawn = []
    for part in parts:
        window = _window(canvas, part.place)
        if window[0].stop <= window[0].start or window[1].stop <= window[1].start:
            continue
        cover, depth = draw_outline(canvas, part.outline, part.place, window)
        if part.cut is not None:
            cover = cover * (1 - part.cut[window])
        union[window] = np.maximum(union[window], cover)
        drawn.append((part, window, cover, depth))
    if scene.shadow:
        offset = np.array([np.sin(scene.light), np.cos(scene.light)]) * 0.02 * canvas.pixels_per_unit
        cast = np.roll(blur(union, 0.015 * canvas.pixels_per_unit), np.round(offset).astype(int), (0, 1))
        image = image * (1 - scene.shadow * cast[..., None])
    for part, window, cover, depth in drawn:
        if min(cover.shape) < 3:
            continue
        shading = shade(depth, scene.light, part.style) * part.tone
        body = scene.materials[part.material][window] * shading[..., None]
        image[window] += cover[..., None] * (body - image[window])
    if scene.overlay is not None:
        colour, amount = scene.overlay
        image += (amount * union)[..., None] * (colour - image)
    return np.clip(image, 0, 1).astype(np.float32), union


def _finish(scene: Scene) -> Scene:
    scene.image, cover = render(scene, scene.parts)
    scene.foreground = cover > 0.5
    return scene


def _lettering(rng: np.random.Generator, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """A print of letters or a sign: a colour and its cover. Prints are part of a sound product."""
    sheet = Image.new("L", (canvas.width, canvas.height))
    size = int(rng.uniform(0.08, 0.3) * canvas.pixels_per_unit)
    text = "".join(rng.choice(list(string.ascii_uppercase + string.digits), rng.integers(1, 7)))
    place = (canvas.width * rng.uniform(0.3, 0.7), canvas.height * rng.uniform(0.3, 0.7))
    ImageDraw.Draw(sheet).text(place, text, fill=255, font=ImageFont.load_default(size), anchor="mm")
    if rng.random() < 0.5:
        sheet = sheet.rotate(float(rng.choice([90, 180, 270, rng.uniform(0, 360)])))
    return random_colour(rng), np.asarray(sheet, np.float32) / 255


def _pick(rng: np.random.Generator, nouns: tuple[str, ...]) -> str:
    return nouns[rng.integers(len(nouns))]


def material_scene(
    rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0, patterns=TRAINING_PATTERNS
) -> Scene:
    """A surface that fills the picture; now and then with a border strip of something else.

    It is patterned whatever `plain_share`, which says how often the skin of the other scenes' things has one colour.
    """
    image, nouns = draw_material(rng, canvas, patterns=patterns)
    foreground = np.ones(canvas.shape, bool)
    if rng.random() < 0.12:
        other, _ = draw_material(rng, canvas, calm=True)
        x, _ = canvas.rotated(rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + rng.normal(0, 0.03))
        edge = np.clip((x - rng.uniform(0.15, 0.45)) * canvas.pixels_per_unit + 0.5, 0, 1)[..., None]
        image, foreground = image + edge * (other - image), edge[..., 0] < 0.5
    return Scene(canvas, image.astype(np.float32), foreground, _pick(rng, nouns))


def _draw_skin(rng, canvas, plain_share):
    if plain_share and rng.random() < plain_share:
        return draw_plain(rng, canvas)
    return draw_material(rng, canvas, calm=True)


def _new_scene(rng, canvas, noun, plain_share, materials=3):
    drawn = [_draw_skin(rng, canvas, plain_share) for _ in range(materials)]
    if rng.random() < 0.3:
        drawn[0] = (np.ones_like(drawn[0][0]) * random_colour(rng), ("ground", "table"))
    return Scene(
        canvas,
        image=drawn[0][0],
        foreground=np.zeros(canvas.shape, bool),
        noun=noun,
        ground_noun=_pick(rng, drawn[0][1]),
        materials=tuple(image for image, _ in drawn),
        light=rng.uniform(0, 2 * np.pi),
        shadow=rng.choice([0, rng.uniform(0.1, 0.6)]),
        overlay=_lettering(rng, canvas) if rng.random() < 0.12 else None,
    )


def _style(rng):
    return str(rng.choice(STYLES))


def object_scene(rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0) -> Scene:
    """One thing on a ground, built of a body and parts set symmetrically on it."""
    outline, nouns = random_outline(rng)
    scene = _new_scene(rng, canvas, _pick(rng, nouns), plain_share, materials=4)
    size = rng.uniform(0.28, 0.52)
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, 2 * np.pi)])
    body = Placement(*rng.normal(0, 0.03, 2), size, angle)
    parts = [Part(outline, body, 1, style=_style(rng), structural=False)]
    if rng.random() < 0.4:
        inner = outline if rng.random() < 0.5 else random_outline(rng)[0]
        parts.append(
            Part(inner, body.moved(size=size * rng.uniform(0.4, 0.85)), 2, style=_style(rng), structural=False)
        )
    if rng.random() < 0.5:
        parts += _around(rng, body, outline.aspect)
    elif rng.random() < 0.4:
        parts += _along(rng, body, outline.aspect)
    scene.parts = tuple(parts)
    return _finish(scene)


def _around(rng, body: Placement, aspect: float) -> list[Part]:
    """Equal parts on a circle about the middle."""
    outline, count = random_outline(rng)[0], int(rng.integers(2, 13))
    radius, size = body.size * rng.uniform(0.35, 0.75), body.size * rng.uniform(0.06, 0.9 / max(count, 4))
    style, material = _style(rng), int(rng.choice([0, 3]))
    parts = []
    for turn in np.arange(count) * 2 * np.pi / count + rng.uniform(0, 6.3):
        u, v = radius * np.cos(turn), radius * np.sin(turn) * aspect
        x = body.x + np.cos(body.angle) * u - np.sin(body.angle) * v
        y = body.y + np.sin(body.angle) * u + np.cos(body.angle) * v
        parts.append(Part(outline, Placement(x, y, size, body.angle + turn), material, style=style))
    return parts


def _along(rng, body: Placement, aspect: float) -> list[Part]:
    """Equal parts in a row along the body."""
    outline, count = random_outline(rng)[0], int(rng.integers(2, 8))
    size = min(body.size * 0.75 / count, body.size * aspect * rng.uniform(0.3, 0.7))
    style, material = _style(rng), int(rng.choice([0, 3]))
    parts = []
    for u in np.linspace(-0.75, 0.75, count) * body.size:
        x, y = body.x + np.cos(body.angle) * u, body.y + np.sin(body.angle) * u
        parts.append(Part(outline, Placement(x, y, size, body.angle), material, style=style))
    return parts


def array_scene(rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0) -> Scene:
    """Equal parts in rows and columns."""
    outline, nouns = random_outline(rng)
    scene = _new_scene(
        rng, canvas, _pick(rng, ("set of {}s", "{}s", "tray of {}s")).format(_pick(rng, nouns)), plain_share
    )
    rows, columns = int(rng.integers(1, 7)), int(rng.integers(2, 7))
    half_x, half_y = canvas.half_size
    step_x, step_y = 2 * half_x / columns, 2 * half_y / rows
    size = 0.5 * min(step_x, step_y) * rng.uniform(0.5, 0.95)
    angle, style = rng.choice([0, np.pi / 4, np.pi / 2, rng.uniform(0, 6.3)]), _style(rng)
    alternate, wobble = rng.random() < 0.2, rng.choice([0, 0.02, 0.06])
    parts = []
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.5) * step_x - half_x, (row + 0.5) * step_y - half_y
            x, y = np.array([x, y]) + rng.normal(0, wobble, 2) * size
            material = 1 + int(alternate and (row + column) % 2)
            turn = angle + rng.normal(0, wobble)
            tone = 1 + rng.normal(0, 0.03)
            parts.append(Part(outline, Placement(x, y, size, turn), material, tone, style))
    scene.parts = tuple(parts)
    return _finish(scene)


def heap_scene(rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0) -> Scene:
    """Like things strewn loosely; neighbours may overlap."""
    outline, nouns = random_outline(rng)
    scene = _new_scene(
        rng, canvas, _pick(rng, ("heap of {}s", "{}s", "pile of {}s")).format(_pick(rng, nouns)), plain_share
    )
    count, size, style = int(rng.integers(4, 26)), rng.uniform(0.07, 0.2), _style(rng)
    half_x, half_y = canvas.half_size
    scene.parts = tuple(
        Part(
            outline,
            Placement(
                rng.uniform(-half_x, half_x),
                rng.uniform(-half_y, half_y),
                size * rng.uniform(0.9, 1.1),
                rng.uniform(0, 6.3),
            ),
            1,
            1 + rng.normal(0, 0.06),
            style,
            structural=False,
        )
        for _ in range(count)
    )
    return _finish(scene)


def panel_scene(rng: np.random.Generator, canvas: Canvas, plain_share: float = 0.0) -> Scene:
    """A plate with unlike parts set square on it, some in rows."""
    scene = _new_scene(
        rng, canvas, _pick(rng, ("panel", "control panel", "module", "assembly", "device")), plain_share, materials=5
    )
    half_x, half_y = canvas.half_size
    size = rng.choice([1.2, rng.uniform(0.4, 0.5)])
    parts = [Part(Outline("box", half_y / half_x, 0.05), Placement(0, 0, size, 0), 1, structural=False)]
    for _ in range(rng.integers(3, 9)):
        outline, _ = random_outline(rng)
        x, y = rng.uniform(-0.4, 0.4, 2)
        count, part_size = int(rng.choice([1, 1, 2, 3, 5])), rng.uniform(0.03, 0.14)
        style, material, step = _style(rng), int(rng.integers(2, 5)), np.eye(2)[rng.integers(2)] * part_size * 2.3
        angle = rng.choice([0, np.pi / 2])
        for number in range(count):
            px, py = np.array([x, y]) + number * step
            parts.append(
                Part(outline, Placement(px, py, part_size, angle), material, style=style, structural=count > 2)
            )
    scene.parts = tuple(parts)
    return _finish(scene)


SCENES: tuple[Callable[[np.random.Generator, Canvas, float], Scene], ...] = (
    material_scene,
    object_scene,
    array_scene,
    heap_scene,
    panel_scene,
)


def _cut_part(rng: np.random.Generator, canvas: Canvas, part: Part) -> Part:
    """The part with a piece of its edge gone."""
    cover, depth = draw_outline(canvas, part.outline, part.place)
    edge = np.flatnonzero((cover > 0.2) & (depth < 0.15))
    if not len(edge):
        return part
    place = edge[rng.integers(len(edge))]
    x, y = (float(axis.flat[place]) for axis in canvas.coordinates)
    waves = tuple((k, rng.normal(0, 0.25 / k), rng.uniform(0, 6.3)) for k in range(1, 8))
    outline = Outline("blob", aspect=rng.uniform(0.4, 1), waves=waves)
    size = part.place.size * rng.uniform(0.12, 0.5)
    return replace(part, cut=draw_outline(canvas, outline, Placement(x, y, size, rng.uniform(0, 6.3)))[0])


def _spoil_parts(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """The picture with one part missing, moved, turned, resized, exchanged, off in tone or cut."""
    parts = list(scene.parts)
    regular = [number for number, part in enumerate(parts) if part.structural]
    number = regular[rng.integers(len(regular))] if regular and rng.random() < 0.75 else rng.integers(len(parts))
    part, place = parts[number], parts[number].place
    kind = rng.choice(["missing", "moved", "turned", "resized", "exchanged", "tone", "cut"])
    if not part.structural or kind == "cut":
        parts[number] = _cut_part(rng, scene.canvas, part)
    elif kind == "missing":
        del parts[number]
    elif kind == "moved":
        dx, dy = rng.uniform(0.35, 1.1, 2) * rng.choice([-1, 1], 2) * place.size
        parts[number] = replace(part, place=place.moved(x=place.x + dx, y=place.y + dy))
    elif kind == "turned":
        parts[number] = replace(part, place=place.moved(angle=place.angle + rng.uniform(0.4, 2.7)))
    elif kind == "resized":
        parts[number] = replace(part, place=place.moved(size=place.size * rng.choice([0.55, 0.7, 1.35, 1.6])))
    elif kind == "exchanged":
        parts[number] = replace(part, outline=random_outline(rng)[0], style=_style(rng))
    else:
        parts[number] = replace(part, tone=part.tone * rng.choice([0.4, 0.65, 1.5, 1.9]))
    return render(scene, tuple(parts))[0]


def structural_irregularity(
    rng: np.random.Generator, scene: Scene, *, contrast: float = 0.05, tries: int = 3
) -> Irregularity | None:
    """One fault in what the scene is built of; None when nothing can be seen.

    `contrast` is the mean difference in [0, 1] from which on it counts as seen.
    """
    everywhere = np.ones(scene.canvas.shape, np.float32)
    for _ in range(tries):
        image = scene.repaint(rng) if scene.repaint is not None else _spoil_parts(rng, scene)
        mask = visible_mask(scene.image, image, everywhere, scene.canvas, contrast)
        if mask is not None and mask.mean() < 0.4:
            return Irregularity(image, mask)
    return None


def scene_nouns() -> list[str]:
    """Every noun that may name a scene or its ground, sorted."""
    singular = [noun for nouns in OUTLINE_NOUNS.values() for noun in nouns]
    layouts = [
        form.format(noun)
        for form in ("set of {}s", "{}s", "tray of {}s", "heap of {}s", "pile of {}s")
        for noun in singular
    ]
    materials = [noun for nouns in PATTERNS.values() for noun in nouns]
    return sorted(
        {*singular, *layouts, *materials, "ground", "table", "panel", "control panel", "module", "assembly", "device"}
    )
