"""The paper's 14 benchmarks as one table: where the pictures lie, what the objects are called, what must be found.

Counts and object names are those of the authors' test lists; the names stand word for word in the prompts, slips of the
pen included, because trained weights depend on them. Nothing here reads a file.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


DOMAINS = ("industrial", "medical")
"""Each has its own smoothing of the maps and fusion of the image scores."""

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a data set lie, as patterns of folders below its root.

    A part of a pattern is a folder's name, or `{class}` (a folder for each class), `{normal}` (a folder named good, ok
    or normal) or `{defect}` (a folder with another name). A mask's pattern ends in the mask's name without its suffix,
    in which `{name}` is the picture's; `{kind}` in it is the folder that `{normal}` or `{defect}` stood for.

    Args:
        normal (`str`, *optional*): Folders of the normal pictures.
        anomalous (`str`, *optional*): Folders of the anomalous pictures.
        masks (`tuple[str, ...]`): Where a picture's mask may lie; the first pattern with a file counts.
        split_list (`str`, *optional*): CSV file with columns `image` and `split`; only its split "test" is read.
    """

    normal: str | None = None
    anomalous: str | None = None
    masks: tuple[str, ...] = ()
    split_list: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        key (`str`): Its name on a command line.
        title (`str`): Its name in the paper's table.
        domain (`str`): `"industrial"` or `"medical"`: smoothing of the maps and fusion of the image scores.
        layout (`Layout`): Where the pictures lie.
        object_names (`dict[str, str]`): For each class, under which results are reported, the object's name in the
            prompts. Where there is one class, it is the benchmark's key.
        num_normal (`int`): Normal test images.
        num_anomalous (`int`): Anomalous test images.
        home_page (`str`): Where to get it.
        licence (`str`): As far as known, `"not stated"` otherwise.
        non_commercial (`bool` or `None`): Whether commercial use is ruled out; None if that is not known.
        citation (`str`): The reference.
        class_counts (`dict[str, tuple[int, int]]`): Normal and anomalous test images of each class, as far as known.
        mask_threshold (`int`): The paper's mask rule: a pixel is anomalous if its mask is greater.
    """

    key: str
    title: str
    domain: str
    layout: Layout
    object_names: dict[str, str]
    num_normal: int
    num_anomalous: int
    home_page: str
    licence: str
    non_commercial: bool | None
    citation: str
    class_counts: dict[str, tuple[int, int]]
    mask_threshold: int = 0

    @property
    def has_masks(self) -> bool:
        """Whether anomalous images have masks; without them the pixel metrics are undefined."""
        return bool(self.layout.masks)


_MVTEC_LAYOUT = Layout(
    normal="{class}/test/{normal}",
    anomalous="{class}/test/{defect}",
    masks=("{class}/ground_truth/{kind}/{name}_mask",),
)
_BMAD_LAYOUT = Layout(normal="test/good/img", anomalous="test/Ungood/img", masks=("test/Ungood/label/{name}",))
_POLYP_LAYOUT = Layout(anomalous="images", masks=("masks/{name}",))

_BMAD = {
    "home_page": "https://github.com/DorisBao/BMAD",
    "licence": "CC BY-NC-SA 4.0 (as anomalib says), and the terms of the sources",
    "non_commercial": True,
}
_BMAD_CITATION = (
    "Bao, Sun, Deng, He, Zhang, Li: BMAD: Benchmarks for Medical Anomaly Detection. "
    "IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops, 2024."
)
_POLYP = {
    "home_page": "https://figshare.com/articles/figure/Polyp_DataSet_zip/21221579",
    "licence": NOT_STATED,
    "non_commercial": None,
}

_BENCHMARKS = (
    Benchmark(
        key="mvtec",
        title="MVTec-AD",
        domain="industrial",
        layout=_MVTEC_LAYOUT,
        object_names={
            "bottle": "dark bottle",
            "cable": "top view of three cables",
            "capsule": "black asd orange capsule",  # [sic]: so in the authors' prompts
            "carpet": "gray carpet",
            "grid": "metal or plastic mesh",
            "hazelnut": "single brown hazelnut",
            "leather": "brown leather",
            "metal_nut": "metal nut which has four notched edges",
            "pill": "oval white pill with small red speckles and the letters 'FF' engraved",
            "screw": "screw",
            "tile": "speckled tile surface",
            "transistor": "a three-legged transistor placed vertically",
            "toothbrush": "toothbrush head",
            "wood": "wood surface",
            "zipper": "a black zipper",
        },
        num_normal=467,
        num_anomalous=1258,
        class_counts={
            "bottle": (20, 63),
            "cable": (58, 92),
            "capsule": (23, 109),
            "carpet": (28, 89),
            "grid": (21, 57),
            "hazelnut": (40, 70),
            "leather": (32, 92),
            "metal_nut": (22, 93),
            "pill": (26, 141),
            "screw": (41, 119),
            "tile": (33, 84),
            "transistor": (60, 40),
            "toothbrush": (12, 30),
            "wood": (19, 60),
            "zipper": (32, 119),
        },
        home_page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        licence="CC BY-NC-SA 4.0",
        non_commercial=True,
        citation=(
            "Bergmann, Batzner, Fauser, Sattlegger, Steger: The MVTec Anomaly Detection Dataset: A Comprehensive "
            "Real-World Dataset for Unsupervised Anomaly Detection. International Journal of Computer Vision 129(4), "
            "1038-1059, 2021."
        ),
    ),
    Benchmark(
        key="visa",
        title="VisA",
        domain="industrial",
        layout=Layout(
            normal="{class}/Data/Images/Normal",
            anomalous="{class}/Data/Images/Anomaly",
            masks=("{class}/Data/Masks/Anomaly/{name}",),
            split_list="split_csv/1cls.csv",
        ),
        object_names={
            "candle": "candle",
            "pcb3": "infrared sensor pcb module",
            "capsules": "capsules",
            "pipe_fryum": "pipe-shaped fryum",
            "pcb4": "battery charging pcb module",
            "macaroni2": "scattered yellow macaroni",
            "pcb2": "integrated circuits board",
            "chewinggum": "chewing gum",
            "macaroni1": "orange macaroni",
            "cashew": "cashew nut",
            "fryum": "wheel-shaped fryum snack",
            "pcb1": "dual ultrasonic distance sensor pcb module",
        },
        num_normal=962,
        num_anomalous=1200,
        class_counts={
            "candle": (100, 100),
            "pcb3": (101, 100),
            "capsules": (60, 100),
            "pipe_fryum": (50, 100),
            "pcb4": (101, 100),
            "macaroni2": (100, 100),
            "pcb2": (100, 100),
            "chewinggum": (50, 100),
            "macaroni1": (100, 100),
            "cashew": (50, 100),
            "fryum": (50, 100),
            "pcb1": (100, 100),
        },
        home_page="https://github.com/amazon-science/spot-diff",
        licence="CC BY 4.0",
        non_commercial=False,
        citation=(
            "Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection "
            "and Segmentation. European Conference on Computer Vision (ECCV), 2022. arXiv:2207.14315."
        ),
    ),
    Benchmark(
        key="btad",
        title="BTAD",
        domain="industrial",
        layout=Layout(
            normal="{class}/test/ok", anomalous="{class}/test/ko", masks=("{class}/ground_truth/ko/{name}",)
        ),
        object_names={
            "01": "Bright concentric rings in neon yellow and blue tones against a dark blue background, resembling a "
            "stylized wave or energy field radiating outward.",
            "02": "vertical fabric lines in warm, dusty pink and beige tones",
            "03": "oval concentric circular rings in gradient shades of blue and white",
        },
        num_normal=451,
        num_anomalous=290,
        class_counts={"01": (21, 49), "02": (30, 200), "03": (400, 41)},
        home_page="http://avires.dimi.uniud.it/papers/btad/btad.zip",
        licence=NOT_STATED,
        non_commercial=None,
        citation=(
            "Mishra, Verk, Fornasier, Piciarelli, Foresti: VT-ADL: A Vision Transformer Network for Image Anomaly "
            "Detection and Localization. IEEE International Symposium on Industrial Electronics (ISIE), 2021. "
            "doi:10.1109/ISIE45552.2021.9576231."
        ),
    ),
    Benchmark(
        key="rsdd",
        title="RSDD",
        domain="industrial",
        layout=Layout(
            normal="Metal15/test/{normal}",
            anomalous="Metal15/test/{defect}",
            masks=("Metal15/ground_truth/{kind}/{name}", "Metal15/ground_truth/{name}"),
        ),
        object_names={"rsdd": "metal"},
        num_normal=387,
        num_anomalous=387,
        class_counts={"rsdd": (387, 387)},
        home_page="https://github.com/neu-rail-rsdds/rail_surface_anomaly_detection",
        licence=NOT_STATED,
        non_commercial=None,
        citation=(
            "Gan, Li, Wang, Yu: A Hierarchical Extractor-Based Visual Rail Surface Inspection System. "
            "IEEE Sensors Journal 17(23), 7935-7944, 2017."
        ),
    ),
    Benchmark(
        key="dtd_synthetic",
        title="DTD-Synthetic",
        domain="industrial",
        layout=Layout(
            normal="{class}/test/good",
            anomalous="{class}/test/bad",
            masks=("{class}/ground_truth/bad/{name}_mask",),
        ),
        object_names={
            "Blotchy_099": "Blotchy",
            "Fibrous_183": "Fibrous",
            "Marbled_078": "Marbled",
            "Matted_069": "Matted",
            "Mesh_114": "Mesh",
            "Perforated_037": "Perforated",
            "Stratified_154": "Stratified",
            "Woven_001": "Woven",
            "Woven_068": "Woven",
            "Woven_104": "Woven",
            "Woven_125": "Woven",
            "Woven_127": "Woven",
        },
        num_normal=357,
        num_anomalous=947,
        class_counts={},
        home_page="https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1",
        licence=NOT_STATED,
        non_commercial=None,
        citation=(
            "Aota, Tong, Okatani: Zero-shot versus Many-shot: Unsupervised Texture Anomaly Detection. IEEE/CVF Winter "
            "Conference on Applications of Computer Vision (WACV), 5564-5572, 2023."
        ),
    ),
    Benchmark(
        key="brain_mri",
        title="Brain MRI",
        domain="medical",
        layout=_BMAD_LAYOUT,
        object_names={"brain_mri": "scan"},
        num_normal=640,
        num_anomalous=3075,
        class_counts={"brain_mri": (640, 3075)},
        citation=f"{_BMAD_CITATION} Made from BraTS 2021.",
        **_BMAD,
    ),
    Benchmark(
        key="head_ct",
        title="Head CT",
        domain="medical",
        layout=Layout(normal="test/{normal}", anomalous="test/{defect}"),
        object_names={"head_ct": "scan"},
        num_normal=100,
        num_anomalous=100,
        class_counts={"head_ct": (100, 100)},
        home_page="https://www.kaggle.com/datasets/felipekitamura/head-ct-hemorrhage",
        licence=NOT_STATED,
        non_commercial=None,
        citation="Kitamura: Head CT - hemorrhage. Kaggle, data set felipekitamura/head-ct-hemorrhage.",
    ),
    Benchmark(
        key="liver_ct",
        title="Liver CT",
        domain="medical",
        layout=_BMAD_LAYOUT,
        object_names={"liver_ct": "scan"},
        num_normal=833,
        num_anomalous=660,
        class_counts={"liver_ct": (833, 660)},
        citation=f"{_BMAD_CITATION} Made from BTCV and LiTS.",
        **_BMAD,
    ),
    Benchmark(
        key="retina_oct",
        title="Retina OCT",
        domain="medical",
        layout=_BMAD_LAYOUT,
        object_names={"retina_oct": "scan"},
        num_normal=1041,
        num_anomalous=764,
        class_counts={"retina_oct": (1041, 764)},
        citation=f"{_BMAD_CITATION} Made from RESC.",
        **_BMAD,
    ),
    Benchmark(
        key="colon_db",
        title="ColonDB",
        domain="medical",
        layout=_POLYP_LAYOUT,
        object_names={"colon_db": "colon endoscopy image"},
        num_normal=0,
        num_anomalous=380,
        class_counts={"colon_db": (0, 380)},
        citation=(
            "Tajbakhsh, Gurudu, Liang: Automated Polyp Detection in Colonoscopy Videos Using Shape and Context "
            "Information. IEEE Transactions on Medical Imaging 35(2), 630-644, 2016."
        ),
        **_POLYP,
    ),
    Benchmark(
        key="clinic_db",
        title="ClinicDB",
        domain="medical",
        layout=_POLYP_LAYOUT,
        object_names={"clinic_db": "colon endoscopy image"},
        num_normal=0,
        num_anomalous=612,
        class_counts={"clinic_db": (0, 612)},
        citation=(
            "Bernal, Sánchez, Fernández-Esparrach, Gil, Rodríguez, Vilariño: WM-DOVA Maps for Accurate Polyp "
            "Highlighting in Colonoscopy: Validation vs. Saliency Maps from Physicians. Computerized Medical Imaging "
            "and Graphics 43, 99-111, 2015."
        ),
        **_POLYP,
    ),
    Benchmark(
        key="cvc_300",
        title="CVC-300",
        domain="medical",
        layout=_POLYP_LAYOUT,
        object_names={"cvc_300": "colon endoscopy image"},
        num_normal=0,
        num_anomalous=60,
        class_counts={"cvc_300": (0, 60)},
        citation=(
            "Vázquez, Bernal, Sánchez, Fernández-Esparrach, López, Romero, Drozdzal, Courville: A Benchmark for "
            "Endoluminal Scene Segmentation of Colonoscopy Images. Journal of Healthcare Engineering, 2017."
        ),
        **_POLYP,
    ),
    Benchmark(
        key="endo",
        title="Endo",
        domain="medical",
        layout=Layout(anomalous="test dataset/images", masks=("test dataset/masks/{name}",)),
        object_names={"endo": "polyp"},
        num_normal=0,
        num_anomalous=200,
        class_counts={"endo": (0, 200)},
        home_page="https://drive.google.com/file/d/1LNpLkv5ZlEUzr_RPN5rdOHaqk0SkZa3m/view",
        licence=NOT_STATED,
        non_commercial=None,
        citation=(
            "Hicks, Jha, Thambawita, Halvorsen, Hammer, Riegler: The EndoTect 2020 Challenge: Evaluation and "
            "Comparison of Classification, Segmentation and Inference Time for Endoscopy. ICPR Workshops, 263-274, "
            "2021."
        ),
    ),
    Benchmark(
        key="kvasir",
        title="Kvasir",
        domain="medical",
        layout=_POLYP_LAYOUT,
        object_names={"kvasir": "colon endoscopy image"},
        num_normal=0,
        num_anomalous=1000,
        class_counts={"kvasir": (0, 1000)},
        citation=(
            "Jha, Smedsrud, Riegler, Halvorsen, de Lange, Johansen, Johansen: Kvasir-SEG: A Segmented Polyp Dataset. "
            "MultiMedia Modeling (MMM), 451-462, 2020. arXiv:1911.07069."
        ),
        **_POLYP,
    ),
)

# In the order of the paper's table.
BENCHMARKS = {benchmark.key: benchmark for benchmark in _BENCHMARKS}


def get_benchmark(key: str) -> Benchmark:
    """Finds a benchmark by its key.

    Args:
        key (`str`): One of `BENCHMARKS`.

    Returns:
        `Benchmark`: the entry of the table.

    Raises:
        ValueError: If there is none of this name.
    """
    if key not in BENCHMARKS:
        raise ValueError(f"{key!r} is no benchmark: choose one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[key]


def find_benchmark(data: str | os.PathLike, root: str | os.PathLike | None = None) -> Benchmark | None:
    """Tells whether `--data` and `--root` name a benchmark or own data.

    A benchmark's key with a root folder is the benchmark. Without one it is a file or folder that happens to have the
    name; write `./visa` for such a folder where a root is given.

    Args:
        data (`str` or `os.PathLike`): A benchmark's key, or own data.
        root (`str` or `os.PathLike`, *optional*): The benchmark's folder.

    Returns:
        `Benchmark` or `None`: None for own data.

    Raises:
        ValueError: If a benchmark is meant, but its folder is not given.
    """
    benchmark = BENCHMARKS.get(os.fspath(data))
    if benchmark is None or root is not None:
        return benchmark
    if not os.path.exists(data):
        raise ValueError(f"the benchmark {data!r} needs `root`, the folder where it lies.")
    return None


def find_domain(data: str | os.PathLike, root: str | os.PathLike | None = None) -> str:
    """Tells the domain of what `--data` and `--root` name.

    Args:
        data (`str` or `os.PathLike`): A benchmark's key, or own data.
        root (`str` or `os.PathLike`, *optional*): The benchmark's folder.

    Returns:
        `str`: the benchmark's, `"industrial"` for own data.

    Raises:
        ValueError: If a benchmark is meant, but its folder is not given.
    """
    benchmark = find_benchmark(data, root)
    return "industrial" if benchmark is None else benchmark.domain


def describe_count_differences(benchmark: Benchmark, class_names: Iterable[str], labels: Iterable[int]) -> list[str]:
    """Compares the pictures that were found with those that the benchmark's test set has.

    Args:
        benchmark (`Benchmark`): What is expected.
        class_names (`Iterable[str]`): Each picture's class.
        labels (`Iterable[int]`): Each picture's label, 0 normal, 1 anomalous.

    Returns:
        `list[str]`: one line for each class without any picture, for each class and kind with another number or, where
        the classes' numbers are not known, for each kind; none if all is as expected.
    """
    found = Counter(zip(class_names, labels, strict=True))
    differences = [
        f"{name}: no pictures" for name in benchmark.object_names if not found[name, 0] and not found[name, 1]
    ]
    absent = {line.partition(":")[0] for line in differences}
    for label, (kind, expected) in enumerate(
        (("normal", benchmark.num_normal), ("anomalous", benchmark.num_anomalous))
    ):
        for name, counts in benchmark.class_counts.items():
            if name not in absent and found[name, label] != counts[label]:
                differences.append(f"{name}: {found[name, label]} of {counts[label]} {kind} pictures")
        if not benchmark.class_counts:
            count = sum(found[name, label] for name in benchmark.object_names)
            if count != expected:
                differences.append(f"in all: {count} of {expected} {kind} pictures")
    return differences
