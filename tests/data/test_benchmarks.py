"""The table of the benchmarks says what the paper's lists hold, and one scanner reads every layout."""

import json
import logging
import subprocess
import sys

import PIL.Image
import pytest
from datasets import Image

from moeclip_hf.data import BENCHMARKS, load_anomaly_dataset, load_benchmark
from moeclip_hf.data.benchmarks import describe_count_differences, find_benchmark

from .conftest import write_list, write_mask, write_picture
from .miniatures import CLASSES, list_files, write_miniature


KEYS = (
    "mvtec visa btad rsdd dtd_synthetic brain_mri head_ct liver_ct retina_oct colon_db clinic_db cvc_300 endo kvasir"
).split()
# Test images of the authors' lists, normal and anomalous.
COUNTS = {
    "mvtec": (467, 1258), "visa": (962, 1200), "btad": (451, 290), "rsdd": (387, 387), "dtd_synthetic": (357, 947),
    "brain_mri": (640, 3075), "head_ct": (100, 100), "liver_ct": (833, 660), "retina_oct": (1041, 764),
    "colon_db": (0, 380), "clinic_db": (0, 612), "cvc_300": (0, 60), "endo": (0, 200), "kvasir": (0, 1000),
}  # fmt: skip


def read(dataset, root) -> list[tuple]:
    """Class, picture, label and mask of every row, with paths relative to the root."""
    rows = dataset.cast_column("image", Image(decode=False)).cast_column("mask", Image(decode=False))
    prefix = f"{root}/"
    return [
        (
            row["class_name"],
            row["image"]["path"].removeprefix(prefix),
            row["label"],
            row["mask"] and row["mask"]["path"].removeprefix(prefix),
        )
        for row in rows
    ]


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_papers_benchmarks_in_its_order():
    assert list(BENCHMARKS) == KEYS
    assert all(benchmark.key == key for key, benchmark in BENCHMARKS.items())


@pytest.mark.parametrize("key", KEYS)
def test_counts(key):
    benchmark = BENCHMARKS[key]
    assert (benchmark.num_normal, benchmark.num_anomalous) == COUNTS[key]
    if key != "dtd_synthetic":
        assert set(benchmark.class_counts) == set(benchmark.object_names)
        assert tuple(map(sum, zip(*benchmark.class_counts.values(), strict=True))) == COUNTS[key]


@pytest.mark.parametrize("key", KEYS)
def test_classes(key):
    assert sorted(BENCHMARKS[key].object_names) == CLASSES.get(key, [key])


def test_object_names_word_for_word():
    names = {key: benchmark.object_names for key, benchmark in BENCHMARKS.items()}
    assert names["mvtec"]["capsule"] == "black asd orange capsule"  # [sic]
    assert names["mvtec"]["pill"] == "oval white pill with small red speckles and the letters 'FF' engraved"
    assert names["mvtec"]["transistor"] == "a three-legged transistor placed vertically"
    assert names["visa"]["candle"] == "candle"
    assert names["visa"]["pcb1"] == "dual ultrasonic distance sensor pcb module"
    assert names["btad"]["01"].endswith("resembling a stylized wave or energy field radiating outward.")
    assert names["rsdd"] == {"rsdd": "metal"}
    assert {name.partition("_")[0] == word for name, word in names["dtd_synthetic"].items()} == {True}
    assert {names[key][key] for key in ("brain_mri", "head_ct", "liver_ct", "retina_oct")} == {"scan"}
    assert {names[key][key] for key in ("colon_db", "clinic_db", "cvc_300", "kvasir")} == {"colon endoscopy image"}
    assert names["endo"] == {"endo": "polyp"}


def test_domains_masks_and_licences():
    assert [key for key in KEYS if BENCHMARKS[key].domain == "industrial"] == KEYS[:5]
    assert [key for key in KEYS if not BENCHMARKS[key].has_masks] == ["head_ct"]
    assert {benchmark.mask_threshold for benchmark in BENCHMARKS.values()} == {0}
    known = {key: BENCHMARKS[key].non_commercial for key in KEYS if BENCHMARKS[key].non_commercial is not None}
    assert known == {"mvtec": True, "visa": False, "brain_mri": True, "liver_ct": True, "retina_oct": True}
    for benchmark in BENCHMARKS.values():
        assert benchmark.home_page.startswith("http")
        assert benchmark.licence
        assert benchmark.citation
        assert (benchmark.licence == "not stated") == (benchmark.non_commercial is None)


def test_the_table_needs_no_other_package():
    # As in the console command, where the package does not register its classes with transformers.
    code = (
        "import sys; sys.argv = ['moeclip']\n"
        "from moeclip_hf.data import BENCHMARKS; assert len(BENCHMARKS) == 14\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_every_layout(tmp_path, key):
    root = write_miniature(tmp_path / "it", key)
    dataset = load_benchmark(key, root)
    assert dataset.column_names == ["image", "mask", "label", "class_name", "object_name"]
    assert read(dataset, root) == list_files(key)
    names = BENCHMARKS[key].object_names
    assert list(dataset["object_name"]) == [names[name] for name in dataset["class_name"]]


@pytest.mark.parametrize(
    ("key", "image", "mask"),
    [
        ("rsdd", "Metal15/test/defect/9.bmp", "Metal15/ground_truth/defect/9.png"),
        ("rsdd", "Metal15/test/defect/9.bmp", "Metal15/ground_truth/9.png"),
        ("head_ct", "test/hemorrhage/9.png", None),
    ],
)
def test_other_names_of_the_defects_folder(tmp_path, key, image, mask):
    write_picture(tmp_path / image)
    if mask:
        write_mask(tmp_path / mask)
    assert read(load_benchmark(key, tmp_path), tmp_path) == [(key, image, 1, mask)]


def test_normal_pictures_take_no_mask_of_an_anomalous_one_with_their_name(tmp_path):
    """Normal and anomalous pictures of BTAD have the same numbers, and its masks lie in one folder."""
    root = write_miniature(tmp_path / "btad", "btad")
    dataset = load_benchmark("btad", root)
    masks = {image: mask for _, image, _, mask in read(dataset, root)}
    assert masks["01/test/ok/0001.bmp"] is None
    assert masks["01/test/ko/0001.bmp"] == "01/ground_truth/ko/0001.png"


def test_test_split_of_visa_is_its_lists(tmp_path):
    root = write_miniature(tmp_path / "visa", "visa")
    write_picture(root / "candle" / "Data" / "Images" / "Anomaly" / "099.JPG")  # not in the list
    assert read(load_benchmark("visa", root), root) == list_files("visa")


def test_results_of_textures_are_per_folder(tmp_path):
    root = write_miniature(tmp_path / "dtd", "dtd_synthetic")
    dataset = load_benchmark("dtd_synthetic", root)
    names = dict(zip(dataset["class_name"], dataset["object_name"], strict=True))
    assert names["Woven_001"] == names["Woven_068"] == "Woven"
    assert len(names) == 12


def test_a_key_with_its_root_is_own_data_too(tmp_path):
    root = write_miniature(tmp_path / "endo", "endo")
    assert set(load_anomaly_dataset("endo", root=root)["object_name"]) == {"polyp"}
    with pytest.raises(ValueError, match="`split` 'train': of a benchmark only the test split is read"):
        load_anomaly_dataset("endo", root=root, split="train")
    with pytest.raises(ValueError, match="`columns` and `object_name` belong to own data: Endo has names for both"):
        load_anomaly_dataset("endo", root=root, object_name="colon")


def test_which_names_mean_a_benchmark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_benchmark("visa", "somewhere") is BENCHMARKS["visa"]
    assert find_benchmark("my_data", "somewhere") is None
    with pytest.raises(ValueError, match="the benchmark 'visa' needs `root`"):
        find_benchmark("visa")
    (tmp_path / "visa").mkdir()
    assert find_benchmark("visa") is None
    assert find_benchmark(tmp_path / "visa") is None


# --- lists --------------------------------------------------------------------------------------------------------


def as_entries(key: str, class_name=None) -> list[dict]:
    return [
        {"image_path": image, "label": label, "class_name": class_name or name} | ({"mask_path": mask} if mask else {})
        for name, image, label, mask in list_files(key)
    ]


@pytest.mark.parametrize("key", ["mvtec", "visa", "btad", "brain_mri", "endo"])
def test_lists_in_the_form_of_the_authors(tmp_path, key):
    root = write_miniature(tmp_path / "it", key)
    list_file = write_list(tmp_path / "list.jsonl", as_entries(key))
    dataset = load_benchmark(key, root, list_file=list_file)
    assert read(dataset, root) == list_files(key)
    names = BENCHMARKS[key].object_names
    assert list(dataset["object_name"]) == [names[name] for name in dataset["class_name"]]


@pytest.mark.parametrize(("key", "class_name"), [("rsdd", "Metal15"), ("liver_ct", "Liver"), ("kvasir", "")])
def test_other_names_of_the_only_class(tmp_path, key, class_name):
    root = write_miniature(tmp_path / "it", key)
    entries = [entry | {"class_name": class_name} for entry in as_entries(key)]
    dataset = load_benchmark(key, root, list_file=write_list(tmp_path / "list.jsonl", entries))
    assert set(dataset["class_name"]) == {key}
    assert set(dataset["object_name"]) == set(BENCHMARKS[key].object_names.values())


def test_list_that_names_textures_by_their_word(tmp_path):
    root = write_miniature(tmp_path / "it", "dtd_synthetic")
    entries = [entry | {"class_name": entry["class_name"].partition("_")[0]} for entry in as_entries("dtd_synthetic")]
    dataset = load_benchmark("dtd_synthetic", root, list_file=write_list(tmp_path / "list.jsonl", entries))
    assert read(dataset, root) == list_files("dtd_synthetic")


def test_list_with_a_class_that_is_none(tmp_path):
    root = write_miniature(tmp_path / "it", "btad")
    write_picture(root / "a.png")
    list_file = write_list(tmp_path / "l.jsonl", [{"image_path": "a.png", "label": 0, "class_name": "04"}])
    with pytest.raises(ValueError, match=r"l.jsonl: '04' is no class of BTAD \(01, 02, 03\)"):
        load_benchmark("btad", root, list_file=list_file)


def test_list_in_the_root_serves_where_the_folders_do_not(tmp_path, caplog):
    write_picture(tmp_path / "scans" / "1.png")
    entry = {"image_path": "scans/1.png", "label": 0, "class_name": "Brain"}
    write_list(tmp_path / "brain.jsonl", [entry])
    assert read(load_benchmark("brain_mri", tmp_path), tmp_path) == [("brain_mri", "scans/1.png", 0, None)]
    root = write_miniature(tmp_path / "it", "brain_mri")
    write_picture(root / "scans" / "1.png")
    write_list(root / "brain.jsonl", [entry])
    with caplog.at_level(logging.WARNING):
        assert len(load_benchmark("brain_mri", root)) == 3
    assert "the list brain.jsonl is not read" in caplog.text


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "linked/a.png"])
def test_no_list_leaves_the_root(tmp_path, path):
    root = write_miniature(tmp_path / "it", "endo")
    write_picture(tmp_path / "a.png")
    (root / "linked").symlink_to(tmp_path)
    list_file = write_list(tmp_path / "l.jsonl", [{"image_path": path, "label": 0, "class_name": "endo"}])
    with pytest.raises(ValueError, match="l.jsonl, line 1: .*(leads out of the root|is an absolute path)"):
        load_benchmark("endo", root, list_file=list_file)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_wrong_root_says_what_was_looked_for(tmp_path):
    write_picture(tmp_path / "empty" / "a" / "0.png")
    with pytest.raises(
        ValueError,
        match="`root` .*empty. has no pictures of MVTec-AD: looked for bottle/test/good or bottle/test/<defect> in it",
    ):
        load_benchmark("mvtec", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="`root` '.*nowhere' is not a folder: give the one where VisA lies"):
        load_benchmark("visa", tmp_path / "nowhere")


def test_root_one_folder_too_high_is_named(tmp_path):
    write_miniature(tmp_path / "data" / "mvtec_anomaly_detection", "mvtec")
    with pytest.raises(ValueError, match="'.*data/mvtec_anomaly_detection' has them: give that one"):
        load_benchmark("mvtec", tmp_path / "data")


def test_unknown_benchmark_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'mvtec3d' is no benchmark: choose one of mvtec, visa, btad"):
        load_benchmark("mvtec3d", tmp_path)


def test_missing_or_foreign_split_list_is_an_error(tmp_path):
    root = write_miniature(tmp_path / "visa", "visa")
    split = root / "split_csv" / "1cls.csv"
    split.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"1cls.csv: columns \['image', 'split'\] are missing"):
        load_benchmark("visa", root)
    split.unlink()
    with pytest.raises(FileNotFoundError, match="has no split_csv/1cls.csv, which names the test pictures"):
        load_benchmark("visa", root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("candle,test,normal,../a.JPG,", "1cls.csv, line 2: '../a.JPG' leads out of the root folder"),
        ("candle,test,normal,/a.JPG,", "1cls.csv, line 2: '/a.JPG' is an absolute path"),
    ],
)
def test_split_list_does_not_leave_the_root(tmp_path, line, message):
    root = write_miniature(tmp_path / "visa", "visa")
    (root / "split_csv" / "1cls.csv").write_text(f"object,split,label,image,mask\n{line}\n")
    with pytest.raises(ValueError, match=message):
        load_benchmark("visa", root)


def test_duplicate_in_the_split_list_names_both_lines(tmp_path):
    root = write_miniature(tmp_path / "visa", "visa")
    line = "candle,test,normal,candle/Data/Images/Normal/0000.JPG,"
    (root / "split_csv" / "1cls.csv").write_text(f"object,split,label,image,mask\n{line}\n{line}\n")
    with pytest.raises(ValueError, match="1cls.csv, line 3: '.*0000.JPG' stands in line 2 already"):
        load_benchmark("visa", root)


def test_linked_pictures_out_of_the_root_are_refused(tmp_path):
    root = write_miniature(tmp_path / "kvasir", "kvasir")
    (root / "images" / "99.png").symlink_to(write_picture(tmp_path / "99.png"))
    with pytest.raises(ValueError, match="'images/99.png' leads out of the root folder"):
        load_benchmark("kvasir", root)


def test_half_extracted_archive_is_said(tmp_path, caplog):
    root = write_miniature(tmp_path / "btad", "btad")
    with caplog.at_level(logging.WARNING):
        load_benchmark("btad", root)
    assert "not the whole of BTAD: 01: 1 of 21 normal pictures; 02: 1 of 30 normal pictures; 03:" in caplog.text
    assert f"`moeclip data check btad {root}` names the files" in caplog.text


def test_differences_of_counts():
    whole = BENCHMARKS["btad"]
    names = [name for name, counts in whole.class_counts.items() for _ in range(sum(counts))]
    labels = [label for counts in whole.class_counts.values() for label in [0] * counts[0] + [1] * counts[1]]
    assert describe_count_differences(whole, names, labels) == []
    assert describe_count_differences(whole, names[1:], labels[1:]) == ["01: 20 of 21 normal pictures"]
    textures = BENCHMARKS["dtd_synthetic"]
    names = [*textures.object_names, *["Woven_001"] * (1304 - 12)]
    assert describe_count_differences(textures, names, [0] * 357 + [1] * 947) == []
    assert describe_count_differences(textures, names[1:357], [0] * 356) == [
        "Blotchy_099: no pictures",
        "in all: 356 of 357 normal pictures",
        "in all: 0 of 947 anomalous pictures",
    ]


def test_unreadable_pictures_are_left_out_and_named(tmp_path, caplog):
    root = write_miniature(tmp_path / "colon", "colon_db")
    write_picture(root / "images" / "2.png")
    write_mask(root / "masks" / "2.png", height=9)
    broken = root / "images" / "10.png"
    PIL.Image.effect_noise((120, 100), 50).save(broken)
    PIL.Image.effect_noise((120, 100), 50).save(root / "masks" / "10.png")
    broken.write_bytes(broken.read_bytes()[:3000])  # the header is sound
    with caplog.at_level(logging.WARNING):
        dataset = load_benchmark("colon_db", root, strict=False)
    assert [image for _, image, _, _ in read(dataset, root)] == ["images/1.png"]
    assert "2 of 3 pictures cannot be read and are left out" in caplog.text
    assert f"{broken}: " in caplog.text
    assert "masks/2.png: a mask of 9 x 12 pixels" in caplog.text
    with pytest.raises(ValueError, match=r"images/10.png: .*truncated"):
        load_benchmark("colon_db", root)
    broken.unlink()
    with pytest.raises(ValueError, match=r"masks/2.png: a mask of 9 x 12 pixels"):
        load_benchmark("colon_db", root)


def test_benchmark_without_a_readable_picture_is_an_error(tmp_path):
    root = write_miniature(tmp_path / "endo", "endo")
    (root / "test dataset" / "images" / "5c24-b3.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 pictures can be read"):
        load_benchmark("endo", root, strict=False)


def test_missing_masks_are_said(tmp_path, caplog):
    root = write_miniature(tmp_path / "endo", "endo")
    (root / "test dataset" / "masks" / "5c24-b3.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        load_benchmark("endo", root)
    assert "1 of 1 anomalous pictures have no mask" in caplog.text


def test_entries_of_the_table_are_plain_data():
    """So that a record of a run can hold them."""
    assert json.dumps({key: benchmark.object_names for key, benchmark in BENCHMARKS.items()})
