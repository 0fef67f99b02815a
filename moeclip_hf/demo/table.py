"""The demo's tables: results in percent, as plain text."""

from ..evaluation import METRICS, TITLES


ROWS = {
    "trained": "mean, trained",
    "untrained": "mean, same model untrained",
    "clip": "mean, untrained, CLIP's projections",
    "local_contrast": "mean, local-contrast heuristic",
}


def format_table(results: dict) -> str:
    """Lays out the trained model's figures per object and the three means.

    Args:
        results (`dict`): As [`~demo.run.run_demo`] returns them.

    Returns:
        `str`: lines of plain text, figures in percent.
    """
    means = {"trained": results["mean"]}
    means.update({name: baseline["mean"] for name, baseline in results["meta"]["baselines"].items()})
    classes = {name.replace("_", " "): values for name, values in results["classes"].items()}
    return lay_out("object never seen in training", [classes, {ROWS[name]: values for name, values in means.items()}])


def lay_out(title: str, blocks: list[dict[str, dict[str, float]]]) -> str:
    """Lays out figures line by line, with a rule before each block.

    Args:
        title (`str`): Head of the first column.
        blocks (`list[dict[str, dict[str, float]]]`): Of each line its name and its metrics in [0, 1].

    Returns:
        `str`: lines of plain text, figures in percent.
    """
    width = max(len(title), *(len(name) for block in blocks for name in block))
    head = "  ".join([title.ljust(width), *TITLES.values()])
    lines = [head]
    for block in blocks:
        lines.append("-" * len(head))
        for name, values in block.items():
            cells = [f"{100 * values[metric]:.1f}".rjust(len(TITLES[metric])) for metric in METRICS]
            lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(lines)
