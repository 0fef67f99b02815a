"""Every benchmark in miniature on disk, in the layout in which it is handed out.

The paths are written out here, apart from the package's own table of layouts, which they test.
"""

from pathlib import Path

from .conftest import write_mask, write_picture


# Of each benchmark the pictures of one class: path, label, path of the mask or None.
FILES = {
    "mvtec": [
        ("{}/test/good/000.png", 0, None),
        ("{}/test/bent/000.png", 1, "{}/ground_truth/bent/000_mask.png"),
        ("{}/test/bent/001.png", 1, "{}/ground_truth/bent/001_mask.png"),
        ("{}/test/broken_large/000.png", 1, "{}/ground_truth/broken_large/000_mask.png"),
    ],
    "visa": [
        ("{}/Data/Images/Normal/0000.JPG", 0, None),
        ("{}/Data/Images/Normal/0003.JPG", 0, None),
        ("{}/Data/Images/Anomaly/000.JPG", 1, "{}/Data/Masks/Anomaly/000.png"),
    ],
    "btad": [
        ("{}/test/ok/0001.bmp", 0, None),
        ("{}/test/ko/0000.bmp", 1, "{}/ground_truth/ko/0000.bmp"),
        ("{}/test/ko/0001.bmp", 1, "{}/ground_truth/ko/0001.png"),
    ],
    "rsdd": [
        ("Metal15/test/good/RSDD_I-1_2.bmp", 0, None),
        ("Metal15/test/anomaly/RSDD_I-4_1.bmp", 1, "Metal15/ground_truth/anomaly/RSDD_I-4_1.png"),
    ],
    "dtd_synthetic": [
        ("{}/test/good/000.png", 0, None),
        ("{}/test/bad/000.png", 1, "{}/ground_truth/bad/000_mask.png"),
        ("{}/test/bad/001.png", 1, "{}/ground_truth/bad/001_mask.png"),
    ],
    "brain_mri": [
        ("test/good/img/00000_96.png", 0, None),
        ("test/good/img/00002_60.png", 0, None),
        ("test/Ungood/img/00002_60.png", 1, "test/Ungood/label/00002_60.png"),
    ],
    "head_ct": [
        ("test/good/100.png", 0, None),
        ("test/defect/000.png", 1, None),
        ("test/defect/001.png", 1, None),
    ],
    "colon_db": [
        ("images/1.png", 1, "masks/1.png"),
        ("images/10.png", 1, "masks/10.png"),
    ],
    "endo": [
        ("test dataset/images/5c24-b3.jpg", 1, "test dataset/masks/5c24-b3.jpg"),
    ],
}  # fmt: skip
FILES |= {key: FILES["brain_mri"] for key in ("liver_ct", "retina_oct")}
FILES |= {key: FILES["colon_db"] for key in ("clinic_db", "cvc_300", "kvasir")}

CLASSES = {
    "mvtec": (
        "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper"
    ).split(),
    "visa": (
        "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"
    ).split(),
    "btad": ["01", "02", "03"],
    "dtd_synthetic": (
        "Blotchy_099 Fibrous_183 Marbled_078 Matted_069 Mesh_114 Perforated_037 Stratified_154 Woven_001 Woven_068 "
        "Woven_104 Woven_125 Woven_127"
    ).split(),
}  # fmt: skip


def list_files(key: str) -> list[tuple[str, str, int, str | None]]:
    """Class, picture, label and mask of every picture of a miniature, in the order of the pictures' paths."""
    files = [
        (name, image.format(name), label, mask and mask.format(name))
        for name in CLASSES.get(key, [key])
        for image, label, mask in FILES[key]
    ]
    return sorted(files, key=lambda file: Path(file[1]))


def write_miniature(root: Path, key: str) -> Path:
    """Writes a benchmark in miniature, with training pictures and other files that do not belong to the test set."""
    for _, image, _, mask in list_files(key):
        write_picture(root / image)
        if mask is not None:
            write_mask(root / mask)
    if key in ("mvtec", "btad", "dtd_synthetic"):
        for name in CLASSES[key]:
            write_picture(root / name / "train" / "good" / "900.png")
    if key == "visa":
        lines = ["object,split,label,image,mask"]
        for name, image, label, mask in list_files(key):
            lines.append(f"{name},test,{'anomaly' if label else 'normal'},{image},{mask or ''}")
        for name in CLASSES[key]:
            training = f"{name}/Data/Images/Normal/0777.JPG"
            write_picture(root / training)
            lines.insert(1, f"{name},train,normal,{training},")
        (root / "split_csv").mkdir()
        (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    if key in ("brain_mri", "liver_ct", "retina_oct"):
        write_picture(root / "valid" / "Ungood" / "img" / "00124_60.png")
        write_mask(root / "valid" / "Ungood" / "label" / "00124_60.png")
    return root
