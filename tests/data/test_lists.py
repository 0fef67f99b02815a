"""Lists of pictures as JSON lines, and the folder that their paths may not leave."""

import logging

import pytest

from moeclip_hf.data import load_anomaly_dataset

from .conftest import write_list, write_mask, write_picture


@pytest.fixture
def pictures(tmp_path):
    """A root folder with pictures, and a picture outside of it."""
    write_picture(tmp_path / "root" / "a" / "0.png")
    write_picture(tmp_path / "root" / "a" / "1.png")
    write_mask(tmp_path / "root" / "masks" / "1.png")
    write_picture(tmp_path / "outside.png")
    return tmp_path / "root"


def entry(image_path="a/0.png", label=0, **more) -> dict:
    return {"image_path": image_path, "label": label, "class_name": "metal_nut", **more}


def test_list_in_the_form_of_the_benchmarks(pictures):
    entries = [entry(), entry("a/1.png", 1, mask_path="masks/1.png")]
    dataset = load_anomaly_dataset(write_list(pictures / "test.jsonl", entries))
    assert list(dataset["label"]) == [0, 1]
    assert list(dataset["class_name"]) == ["metal_nut", "metal_nut"]
    assert list(dataset["object_name"]) == ["metal nut", "metal nut"]
    assert [row["mask"] is not None for row in dataset] == [False, True]


@pytest.mark.parametrize(
    ("names", "class_name", "object_name"),
    [
        ({}, "object", "object"),
        ({"class_name": ""}, "object", "object"),
        ({"class_name": None}, "object", "object"),
        ({"class_name": "01"}, "01", "01"),
        ({"class_name": "pipe_fryum"}, "pipe_fryum", "pipe fryum"),
        ({"class_name": "pcb3", "object_name": "infrared sensor pcb module"}, "pcb3", "infrared sensor pcb module"),
        ({"class_name": "pcb3", "object_name": ""}, "pcb3", "pcb3"),
        ({"object_name": "scan"}, "object", "scan"),
    ],
)
def test_names_of_classes_and_objects(pictures, names, class_name, object_name):
    dataset = load_anomaly_dataset(write_list(pictures / "l.jsonl", [{"image_path": "a/0.png", "label": 0, **names}]))
    assert (dataset[0]["class_name"], dataset[0]["object_name"]) == (class_name, object_name)


@pytest.mark.parametrize("mask", [{}, {"mask_path": None}, {"mask_path": ""}])
def test_ways_to_have_no_mask(pictures, mask):
    assert load_anomaly_dataset(write_list(pictures / "l.jsonl", [entry(**mask)]))[0]["mask"] is None


@pytest.mark.parametrize("label", [True, 1.0, 1])
def test_ways_to_write_a_label(pictures, label):
    assert load_anomaly_dataset(write_list(pictures / "l.jsonl", [entry(label=label)]))[0]["label"] == 1


def test_folder_with_one_list(pictures):
    write_list(pictures / "all.jsonl", [entry()])
    assert len(load_anomaly_dataset(pictures)) == 1
    write_list(pictures / "some.jsonl", [entry()])
    with pytest.raises(ValueError, match=r"has 2 lists \(\*.jsonl\): name the one to read"):
        load_anomaly_dataset(pictures)


def test_root_of_a_list_written_elsewhere(pictures, tmp_path):
    (tmp_path / "lists").mkdir()
    list_file = write_list(tmp_path / "lists" / "half.jsonl", [entry()])
    assert len(load_anomaly_dataset(list_file, root=pictures)) == 1
    assert len(load_anomaly_dataset(tmp_path / "lists", root=pictures)) == 1
    with pytest.raises(FileNotFoundError, match=r"half.jsonl, line 1: there is no file 'a/0.png' in the root folder"):
        load_anomaly_dataset(list_file)
    with pytest.raises(FileNotFoundError, match="`root` '.*nowhere' is not a folder"):
        load_anomaly_dataset(list_file, root=tmp_path / "nowhere")


def test_layout_comes_before_a_list_beside_it(mvtec, caplog):
    write_list(mvtec / "test.jsonl", [entry("bottle/test/good/000.png")])
    with caplog.at_level(logging.WARNING):
        assert len(load_anomaly_dataset(mvtec)) == 8
    assert "is read as a folder in MVTec layout; test.jsonl is not read" in caplog.text


@pytest.mark.parametrize("key", ["image_path", "mask_path"])
@pytest.mark.parametrize("path", ["../outside.png", "a/../../outside.png", "link.png", "linked/outside.png"])
def test_no_path_leaves_the_root(pictures, key, path):
    (pictures / "link.png").symlink_to(pictures.parent / "outside.png")
    (pictures / "linked").symlink_to(pictures.parent)
    list_file = write_list(
        pictures / "l.jsonl",
        [entry(), entry(label=1, **{key: path})] if key == "mask_path" else [entry(), entry(path)],
    )
    with pytest.raises(ValueError, match=r"l.jsonl, line 2: '.*' leads out of the root folder '.*root'"):
        load_anomaly_dataset(list_file)


def test_absolute_paths_are_errors(pictures):
    list_file = write_list(pictures / "l.jsonl", [entry(str(pictures / "a" / "0.png"))])
    with pytest.raises(ValueError, match="line 1: '.*0.png' is an absolute path: write it relative to the root"):
        load_anomaly_dataset(list_file)


def test_links_and_dots_within_the_root_are_fine(pictures):
    (pictures / "link.png").symlink_to(pictures / "a" / "0.png")
    assert len(load_anomaly_dataset(write_list(pictures / "l.jsonl", [entry("link.png"), entry("a/../a/1.png")]))) == 2


def test_empty_lines_and_byte_order_mark_are_passed_over(pictures):
    (pictures / "l.jsonl").write_text('\ufeff{"image_path": "a/0.png", "label": 0}\n\n  \n', encoding="utf-8")
    assert len(load_anomaly_dataset(pictures / "l.jsonl")) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'image_path': 'a/0.png'}", "line 1: not JSON"),
        ("[1]", "line 1: not a JSON object: write"),
        ('{"label": 0}', "line 1: `image_path` is missing"),
        ('{"image_path": "a/0.png"}', r"line 1: `label` is missing: write 0 \(normal\) or 1"),
        ('{"image_path": "a/0.png", "label": 2}', r"line 1: `label` must be 0 \(normal\) or 1 \(anomalous\), got 2"),
        ('{"image_path": "a/0.png", "label": "1"}', "line 1: `label` must be .* got '1'"),
        ('{"image_path": "a/0.png", "label": null}', "line 1: `label` must be .* got None"),
        ('{"image_path": 3, "label": 0}', "line 1: `image_path` must be a text, got 3"),
        ('{"image_path": "a/0.png", "label": 0, "mask_path": NaN}', "line 1: `mask_path` must be a text, got nan"),
        ('{"image_path": "a", "label": 0}', "line 1: there is no file 'a'"),
    ],
)
def test_malformed_lines_are_named(pictures, line, message):
    (pictures / "l.jsonl").write_text(line)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_anomaly_dataset(pictures / "l.jsonl")
    assert "\n" not in str(error.value)


def test_empty_and_binary_lists_are_errors(pictures):
    (pictures / "l.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no pictures"):
        load_anomaly_dataset(pictures / "l.jsonl")
    with pytest.raises(ValueError, match="0.png: not a list in UTF-8"):
        load_anomaly_dataset(pictures / "a" / "0.png")


def test_keys_that_are_not_read_are_said(pictures, caplog):
    with caplog.at_level(logging.WARNING):
        load_anomaly_dataset(write_list(pictures / "l.jsonl", [entry(mask="masks/1.png")]))
    assert "keys ['mask'] are not read" in caplog.text


def test_split_belongs_to_folders(pictures):
    with pytest.raises(ValueError, match="`split` 'train' belongs to folders in MVTec layout"):
        load_anomaly_dataset(write_list(pictures / "l.jsonl", [entry()]), split="train")


# --- CSV, duplicates, missing files ---------------------------------------------------------------------------------


def read(dataset) -> list[tuple]:
    return [(row["label"], row["class_name"], row["object_name"], row["mask"] is not None) for row in dataset]


def test_csv_is_read_as_json_lines_are(pictures):
    entries = [entry(), entry("a/1.png", 1, mask_path="masks/1.png", object_name='nut, "hex"')]
    expected = read(load_anomaly_dataset(write_list(pictures / "l.jsonl", entries)))
    (pictures / "l.jsonl").unlink()
    (pictures / "l.csv").write_text(
        "\ufeffmask_path,label,image_path,class_name,object_name\r\n"
        ",0,a/0.png,metal_nut,\r\n\r\n"
        'masks/1.png,1,a/1.png,metal_nut,"nut, ""hex"""\r\n',
        encoding="utf-8",
    )
    assert read(load_anomaly_dataset(pictures / "l.csv")) == expected
    assert read(load_anomaly_dataset(pictures)) == expected
    assert expected[1] == (1, "metal_nut", 'nut, "hex"', True)


def test_csv_without_classes_and_with_labels_as_tables_write_them(pictures):
    (pictures / "l.csv").write_text("image_path,label\na/0.png,0.0\na/1.png, 1\n")
    assert read(load_anomaly_dataset(pictures / "l.csv")) == [
        (0, "object", "object", False),
        (1, "object", "object", False),
    ]


def test_csv_with_the_row_numbers_of_a_table(pictures):
    """As pandas writes it: a first column without a name."""
    (pictures / "l.csv").write_text(",image_path,label\n0,a/0.png,0\n1,a/1.png,1\n")
    assert list(load_anomaly_dataset(pictures / "l.csv")["label"]) == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_path;label\na/0.png;0\n", "l.csv, line 1: no column image_path and label: name the columns there"),
        ("image_path\na/0.png\n", "l.csv, line 1: no column label"),
        ("", "l.csv, line 1: no column image_path and label"),
        (
            "image_path,label\na/0.png,0,x\n",
            "l.csv, line 2: not as many values as columns: put a text with a comma in it in quotes",
        ),
        ("image_path,label\na/0.png\n", "l.csv, line 2: not as many values"),
        ("image_path,label\na/0.png,good\n", r"l.csv, line 2: `label` must be 0 \(normal\) or 1 .*got 'good'"),
        ("image_path,label\n,0\n", "l.csv, line 2: `image_path` is missing"),
        ('image_path,label\n"a/0.png,0\n', "l.csv, line 2: not CSV"),
        ('"image_path,label\n', "l.csv, line 1: not CSV"),
        ("image_path,label\n../outside.png,0\n", "l.csv, line 2: '../outside.png' leads out of the root"),
        ("image_path,label\nlink.png,0\n", "l.csv, line 2: 'link.png' leads out of the root"),
        ("image_path,label,mask_path\na/0.png,1,/etc/m.png\n", "l.csv, line 2: '/etc/m.png' is an absolute path"),
        ("image_path,label\na/0.png,0\na/9.png,0\n", "l.csv, line 3: there is no file 'a/9.png'"),
    ],
)
def test_malformed_csv_is_named(pictures, text, message):
    (pictures / "link.png").symlink_to(pictures.parent / "outside.png")
    (pictures / "l.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_anomaly_dataset(pictures / "l.csv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("again", ["a/0.png", "a/../a/0.png", "link.png"])
def test_pictures_that_are_listed_twice_name_both_lines(pictures, again):
    (pictures / "link.png").symlink_to(pictures / "a" / "0.png")
    entries = [entry(), entry("a/1.png"), entry(again, 1)]
    with pytest.raises(ValueError, match=f"l.jsonl, line 3: '{again}' is listed in line 1 already: keep one"):
        load_anomaly_dataset(write_list(pictures / "l.jsonl", entries))


def test_duplicates_in_csv_name_both_lines(pictures):
    (pictures / "l.csv").write_text("image_path,label\na/0.png,0\n\na/0.png,0\n")
    with pytest.raises(ValueError, match="l.csv, line 4: 'a/0.png' is listed in line 2 already"):
        load_anomaly_dataset(pictures / "l.csv")


def test_missing_files_are_left_out_if_asked(pictures, caplog):
    entries = [entry(), entry("a/9.png"), entry("a/1.png", 1, mask_path="masks/9.png")]
    with caplog.at_level(logging.WARNING):
        dataset = load_anomaly_dataset(write_list(pictures / "l.jsonl", entries), strict=False)
    assert len(dataset) == 1
    assert "l.jsonl, line 2: there is no file 'a/9.png'" in caplog.text
    assert "l.jsonl, line 3: there is no file 'masks/9.png'" in caplog.text


def test_path_out_of_the_root_is_refused_whether_strict_or_not(pictures):
    list_file = write_list(pictures / "l.jsonl", [entry("../outside.png")])
    with pytest.raises(ValueError, match="leads out of the root"):
        load_anomaly_dataset(list_file, strict=False)
