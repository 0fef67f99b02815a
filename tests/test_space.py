"""The Space of `examples/space`: its functions, its files, and the page itself in a browser."""

import contextlib
import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from core_environment import declared
from packaging.requirements import Requirement
from PIL import Image
from transformers import pipeline

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPProcessor
from moeclip_hf.demo import DEMO_CLIP, DEMO_MODEL, draw_example


ROOT = Path(__file__).parents[1]
SPACE = ROOT / "examples" / "space"
# `make test-slow` makes it: the app's own environment, on top of the one that runs the tests.
SPACE_PYTHON = Path(sys.prefix) / "space" / "bin" / "python"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def inspector():
    """The app's functions, imported as the app imports them."""
    sys.path.insert(0, str(SPACE))
    import inspector

    yield inspector
    sys.path.remove(str(SPACE))


@pytest.fixture(scope="module")
def tiny(inspector):
    return inspector.Inspector(DEMO_MODEL)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A drawn leaf, wider than high, and files that are no pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_example("tree_leaf", "hole").resize((300, 200)).save(folder / "leaf.png")
    draw_example("hex_nut", None).save(folder / "nut.jpg")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "leaf.png").read_bytes()[:3000])
    return folder


def count_forwards(model):
    runs = []
    model.register_forward_hook(lambda *args: runs.append(1))
    return runs


# Functions


def test_inspection_is_what_the_pipeline_finds(inspector, tiny, pictures):
    found = tiny.inspect(pictures / "leaf.png", "tree leaf")
    anomaly_map = inspector.compute_map(found, "industrial")
    limit = float(anomaly_map.quantile(0.9))
    expected = tiny.pipe(pictures / "leaf.png", object_name="tree leaf", mask_threshold=limit)
    assert found.score == pytest.approx(expected["score"], abs=1e-6)
    torch.testing.assert_close(anomaly_map, expected["anomaly_map"], rtol=1e-4, atol=1e-4)
    _, regions = inspector.draw_mask(found, expected["anomaly_map"], limit)
    assert regions == expected["boxes"]


def test_settings_are_changed_without_the_model(inspector, pictures):
    own = inspector.Inspector(DEMO_MODEL)
    runs = count_forwards(own.model)
    found = own.inspect(pictures / "leaf.png", "tree leaf")
    assert len(runs) == 1
    industrial, medical = (inspector.compute_map(found, domain) for domain in inspector.DOMAINS)
    assert not torch.equal(industrial, medical)
    masks = [inspector.draw_mask(found, industrial, float(industrial.quantile(share))) for share in (0.5, 0.95)]
    assert masks[0][0].tobytes() != masks[1][0].tobytes()
    assert masks[0][1] != masks[1][1]
    assert inspector.draw_mask(found, industrial, float(industrial.max()) + 1)[1] == []
    inspector.draw_map(found, medical)
    inspector.draw_experts(found)
    assert len(runs) == 1


def test_pictures_are_shown_at_a_size_for_a_page(inspector, tiny, tmp_path):
    for size, shown in (((60, 30), (512, 256)), ((800, 600), (800, 600)), ((4096, 1024), (1024, 256))):
        Image.new("RGB", size, "grey").save(tmp_path / "part.png")
        found = tiny.inspect(tmp_path / "part.png", "object")
        anomaly_map = inspector.compute_map(found, "industrial")
        assert anomaly_map.shape == size[::-1]
        assert found.picture.size == shown
        assert inspector.draw_map(found, anomaly_map).size == shown
        assert inspector.draw_mask(found, anomaly_map, 0.0)[0].size == shown


def test_experts_of_every_layer(inspector, tiny, pictures, tiny_clip_folder, tmp_path):
    drawn = inspector.draw_experts(tiny.inspect(pictures / "leaf.png", "tree leaf"))
    assert [caption for _, caption in drawn] == [f"layer {layer}" for layer in tiny.model.moe_lora_layers()]
    assert all(picture.size == (512, 341) for picture, _ in drawn)
    plain = MoECLIPForAnomalyDetection.from_clip(tiny_clip_folder, image_size=70, moe_lora=None)
    plain.save_pretrained(tmp_path / "plain")
    MoECLIPProcessor.from_clip(tiny_clip_folder, plain.config).save_pretrained(tmp_path / "plain")
    found = inspector.Inspector(tmp_path / "plain").inspect(pictures / "leaf.png", "tree leaf")
    assert (inspector.draw_experts(found), found.num_experts) == ([], 0)


def test_sixteen_bits_and_turned_pictures(inspector, tiny, tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (40, 80), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "scan.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray((values >> 8).astype(np.uint8)).save(tmp_path / "turned.png", exif=exif)
    assert tiny.inspect(tmp_path / "scan.png", "tissue").size == (40, 80)
    assert tiny.inspect(tmp_path / "turned.png", "tissue").size == (80, 40)
    assert tiny.inspect(tmp_path / "turned.png", "tissue").picture.size == (256, 512)


def test_bad_files_and_names_are_named_in_one_line(tiny, pictures, monkeypatch):
    for name in ("broken.png", "cut.png", "missing.png"):
        with pytest.raises(ValueError, match=r"\w") as caught:
            tiny.inspect(pictures / name, "leaf")
        assert str(pictures) not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="empty name"):
        tiny.inspect(pictures / "leaf.png", " ")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="exceeds limit of 200 pixels"):
        tiny.inspect(pictures / "leaf.png", "leaf")


def test_many_files_become_a_table(inspector, tiny, pictures, tmp_path):
    files = [pictures / name for name in ("leaf.png", "broken.png", "nut.jpg", "cut.png")]
    scores = [tiny.pipe(file, object_name="leaf")["score"] for file in (files[0], files[2])]
    rows = tiny.score_files(files, "leaf", sum(scores) / 2)
    inspector.write_scores(rows, tmp_path / "scores.csv")
    with open(tmp_path / "scores.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["file"] for row in read] == ["leaf.png", "broken.png", "nut.jpg", "cut.png"]
    assert [float(row["score"]) for row in (read[0], read[2])] == pytest.approx(scores)
    assert {read[0]["label"], read[2]["label"]} == {"normal", "anomalous"}
    for row in (read[1], read[3]):
        assert (row["score"], row["label"]) == ("", "")
        assert row["problem"]
        assert str(pictures) not in row["problem"]
    with pytest.raises(ValueError, match="empty name"):
        tiny.score_files(files, "", 0.5)


def test_other_repositories_are_refused(inspector, tmp_path):
    with pytest.raises(OSError, match="nothing"):
        inspector.Inspector(str(tmp_path / "nothing"))
    for folder, kind in ((DEMO_CLIP, "clip"), (tmp_path, "not known")):
        with pytest.raises(ValueError, match=rf"holds no MoECLIP model \(its type is {kind}\): name another"):
            inspector.Inspector(str(folder))


# Files


def requirements():
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_requirements_are_the_packages_and_gradio():
    core = {str(one) for one in declared()[""]}
    ours = {str(one) for one in requirements()}
    assert core <= ours
    assert all(str(one.specifier).startswith("==") for one in requirements() if str(one) not in core)


def test_front_matter_names_the_same_gradio():
    front_matter = dict(re.findall(r"^(\w+): (.+)$", (SPACE / "README.md").read_text().split("---")[1], re.MULTILINE))
    (gradio,) = (one for one in requirements() if one.name == "gradio")
    assert gradio.specifier.contains(front_matter["sdk_version"])
    assert front_matter["sdk"] == "gradio"
    assert (SPACE / front_matter["app_file"]).is_file()
    assert len(front_matter["short_description"]) <= 60  # the Hub refuses a longer one


# The page


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app as it runs on the Hub: its folder with the package beside it, and nothing else of this checkout."""
    if BROWSER is None:
        pytest.skip("needs a browser: apt-get install chromium")
    if not SPACE_PYTHON.exists():
        pytest.skip("needs the app's environment, which `make test-slow` makes")
    folder = tmp_path_factory.mktemp("space")
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SPACE, folder / "space", ignore=no_caches)
    shutil.copytree(ROOT / "moeclip_hf", folder / "space" / "moeclip_hf", ignore=no_caches)
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MOECLIP_MODEL")}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads"), "HF_HUB_OFFLINE": "1"}
    with open(folder / "log.txt", "w") as log:
        app = subprocess.Popen(
            [SPACE_PYTHON, "app.py"], cwd=folder / "space", env=inherited | own, stdout=log, stderr=log
        )
    try:
        wait_until_up(app, f"http://127.0.0.1:{port}", folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
        assert app.poll() is None, (folder / "log.txt").read_text()
    finally:
        app.terminate()
        app.wait(timeout=30)


def wait_until_up(app, address, log):
    for _ in range(300):
        assert app.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(1)
    raise AssertionError(f"the app did not answer within 5 minutes: {log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(address, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(address)
    page.wait_for_selector("#inspect")
    yield page
    page.close()


def inspect(page, file, name="tree leaf"):
    """Uploads a picture in place of the one before, names it and runs the model."""
    remove = page.locator("#picture").get_by_label("Remove Image")
    if remove.count():
        remove.click()
    page.locator("#picture input[type=file]").set_input_files(file)
    page.locator("#picture").get_by_label("Remove Image").wait_for()
    page.locator("#object-name").locator("textarea, input").fill(name)
    page.click("#inspect")


def wait_for_text(page, selector, text):
    page.locator(selector).filter(has_text=text).wait_for()


def set_slider(page, selector, value):
    number = page.locator(f"{selector} input[type=number]")
    number.fill(str(value))
    number.press("Tab")


@pytest.mark.slow
def test_page_shows_map_mask_and_experts(page, pictures, tiny):
    inspect(page, pictures / "leaf.png")
    score = tiny.pipe(pictures / "leaf.png", object_name="tree leaf")["score"]
    wait_for_text(page, "#verdict", f"score {score:.3f}")
    assert page.locator("#map img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [512, 341]
    page.get_by_role("tab", name="Mask").click()
    page.locator("#mask img").wait_for()
    page.get_by_role("tab", name="Experts").click()
    page.locator("#experts img").first.wait_for()
    assert page.locator("#experts img").count() == 4


@pytest.mark.slow
def test_page_follows_the_thresholds_and_the_domain(page, pictures):
    inspect(page, pictures / "leaf.png")
    wait_for_text(page, "#verdict", "score")
    first_map = page.locator("#map img").get_attribute("src")
    set_slider(page, "#threshold", 0.99)
    wait_for_text(page, "#verdict", "Normal")
    set_slider(page, "#threshold", 0.01)
    wait_for_text(page, "#verdict", "Anomalous")
    assert page.locator("#map img").get_attribute("src") == first_map

    page.get_by_role("tab", name="Mask").click()
    page.locator("#mask img").wait_for()
    first_mask = page.locator("#mask img").get_attribute("src")
    lowest = float(page.locator("#mask-threshold input[type=range]").get_attribute("min"))
    set_slider(page, "#mask-threshold", lowest)
    page.wait_for_function("src => document.querySelector('#mask img').src != src", arg=first_mask)
    wait_for_text(page, "#regions", "300")  # the whole width of the picture

    page.get_by_text("medical", exact=True).click()
    page.get_by_role("tab", name="Map").click()
    page.wait_for_function("src => document.querySelector('#map img').src != src", arg=first_map)


@pytest.mark.slow
def test_page_survives_bad_input(page, pictures):
    page.click("#inspect")
    page.get_by_text("Upload a picture first.").first.wait_for()
    for name in ("broken.png", "cut.png"):
        inspect(page, pictures / name)
        page.get_by_text(re.compile(f"{name}|truncated")).last.wait_for()
    inspect(page, pictures / "leaf.png", name=" ")
    page.get_by_text("empty name").first.wait_for()
    inspect(page, pictures / "leaf.png")
    wait_for_text(page, "#verdict", "score")


@pytest.mark.slow
def test_page_scores_many_pictures(page, pictures, tmp_path):
    page.get_by_role("tab", name="Many pictures").click()
    files = [pictures / name for name in ("leaf.png", "broken.png", "nut.jpg")]
    page.locator("#files input[type=file]").set_input_files(files)
    wait_for_text(page, "#files", "nut.jpg")
    page.click("#score-all")
    wait_for_text(page, "#scores", "broken.png")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "scores.csv")
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["leaf.png", "broken.png", "nut.jpg"]
    expected = pipeline("zero-shot-anomaly-detection", model=DEMO_MODEL)(str(files[0]))["score"]
    assert float(rows[0]["score"]) == pytest.approx(expected, abs=1e-4)
    assert rows[1]["problem"] == "'broken.png' is not a picture that Pillow can read."


@pytest.mark.slow
def test_page_loads_another_repository(page, pictures, tmp_path):
    pipe = pipeline("zero-shot-anomaly-detection", model=DEMO_MODEL)
    with torch.no_grad():
        pipe.model.text_adapter.weight.mul_(-1)
    pipe.save_pretrained(tmp_path / "mirrored", adapters_only=False)
    page.get_by_text("Model", exact=True).click()
    repository = page.locator("#repository").locator("textarea, input")
    for name, problem in ((str(tmp_path / "nothing"), "nothing"), (DEMO_CLIP, "holds no MoECLIP model")):
        repository.fill(name)
        page.click("#load")
        page.locator(".toast-wrap").get_by_text(problem).wait_for()
        wait_for_text(page, "#in-use", "tiny_moeclip")
    repository.fill(str(tmp_path / "mirrored"))
    page.click("#load")
    wait_for_text(page, "#in-use", "mirrored")
    inspect(page, pictures / "leaf.png")
    wait_for_text(page, "#verdict", f"score {pipe(str(pictures / 'leaf.png'), object_name='tree leaf')['score']:.3f}")


@pytest.mark.slow
def test_page_fits_a_phone(address, browser, pictures):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(60_000)
    page.goto(address)
    page.wait_for_selector("#inspect")
    inspect(page, pictures / "leaf.png")
    wait_for_text(page, "#verdict", "score")
    for tab in ("Mask", "Experts", "Many pictures"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
