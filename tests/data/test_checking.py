"""The check of a data set: what is found against what there should be, file by file where it differs."""

import PIL.Image
import pytest

from moeclip_hf.data import BENCHMARKS, load_anomaly_dataset
from moeclip_hf.data.checking import check_data, format_report

from .conftest import write_class, write_list, write_mask, write_picture
from .miniatures import list_files, write_miniature


def check(*arguments, **options):
    return check_data(*arguments, progress=False, **options)


@pytest.fixture
def whole_cvc_300(tmp_path):
    """All 60 pictures and masks of the smallest benchmark, small."""
    for number in range(1, 61):
        write_picture(tmp_path / "cvc" / "images" / f"{number}.png")
        write_mask(tmp_path / "cvc" / "masks" / f"{number}.png")
    return tmp_path / "cvc"


def test_whole_benchmark_is_as_expected(whole_cvc_300):
    report = check("cvc_300", whole_cvc_300)
    assert report.differences == []
    assert report.counts == report.expected == {"cvc_300": (0, 60)}
    assert format_report(report).splitlines() == [
        f"CVC-300 in {whole_cvc_300}",
        "class    normal  anomalous",
        "cvc_300  0 of 0   60 of 60",
        "Note: pictures of one kind only: the image metrics are undefined.",
        "All is as expected.",
    ]


def test_every_kind_of_difference_is_named(whole_cvc_300):
    images, masks = whole_cvc_300 / "images", whole_cvc_300 / "masks"
    (images / "1.png").unlink()
    (masks / "2.png").unlink()
    write_mask(masks / "3.png", height=9)
    (images / "4.png").write_bytes(b"none")
    (masks / "5.png").write_bytes(b"none")
    for path in (images / "6.png", masks / "6.png"):
        PIL.Image.effect_noise((120, 100), 50).save(path)
    (images / "6.png").write_bytes((images / "6.png").read_bytes()[:3000])
    report = check("cvc_300", whole_cvc_300)
    assert sorted(report.differences) == [
        f"{images}/2.png: has no mask.",
        f"{images}/4.png: not a picture that Pillow can read; replace it or take it out.",
        f"{images}/6.png: image file is truncated",
        f"{masks}/1.png: fits no picture.",
        f"{masks}/3.png: a mask of 9 x 12 pixels (height x width) does not fit its image of 10 x 12: give the mask the"
        " image's size.",
        f"{masks}/5.png: not a picture that Pillow can read; replace it or take it out.",
        "cvc_300: 59 of 60 anomalous pictures.",
    ]
    text = format_report(report)
    assert "7 differences:" in text
    assert all(f"\n  {line}" in text for line in report.differences)


def test_strict_stops_at_the_first_unreadable_one(whole_cvc_300):
    (whole_cvc_300 / "images" / "4.png").write_bytes(b"none")
    (whole_cvc_300 / "images" / "7.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="images/4.png: not a picture that Pillow can read"):
        check("cvc_300", whole_cvc_300, strict=True)


def test_classes_without_pictures_are_in_the_table(tmp_path):
    root = write_miniature(tmp_path / "btad", "btad")
    for _, image, _, mask in list_files("btad"):
        if image.startswith("02/"):
            (root / image).unlink()
            if mask:
                (root / mask).unlink()
    report = check("btad", root)
    assert "02: no pictures." in report.differences
    assert format_report(report).splitlines()[1:6] == [
        "class     normal  anomalous",
        "01       1 of 21    2 of 49",
        "02       0 of 30   0 of 200",
        "03      1 of 400    2 of 41",
        "in all  2 of 451   4 of 290",
    ]


def test_pictures_missing_from_the_test_split_are_named(tmp_path):
    root = write_miniature(tmp_path / "visa", "visa")
    (root / "candle" / "Data" / "Images" / "Normal" / "0003.JPG").unlink()
    found = [line for line in check("visa", root).differences if "there is no file" in line]
    assert len(found) == 1
    assert found[0].startswith(f"{root}/split_csv/1cls.csv, line ")
    assert found[0].endswith("candle/Data/Images/Normal/0003.JPG'.")


def test_benchmark_without_masks_needs_none(tmp_path):
    report = check("head_ct", write_miniature(tmp_path / "head", "head_ct"))
    assert report.differences == ["head_ct: 1 of 100 normal pictures.", "head_ct: 2 of 100 anomalous pictures."]
    assert any(note.startswith("Note: no masks") for note in report.notes)


@pytest.mark.parametrize("key", BENCHMARKS)
def test_miniatures_differ_in_their_numbers_only(tmp_path, key):
    report = check(key, write_miniature(tmp_path / "it", key))
    assert report.differences
    assert all(line.endswith((" normal pictures.", " anomalous pictures.")) for line in report.differences)


def test_list_of_a_benchmark_names_every_missing_file(tmp_path):
    root = write_miniature(tmp_path / "it", "endo")
    entries = [{"image_path": f"{n}.png", "label": 1, "class_name": "endo"} for n in range(3)]
    write_picture(root / "1.png")
    list_file = write_list(tmp_path / "l.jsonl", entries)
    report = check("endo", root, list_file=list_file)
    assert [line.partition(":")[0] for line in report.differences[:2]] == [
        f"{list_file}, line 1",
        f"{list_file}, line 3",
    ]
    with pytest.raises(FileNotFoundError, match="line 1: there is no file '0.png'"):
        check("endo", root, list_file=list_file, strict=True)


# --- own data -----------------------------------------------------------------------------------------------------


def test_own_data_have_masks_for_all_or_for_none(tmp_path):
    folder = write_class(tmp_path / "nut", num_normal=1, num_anomalous=3)
    assert check(folder).differences == []
    masks = sorted((folder / "ground_truth" / "dent").iterdir())
    masks[0].unlink()
    assert check(folder).differences == [f"{folder}/test/dent/000.png: has no mask."]
    for mask in masks[1:]:
        mask.unlink()
    report = check(folder)
    assert report.differences == []
    assert report.counts == {"nut": (1, 3)}
    assert any(note.startswith("Note: no masks") for note in report.notes)


def test_notes(tmp_path):
    folder = write_class(tmp_path / "nut")
    write_mask(folder / "ground_truth" / "dent" / "000_mask.png", marked=False)
    (folder / "ground_truth" / "dent" / "001_mask.png").unlink()
    write_mask(folder / "ground_truth" / "dent" / "001_mask.jpg")
    write_mask(folder / "ground_truth" / "good" / "000.png")
    report = check(folder)
    assert report.differences == []
    assert report.notes == [
        "Note: 1 of 2 anomalous pictures have an empty mask.",
        "Note: 1 of 2 normal pictures have a mask that marks pixels, which count as normal.",
        "Note: 1 of 2 masks are JPEG files with soft edges: --mask-threshold 127 takes them as they were drawn.",
    ]


def test_own_list_and_saved_data_set(tmp_path):
    folder = write_class(tmp_path / "nut")
    list_file = write_list(
        tmp_path / "half.jsonl",
        [{"image_path": "test/dent/000.png", "label": 1}, {"image_path": "test/dent/009.png", "label": 1}],
    )
    report = check(list_file, folder)
    assert report.counts == {"object": (0, 1)}
    assert len(report.differences) == 1
    assert "half.jsonl, line 2: there is no file 'test/dent/009.png'" in report.differences[0]
    load_anomaly_dataset(folder).save_to_disk(tmp_path / "saved")
    assert check(tmp_path / "saved").counts == {"nut": (2, 2)}
    assert check(tmp_path / "saved").differences == []


def test_folder_without_pictures_is_not_as_expected(tmp_path):
    (tmp_path / "nut" / "test" / "good").mkdir(parents=True)
    report = check(tmp_path)
    assert report.differences == [f"{tmp_path}: has no pictures."]
    assert "class  normal  anomalous" in format_report(report)


def test_options_that_do_not_belong_together(tmp_path):
    root = write_miniature(tmp_path / "endo", "endo")
    with pytest.raises(ValueError, match="`list_file` belongs to benchmarks: give the list itself in place of"):
        check(root, list_file=root / "l.jsonl")
    with pytest.raises(ValueError, match="only the test split is read"):
        check("endo", root, split="train")
    with pytest.raises(ValueError, match="`columns` belong to data sets of the package `datasets`"):
        check(write_class(tmp_path / "nut"), columns={"image": "photo"})
