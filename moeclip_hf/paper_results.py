"""The paper's own figures, to lay beside those that are measured here.

Park, Seo, Kang, Park: MoECLIP: Patch-Specialized Experts for Zero-shot Anomaly Detection. CVPR 2026, arXiv:2603.03101,
table of the main results. Trained on VisA; the figures for VisA itself are of training on MVTec-AD.
"""

PAPER = "MoECLIP, CVPR 2026, arXiv:2603.03101"
PAPER_TRAINING = {"visa": "mvtec"}
"""Where the paper trained on another benchmark than on `PAPER_TRAINING_DEFAULT`."""
PAPER_TRAINING_DEFAULT = "visa"

_COLUMNS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap")
# In percent; None where the metric is undefined.
_ROWS = {
    "mvtec": (93.9, 96.8, 92.5, 45.7),
    "visa": (83.6, 86.2, 95.6, 26.1),
    "btad": (93.1, 98.0, 96.8, 50.4),
    "rsdd": (95.3, 95.1, 99.7, 35.9),
    "dtd_synthetic": (95.5, 98.6, 98.8, 62.7),
    "brain_mri": (88.5, 97.1, 97.3, 61.3),
    "head_ct": (96.6, 94.5, None, None),
    "liver_ct": (74.0, 64.6, 97.2, 10.8),
    "retina_oct": (85.5, 84.9, 96.2, 66.3),
    "colon_db": (None, None, 85.4, 34.8),
    "clinic_db": (None, None, 89.7, 49.9),
    "cvc_300": (None, None, 97.0, 53.0),
    "endo": (None, None, 91.0, 62.5),
    "kvasir": (None, None, 88.1, 57.6),
}
PAPER_RESULTS: dict[str, dict[str, float | None]] = {
    key: {name: None if value is None else value / 100 for name, value in zip(_COLUMNS, row, strict=True)}
    for key, row in _ROWS.items()
}
"""By benchmark and metric, in [0, 1] as everywhere in this package."""
