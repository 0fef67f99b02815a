"""A Gradio Space: find what is wrong on a picture, with any MoECLIP model, and see which expert looked where.

python examples/space/app.py [--model user/name]
"""

import argparse
import functools
import os
import tempfile
from pathlib import Path

import gradio as gr
import inspector
from inspector import DOMAINS, Inspection, Inspector

from moeclip_hf.demo import DEMO_MODEL, draw_example
from moeclip_hf.visualization import expert_colors, make_legend


TITLE = "MoECLIP: zero-shot anomaly detection"
MAX_UPLOAD = "50mb"

# Share of the way from the map's lowest to its highest value at which the mask begins, until the slider is moved.
FIRST_MASK_SHARE = 0.75

CSS = """
.legend {display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; font-size: 0.9rem; align-items: center}
.legend i {display: inline-block; height: 0.9rem; vertical-align: -0.1rem; margin-right: 0.35rem; border-radius: 3px}
.verdict {font-size: 1.15rem}
#experts .grid-wrap {max-height: none; overflow: visible}
"""


@functools.lru_cache(maxsize=2)
def load_inspector(repository: str) -> Inspector:
    """Loads a model, or finds it again if another visitor used it just before."""
    return Inspector(repository)


def reporting_errors(function):
    """Turns the errors that a visitor can mend into a message on the page."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (OSError, ValueError) as error:
            raise gr.Error(str(error), duration=20) from error

    return wrapped


@reporting_errors
def choose_model(repository: str):
    """Loads a repository; the page keeps the former one if that fails."""
    repository = repository.strip()
    if not repository:
        raise ValueError("Name a repository first, such as user/name.")
    load_inspector(repository)
    return repository, f"In use: **{display_name(repository)}**"


@reporting_errors
def inspect_picture(repository: str, file: str | None, object_name: str, domain: str, threshold: float):
    """Runs the model on the uploaded picture and shows all there is to see."""
    if file is None:
        raise ValueError("Upload a picture first.")
    inspection = load_inspector(repository).inspect(file, object_name)
    slider, *pictures = show_domain(inspection, domain)
    experts = inspector.draw_experts(inspection)
    return inspection, show_verdict(inspection, threshold), slider, *pictures, experts, expert_legend(inspection)


@reporting_errors
def show_domain(inspection: Inspection | None, domain: str):
    """Smooths the map anew and lets the mask begin at its usual place."""
    if inspection is None:
        return gr.skip()
    anomaly_map = inspector.compute_map(inspection, domain)
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    mask_threshold = round(low + FIRST_MASK_SHARE * (high - low), 2)
    slider = gr.Slider(minimum=round(low, 2), maximum=round(high, 2), value=mask_threshold, interactive=True)
    return slider, inspector.draw_map(inspection, anomaly_map), *show_mask(inspection, domain, mask_threshold)


def show_mask(inspection: Inspection | None, domain: str, mask_threshold: float):
    """Draws the mask at another threshold."""
    if inspection is None:
        return gr.skip()
    anomaly_map = inspector.compute_map(inspection, domain)
    picture, regions = inspector.draw_mask(inspection, anomaly_map, mask_threshold)
    return picture, [[*region["box"], round(region["score"], 2)] for region in regions]


def show_verdict(inspection: Inspection | None, threshold: float):
    """Says whether the picture counts as anomalous."""
    if inspection is None:
        return gr.skip()
    word, sign = ("Anomalous", "≥") if inspection.score >= threshold else ("Normal", "&lt;")
    return f"**{word}**: score {inspection.score:.3f} {sign} {threshold:.3f}"


# Gradio hands over its progress bar where it finds one as a default.
@reporting_errors
def score_many(repository: str, files: list[str] | None, object_name: str, threshold: float, progress=gr.Progress()):  # noqa: B008
    """Scores several pictures and offers them as CSV."""
    if not files:
        raise ValueError("Upload some pictures first.")
    bar = progress.tqdm(files, unit="picture")
    rows = load_inspector(repository).score_files(bar, object_name, threshold)
    path = Path(tempfile.mkdtemp(prefix="moeclip-")) / "scores.csv"
    inspector.write_scores(rows, path)
    table = [[f"{value:.4f}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    return table, gr.DownloadButton(value=str(path), interactive=True)


@reporting_errors
def draw_sample():
    """A drawn picture with a defect, to begin with."""
    return draw_example("tree_leaf", "hole"), "tree leaf"


def expert_legend(inspection: Inspection) -> str:
    """The experts' colours, or that there are none."""
    if not inspection.num_experts:
        return "This model has no experts."
    return legend({f"expert {number}": [color] for number, color in enumerate(expert_colors(inspection.num_experts))})


def legend(entries: dict[str, list[tuple[int, int, int]]]) -> str:
    """Colours and what they mean, as HTML; several colours of an entry are a scale."""
    parts = []
    for text, colors in entries.items():
        stops = ", ".join(f"rgb{tuple(color)}" for color in (colors * 2 if len(colors) == 1 else colors))
        width = "0.9rem" if len(colors) == 1 else "5rem"
        parts.append(f'<span><i style="width: {width}; background: linear-gradient(90deg, {stops})"></i>{text}</span>')
    return f'<div class="legend">{"".join(parts)}</div>'


def display_name(repository: str) -> str:
    """A Hub id as it is, of a folder its name alone: visitors need not know this machine's folders."""
    return Path(repository).name if os.path.isdir(repository) else repository


def build_app(repository: str) -> gr.Blocks:
    """Lays out the page.

    Args:
        repository (`str`): Hub id or folder of the model that is in use until a visitor names another.

    Returns:
        `gradio.Blocks`: the app.
    """
    shown = {"show_label": False, "format": "png", "interactive": False, "buttons": ["download", "fullscreen"]}
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        chosen, inspection = gr.State(repository), gr.State(None, time_to_live=3600)
        gr.Markdown(f"# {TITLE}\nUpload a picture, say what is on it, and see where it differs from a flawless one.")
        with gr.Row():
            object_name = gr.Textbox("object", label="What is on the picture?", min_width=300, elem_id="object-name")
            threshold = gr.Slider(
                0, 1, 0.5, step=0.001, label="Anomalous from a score of", min_width=300, elem_id="threshold"
            )
        with gr.Tab("One picture"):
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    file = gr.Image(
                        label="Picture", sources=["upload", "webcam", "clipboard"], height=300, elem_id="picture"
                    )
                    # The app's own reader gets the file as it was uploaded: 16 bits, orientation, damage and all.
                    file.preprocess = lambda upload: None if upload is None else upload.path
                    with gr.Row():
                        sample = gr.Button("Sample", min_width=120, elem_id="sample")
                        run = gr.Button("Inspect", variant="primary", min_width=120, elem_id="inspect")
                    domain = gr.Radio(list(DOMAINS), value="industrial", label="Smoothing of the map for")
                with gr.Column(scale=3, min_width=300):
                    verdict = gr.Markdown("No picture inspected yet.", elem_id="verdict", elem_classes="verdict")
                    with gr.Tab("Map"):
                        map_picture = gr.Image(**shown, elem_id="map")
                        gr.HTML(legend(make_legend()))
                    with gr.Tab("Mask"):
                        mask_threshold = gr.Slider(
                            label="Mask from a map value of", step=0.01, interactive=False, elem_id="mask-threshold"
                        )
                        mask_picture = gr.Image(**shown, elem_id="mask")
                        regions = gr.Dataframe(
                            headers=["left", "top", "right", "bottom", "peak"],
                            label="Regions, in pixels of the picture", interactive=False, max_height=220,
                            elem_id="regions",
                        )  # fmt: skip
                    with gr.Tab("Experts"):
                        gr.Markdown("The expert that each patch is sent to first.")
                        experts = gr.Gallery(
                            show_label=False,
                            format="png",
                            columns=2,
                            height="auto",
                            object_fit="contain",
                            elem_id="experts",
                        )
                        experts_key = gr.HTML()
        with gr.Tab("Many pictures"):
            files = gr.File(file_count="multiple", label="Pictures of the same object", elem_id="files")
            run_many = gr.Button("Score all", variant="primary", elem_id="score-all")
            table = gr.Dataframe(headers=list(inspector.COLUMNS), interactive=False, wrap=True, elem_id="scores")
            download = gr.DownloadButton("Download as CSV", interactive=False, elem_id="download")
        with gr.Accordion("Model", open=False):
            with gr.Row():
                wanted = gr.Textbox(
                    label="Repository", placeholder="user/name of a MoECLIP model",
                    scale=4, elem_id="repository",
                )  # fmt: skip
                load = gr.Button("Load", scale=1, min_width=100, elem_id="load")
            in_use = gr.Markdown(f"In use: **{display_name(repository)}**", elem_id="in-use")

        mask = [mask_picture, regions]
        seen = [inspection, verdict, mask_threshold, map_picture, *mask, experts, experts_key]
        run.click(inspect_picture, [chosen, file, object_name, domain, threshold], seen)
        sample.click(draw_sample, outputs=[file, object_name])
        # These draw again from what the model said: moving them costs no inference.
        quick = {"show_progress": "hidden", "trigger_mode": "always_last"}
        domain.input(show_domain, [inspection, domain], [mask_threshold, map_picture, *mask], **quick)
        threshold.change(show_verdict, [inspection, threshold], verdict, **quick)
        mask_threshold.input(show_mask, [inspection, domain, mask_threshold], mask, **quick)
        run_many.click(score_many, [chosen, files, object_name, threshold], [table, download])
        load.click(choose_model, wanted, [chosen, in_use])
    return app


def main():
    """Starts the app."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        default=os.environ.get("MOECLIP_MODEL") or DEMO_MODEL,
        help="Hub id or folder of a MoECLIP model (default: MOECLIP_MODEL, or else the packaged tiny model)",
    )
    options = parser.parse_args()
    load_inspector(options.model)
    build_app(options.model).launch(css=CSS, max_file_size=MAX_UPLOAD)


if __name__ == "__main__":
    main()
