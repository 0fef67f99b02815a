"""A small Hub on this machine: what huggingface_hub asks of the real one to push and pull, and faults on demand.

Standard library only. It knows one branch, `main`, whole files over LFS, and tokens; neither Xet nor multipart uploads,
so its clients run with HF_HUB_DISABLE_XET=1. It is a stand-in: passing it is no proof against the real Hub.
"""

import base64
import dataclasses
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


TOKEN = "hf_write"
LFS_SUFFIXES = (".safetensors", ".bin", ".png")


@dataclasses.dataclass
class Repository:
    """A model repository: one branch, the present content of its files."""

    private: bool = False
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    commits: int = 0

    @property
    def sha(self) -> str:
        return f"{self.commits:040x}"


@dataclasses.dataclass
class Fault:
    """Something that goes wrong with the next `times` requests whose "METHOD path" matches `pattern`.

    `status` answers with that status; `cut` sends so many bytes of the true answer's body and hangs up; neither hangs
    up at once.
    """

    pattern: str
    status: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    cut: int | None = None
    times: int = 1


class HubServer:
    """Runs the server in a thread, as a context manager.

    `repositories` maps ids to [`Repository`] and may be changed at any time, `faults` lists what shall go wrong and
    `requests` what was asked, as "METHOD path".
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        self.repositories.clear()
        self.objects.clear()
        self.faults.clear()
        self.requests.clear()

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def take_fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients hang up here on purpose


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass

    def _serve(self):
        hub: HubServer = self.server.hub
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        hub.requests.append(request)
        self._fault = hub.take_fault(request)
        if self._fault is not None and self._fault.status is None and self._fault.cut is None:
            # hung up before the body is read, as when a line breaks
            self.close_connection = True
            return
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._fault is not None and self._fault.status is not None:
            self._answer(self._fault.status, {"error": "on demand"}, self._fault.headers)
            return
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                answer(self, hub, *match.groups())
                return
        self._answer(404, {"error": f"no route for {request}"})

    def _answer(self, status: int, content=b"", headers: dict | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._fault is not None and self._fault.cut is not None:
            body = body[: self._fault.cut]
            self.close_connection = True
        self.wfile.write(body)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._answer(401, {"error": "Invalid username or password."})
        return False

    def _find(self, hub: HubServer, repo_id: str) -> Repository | None:
        """The repository, if there is one and the client may see it; else the real Hub's answer is given."""
        repository = hub.repositories.get(repo_id)
        authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not authorized):
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self._answer(404 if authorized else 401, {"error": "Repository not found"}, headers)
            return None
        return repository

    # ---- writing ----

    def _create(self, hub: HubServer):
        if not self._may_write():
            return
        wish = json.loads(self._body)
        owner, name = wish.get("organization") or "user", wish["name"]
        if owner != "user":
            self._answer(403, {"error": f"You don't have the rights to create a model under the namespace {owner!r}."})
            return
        repo_id = f"{owner}/{name}"
        if repo_id in hub.repositories:
            self._answer(409, {"error": "You already created this model repo", "url": f"{hub.url}/{repo_id}"})
            return
        hub.repositories[repo_id] = Repository(
            private=bool(wish.get("private")) or wish.get("visibility") == "private"
        )
        self._answer(200, {"url": f"{hub.url}/{repo_id}", "name": repo_id})

    def _validate_yaml(self, hub: HubServer):
        self._answer(200, {"errors": [], "warnings": []})

    def _preupload(self, hub: HubServer, repo_id: str):
        if not self._may_write() or self._find(hub, repo_id) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self._body)["files"]
        ]
        self._answer(200, {"files": files})

    def _lfs_batch(self, hub: HubServer, repo_id: str):
        if not self._may_write():
            return
        objects = []
        for wanted in json.loads(self._body)["objects"]:
            actions = {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(wanted | ({} if wanted["oid"] in hub.objects else {"actions": actions}))
        content_type = {"Content-Type": "application/vnd.git-lfs+json"}
        self._answer(200, {"transfer": "basic", "objects": objects}, content_type)

    def _lfs_put(self, hub: HubServer, oid: str):
        if hashlib.sha256(self._body).hexdigest() != oid:
            self._answer(400, {"error": "content and oid differ"})
            return
        hub.objects[oid] = self._body
        self._answer(200)

    def _commit(self, hub: HubServer, repo_id: str):
        if not self._may_write():
            return
        repository = self._find(hub, repo_id)
        if repository is None:
            return
        files = dict(repository.files)
        for line in self._body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in hub.objects:
                    self._answer(400, {"error": f"{value['path']} was not uploaded"})
                    return
                files[value["path"]] = hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        repository.files = files
        repository.commits += 1
        url = f"{hub.url}/{repo_id}/commit/{repository.sha}"
        self._answer(200, {"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""})

    # ---- reading ----

    def _info(self, hub: HubServer, repo_id: str, revision: str | None = None):
        repository = self._find(hub, repo_id)
        if repository is None:
            return
        siblings = [{"rfilename": path} for path in sorted(repository.files)]
        content = {"id": repo_id, "sha": repository.sha, "private": repository.private, "siblings": siblings}
        self._answer(200, content | {"tags": [], "downloads": 0, "likes": 0})

    def _tree(self, hub: HubServer, repo_id: str, revision: str, folder: str | None = None):
        repository = self._find(hub, repo_id)
        if repository is None:
            return
        folder = f"{folder}/" if folder else ""
        inside = [path for path in repository.files if path.startswith(folder)]
        if folder and not inside:
            self._answer(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
            return
        entries = [
            {"type": "file", "path": path, "size": len(repository.files[path]), "oid": _etag(repository.files[path])}
            for path in sorted(inside)
        ]
        self._answer(200, entries)

    def _resolve(self, hub: HubServer, repo_id: str, revision: str, path: str):
        repository = self._find(hub, repo_id)
        if repository is None:
            return
        headers = {"X-Repo-Commit": repository.sha}
        if path not in repository.files:
            self._answer(404, {"error": "Entry not found"}, headers | {"X-Error-Code": "EntryNotFound"})
            return
        content = repository.files[path]
        headers |= {
            "ETag": f'"{_etag(content)}"',
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
        }
        if path.endswith(LFS_SUFFIXES):
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{_etag(content)}"'}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start is None:
            self._answer(200, content, headers)
        else:
            first = int(start.group(1))
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._answer(206, content[first:], headers)


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_ID = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    (("POST",), r"/api/repos/create", _Handler._create),
    (("POST",), r"/api/validate-yaml", _Handler._validate_yaml),
    (("POST",), rf"/api/models/{_ID}/preupload/main", _Handler._preupload),
    (("POST",), rf"/{_ID}\.git/info/lfs/objects/batch", _Handler._lfs_batch),
    (("PUT",), r"/lfs/(\w+)", _Handler._lfs_put),
    (("POST",), rf"/api/models/{_ID}/commit/main", _Handler._commit),
    (("GET", "HEAD"), rf"/api/models/{_ID}", _Handler._info),
    (("GET", "HEAD"), rf"/api/models/{_ID}/revision/([\w.-]+)", _Handler._info),
    (("GET",), rf"/api/models/{_ID}/tree/([\w.-]+)(?:/(.+))?", _Handler._tree),
    (("GET", "HEAD"), rf"/{_ID}/resolve/([\w.-]+)/(.+)", _Handler._resolve),
]
