"""Push and pull over HTTP, against a small Hub on this machine, in processes that know no other."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import TOKEN, Fault, HubServer, Repository
from PIL import Image
from safetensors.torch import load_file

from moeclip_hf import MoECLIPForAnomalyDetection, MoECLIPImageProcessor, MoECLIPProcessor


ROOT = Path(__file__).parents[1]
# The package is not there, nor what only its extras need.
WITHOUT_PACKAGE = """
import sys
for name in ("moeclip_hf", "datasets", "evaluate", "scipy", "sklearn", "matplotlib", "tensorboard"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def server():
    with HubServer() as running:
        yield running


@pytest.fixture
def hub(server):
    server.reset()
    return server


def make_environment(hub, home, token=TOKEN):
    inherited = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        # without it the client asks for the Hub's newer protocol and has no other
        "HF_HUB_DISABLE_XET": "1",
        # transformers would ask a service of the real Hub to convert a pickle
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "PYTHONPATH": str(ROOT),
    }
    return inherited | settings | ({"HF_TOKEN": token} if token else {})


class Client:
    """A process of `hub_client.py`; its cache is empty at first."""

    def __init__(self, hub, home, token=TOKEN):
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "hub_client.py")],
            env=make_environment(hub, home, token),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **task):
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def run(self, *argv):
        return self._ask(argv=[str(argument) for argument in argv])

    def execute(self, code):
        return self._ask(code=code)

    def close(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    running = Client(server, tmp_path_factory.mktemp("home"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def stranger(server, tmp_path_factory):
    """A client without a token."""
    running = Client(server, tmp_path_factory.mktemp("stranger"), token=None)
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_tokenizer):
    tiny_model.save_pretrained(tmp_path / "model")
    MoECLIPProcessor(MoECLIPImageProcessor(size=56), tiny_tokenizer).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path):
    """A flawless and a defective picture of one object in MVTec layout."""
    for kind, value in (("good", 100), ("spot", 200)):
        (tmp_path / "data/tile/test" / kind).mkdir(parents=True)
        Image.new("RGB", (56, 56), (value, 90, 80)).save(tmp_path / "data/tile/test" / kind / "0.png")
    return tmp_path / "data"


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "part.png")
    return Image.fromarray(pixels)


def pull(hub, tmp_path, repo_id):
    """Runs the card's own snippet in a fresh process without the package; gives the weights and the result."""
    card = hub.repositories[repo_id].files["README.md"].decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    keep = f"""
from safetensors.torch import save_file
tensors = dict(model.state_dict())
tensors["result.map"], tensors["result.score"] = result["anomaly_map"], torch.tensor(result["score"])
save_file({{name: tensor.clone() for name, tensor in tensors.items()}}, {str(tmp_path / "pulled.safetensors")!r})
"""
    environment = make_environment(hub, tmp_path / "fresh_home") | {"PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE + snippet + keep],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(tmp_path / "pulled.safetensors")


@torch.no_grad()
def expect(model, processor, picture):
    """What a pull must give: the weights and the result, bit for bit."""
    outputs = model(**processor(images=picture, object_names="metal nut"))
    sizes = [(picture.height, picture.width)]
    (result,) = processor.post_process_anomaly_detection(outputs, target_sizes=sizes)
    weights = dict(model.state_dict())
    return weights | {"result.map": result["anomaly_map"], "result.score": torch.tensor(result["score"])}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def last_line(answer):
    return answer["err"].strip().splitlines()[-1]


def put(hub, folder, repo_id, **files):
    """Puts a folder into the Hub as it is, without a push; a content of None leaves a file out."""
    contents = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()} | files
    kept = {path: content for path, content in contents.items() if content is not None}
    hub.repositories[repo_id] = Repository(files=kept, commits=1)


def test_round_trip(hub, client, folder, tmp_path, picture):
    answer = client.run("push", folder, "user/moeclip")
    assert answer["code"] == 0, answer["err"]
    assert f"{hub.url}/user/moeclip holds the model" in last_line(answer)
    found = pull(hub, tmp_path, "user/moeclip")
    model = MoECLIPForAnomalyDetection.from_pretrained(folder)
    assert_equal(found, expect(model, MoECLIPProcessor.from_pretrained(folder), picture))


@pytest.mark.slow
def test_round_trip_of_adapters(hub, client, folder, tmp_path, picture, tiny_clip_folder):
    put(hub, tiny_clip_folder, "user/clip")
    model = MoECLIPForAnomalyDetection.from_pretrained(folder)
    model.config.base_model_name_or_path = "user/clip"
    model.save_pretrained(folder, adapters_only=True)
    assert client.run("push", folder, "user/adapters")["code"] == 0
    assert len(hub.repositories["user/adapters"].files["model.safetensors"]) < 200_000
    found = pull(hub, tmp_path, "user/adapters")
    assert any("user/clip" in request and "model.safetensors" in request for request in hub.requests)
    assert_equal(found, expect(model, MoECLIPProcessor.from_pretrained(folder), picture))


def test_pushed_is_what_the_dry_run_writes(hub, client, folder, tmp_path):
    assert client.run("push", folder, "user/same", "--dry-run", tmp_path / "dry")["code"] == 0
    assert not hub.requests or all("create" not in request for request in hub.requests)
    assert client.run("push", folder, "user/same")["code"] == 0
    dry = {str(path.relative_to(tmp_path / "dry")): path.read_bytes() for path in (tmp_path / "dry").rglob("*.*")}
    assert dry == hub.repositories["user/same"].files


def test_installed_package_needs_no_remote_code(hub, client, folder):
    assert client.run("push", folder, "user/local")["code"] == 0
    answer = client.execute(
        "import moeclip_hf\nfrom transformers import AutoModel, AutoProcessor\n"
        "for kind in (AutoModel, AutoProcessor):\n    print(type(kind.from_pretrained('user/local')).__module__)"
    )
    assert answer["out"].split() == ["moeclip_hf.modeling_moeclip", "moeclip_hf.processing_moeclip"], answer["err"]


def test_second_push_takes_away_what_the_first_left(hub, client, folder):
    figures = {"image_auroc": 0.5, "image_ap": 0.5, "pixel_auroc": None, "pixel_ap": None}
    results = {"mean": figures, "classes": {"tile": figures}, "meta": {"data": "tiles"}}
    (folder / "old.json").write_text(json.dumps(results))
    assert client.run("push", folder, "user/twice")["code"] == 0
    repository = hub.repositories["user/twice"]
    assert "results/old.json" in repository.files
    repository.files["notes.md"] = b"the owner's own"
    (folder / "old.json").unlink()
    assert client.run("push", folder, "user/twice")["code"] == 0
    assert "results/old.json" not in repository.files
    assert repository.files["notes.md"] == b"the owner's own"
    assert "50.0" not in repository.files["README.md"].decode()


def test_private(hub, client, stranger, folder, data, tmp_path):
    assert client.run("push", folder, "user/secret", "--private")["code"] == 0
    assert hub.repositories["user/secret"].private
    answer = stranger.run("evaluate", "--model", "user/secret", "--data", data, "--output", tmp_path / "r.json")
    assert answer["code"] == 1
    assert "no token that may use it was given" in last_line(answer)


def test_private_does_not_turn_a_public_repository_private(hub, client, folder):
    assert client.run("push", folder, "user/public")["code"] == 0
    before = hub.repositories["user/public"].sha
    answer = client.run("push", folder, "user/public", "--private")
    assert answer["code"] == 1
    assert "is there already and public" in last_line(answer)
    assert hub.repositories["user/public"].sha == before


# ---- a push that fails ----


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST /api/repos/create", status=401, times=9), "log in by `hf auth login`"),
        (Fault("POST /api/repos/create", status=403, times=9), "the token lacks the right"),
        (Fault("GET /api/models/user/new", status=404, times=9), "no such repository"),
        (Fault("POST .*/commit/main", status=429, headers={"Retry-After": "7"}, times=9), "again in 7 seconds"),
        (Fault("POST .*/commit/main", status=429, times=9), "try again later"),
        (Fault("POST .*/commit/main", status=503, times=9), "the Hub answers 503"),
        (Fault("PUT /lfs/", times=9), "the connection failed"),
        (Fault("POST .*/commit/main", times=9), "the connection failed"),
    ],
)
def test_failed_push_is_one_line_and_leaves_nothing(hub, client, folder, fault, message):
    hub.faults.append(Fault(**vars(fault)))
    answer = client.run("push", folder, "user/new")
    assert answer["code"] == 1
    assert last_line(answer).startswith("moeclip: error: Pushing to user/new failed: ")
    assert message in last_line(answer)
    assert "Traceback" not in answer["err"]
    assert not hub.repositories.get("user/new", Repository()).files


def test_interrupted_push_leaves_the_earlier_one(hub, client, folder, tmp_path, tiny_clip):
    assert client.run("push", folder, "user/kept")["code"] == 0
    before = dict(hub.repositories["user/kept"].files)
    model = MoECLIPForAnomalyDetection.from_pretrained(folder)
    model.text_adapter.weight.data += 1
    model.save_pretrained(folder)
    hub.faults.append(Fault("PUT /lfs/", times=9))
    assert client.run("push", folder, "user/kept")["code"] == 1
    assert hub.repositories["user/kept"].files == before
    hub.faults.clear()
    assert client.run("push", folder, "user/kept")["code"] == 0
    assert hub.repositories["user/kept"].files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_push_waits_as_long_as_the_hub_asks(hub, client, folder):
    hub.faults.append(Fault("PUT /lfs/", status=429, headers={"Retry-After": "7"}, times=2))
    answer = client.run("push", folder, "user/patient")
    assert answer["code"] == 0
    assert answer["waits"] == [8.0, 8.0]  # what it asked for, and a second for its clock


def test_push_to_another_owner(hub, client, folder):
    answer = client.run("push", folder, "other/name")
    assert answer["code"] == 1
    assert "the token lacks the right" in last_line(answer)


def test_push_without_a_token(hub, stranger, folder):
    answer = stranger.run("push", folder, "user/name")
    assert answer["code"] == 1
    assert "log in by `hf auth login`" in last_line(answer)


# ---- a pull that fails ----


@pytest.fixture
def evaluate(client, data, tmp_path):
    """Runs `moeclip evaluate` on a model of the Hub, a command as good as any."""

    def run(repo_id):
        return client.run("evaluate", "--model", repo_id, "--data", data, "--output", tmp_path / "results.json")

    return run


def assert_one_line(answer, message):
    assert answer["code"] == 1, answer["err"]
    assert last_line(answer).startswith("moeclip: error: ")
    assert message in last_line(answer)
    assert "Traceback" not in answer["err"]


def test_unknown_repository(hub, evaluate):
    assert_one_line(evaluate("user/none"), "the Hub has no such repository")


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("limited", Fault("GET .*safetensors", status=429, headers={"Retry-After": "7"}, times=99), "in 7 seconds"),
        ("limited_from_the_start", Fault(".", status=429, headers={"Retry-After": "7"}, times=999), "in 7 seconds"),
        ("broken", Fault("GET .*safetensors", status=503, times=99), "the Hub answers 503"),
        ("away", Fault(".", times=999), "the connection failed"),
        # huggingface_hub waits a second before each of five new tries
        pytest.param(
            "cut", Fault("GET .*safetensors", cut=5000, times=99), "the connection failed", marks=pytest.mark.slow
        ),
        ("gated", Fault("HEAD .*config.json", status=403, headers={"X-Error-Code": "GatedRepo"}, times=99), "terms"),
    ],
)
def test_failed_pull_is_one_line_and_the_next_one_works(hub, evaluate, folder, name, fault, message):
    put(hub, folder, f"user/{name}")
    hub.faults.append(Fault(**vars(fault)))
    assert_one_line(evaluate(f"user/{name}"), message)
    hub.faults.clear()
    answer = evaluate(f"user/{name}")
    assert answer["code"] == 0, answer["err"]


def test_interrupted_download_goes_on_where_it_stopped(hub, client, folder):
    put(hub, folder, "user/resumed")
    hub.faults.append(Fault("GET .*model.safetensors", cut=5000))
    code = "from moeclip_hf import MoECLIPForAnomalyDetection as M; from safetensors.torch import save_file; "
    target = folder.parent / "resumed.safetensors"
    answer = client.execute(f"{code}save_file(M.from_pretrained('user/resumed').state_dict(), {str(target)!r})")
    assert answer["code"] == 0, answer["err"]
    assert_equal(load_file(target), MoECLIPForAnomalyDetection.from_pretrained(folder).state_dict())


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("short", lambda content: content[:-100]),
        ("no_header", lambda content: b"\xff" * len(content)),
        ("empty", lambda content: b""),
    ],
)
def test_damaged_weights(hub, evaluate, folder, name, damage):
    weights = damage((folder / "model.safetensors").read_bytes())
    put(hub, folder, f"user/{name}", **{"model.safetensors": weights})
    assert_one_line(evaluate(f"user/{name}"), f"The weights of user/{name}: a file is damaged or no safetensors file")


def test_pickle_is_refused(hub, evaluate, folder, tiny_clip_folder):
    weights = (folder / "model.safetensors").read_bytes()
    only_pickle = {"model.safetensors": None, "pytorch_model.bin": weights}
    put(hub, folder, "user/pickle", **only_pickle)
    assert_one_line(evaluate("user/pickle"), "user/pickle has no weights in safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"adapters_only": True, "base_model_name_or_path": "user/clip"}
    put(hub, folder, "user/adapters", **only_pickle, **{"config.json": json.dumps(config).encode()})
    assert_one_line(evaluate("user/adapters"), "user/adapters has no weights in safetensors")
    assert not any("pytorch_model.bin" in request and request.startswith("GET") for request in hub.requests)


def test_pickled_clip_is_refused(hub, evaluate, folder, tiny_clip_folder):
    put(hub, tiny_clip_folder, "user/pickled_clip", **{"model.safetensors": None, "pytorch_model.bin": b"pickle"})
    model = MoECLIPForAnomalyDetection.from_pretrained(folder)
    model.config.base_model_name_or_path = "user/pickled_clip"
    model.save_pretrained(folder, adapters_only=True)
    put(hub, folder, "user/on_a_pickle")
    assert_one_line(evaluate("user/on_a_pickle"), "user/pickled_clip has no weights in safetensors")
    assert not any("pytorch_model.bin" in request and request.startswith("GET") for request in hub.requests)


def test_missing_clip(hub, evaluate, folder):
    model = MoECLIPForAnomalyDetection.from_pretrained(folder)
    model.config.base_model_name_or_path = "user/gone"
    model.save_pretrained(folder, adapters_only=True)
    put(hub, folder, "user/lonely")
    assert_one_line(evaluate("user/lonely"), "no such repository")


def test_record_is_json(hub, client, folder):
    put(hub, folder, "user/record", **{"training.json": b"\x80\x04\x95pickle"})
    code = "from moeclip_hf.training_record import read_training_record as read\n"
    answer = client.execute(f"{code}try:\n    read('user/record')\nexcept ValueError as error:\n    print(error)")
    assert "training.json" in answer["out"], answer
    assert "no JSON" in answer["out"]


def test_example(hub, folder, data, tmp_path):
    """`examples/push_to_hub.py` evaluates, writes the repository, and sends it."""
    script = [sys.executable, str(ROOT / "examples" / "push_to_hub.py"), str(folder), "user/example"]
    environment = make_environment(hub, tmp_path / "home")
    done = subprocess.run(
        [*script, "--test-data", str(data), "--private"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{hub.url}/user/example" in done.stdout
    repository = hub.repositories["user/example"]
    assert repository.private
    measured = json.loads(repository.files["results/test_data.json"])["mean"]["image_auroc"]
    assert f"| {100 * measured:.1f} |" in repository.files["README.md"].decode()
    assert str(tmp_path) not in repository.files["results/test_data.json"].decode()
