"""Runs commands and code against the Hub of the tests, in a process that knows no other Hub.

A script, not a test: HF_ENDPOINT and its like are read when huggingface_hub is imported, so a test process, which is
offline, cannot be its client. Each line on stdin is a task, `{"argv": [...]}` for the console command or `{"code": ...}`
for Python; each line on stdout its result. huggingface_hub's waits before it tries again are written down, not slept.
"""

import contextlib
import io
import json
import sys
import traceback

import huggingface_hub.utils._http as http

from moeclip_hf.cli import main


class Waits:
    """Stands in for the `time` that huggingface_hub waits by."""

    def __init__(self):
        self.seconds = []

    def sleep(self, seconds):
        self.seconds.append(seconds)


def run(task):
    out, err = io.StringIO(), io.StringIO()
    waits = http.time = Waits()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(task["argv"]) if "argv" in task else exec(task["code"], {})
        except SystemExit as stop:
            code = stop.code
        except Exception:  # the test reads what was raised, as from an interpreter of its own
            traceback.print_exc()
            code = "raised"
    return {"code": code or 0, "out": out.getvalue(), "err": err.getvalue(), "waits": waits.seconds}


if __name__ == "__main__":
    answers = sys.stdout
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()
