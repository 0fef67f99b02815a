import json
import math

import pytest

from moeclip_hf.json_file import read_json_object, write_json


def test_round_trip_makes_folders(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"name": "Schraube, groß", "values": [1, 2.5, None]})
    assert read_json_object(tmp_path / "a" / "b.json") == {"name": "Schraube, groß", "values": [1, 2.5, None]}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"new": math.nan})
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(tmp_path / "a.json", {"new": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "message"), [('{"a": ', "is no JSON"), ("[1]", "must hold a JSON object, .* holds list")]
)
def test_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"a.json {message}"):
        read_json_object(tmp_path / "a.json")
