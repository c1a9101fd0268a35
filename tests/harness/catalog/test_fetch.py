"""Fetching from addresses, mirrors and a hub (all on this machine): continued, asked again, refused with advice."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.catalog import fetch
from harness.catalog.assets import Asset, AssetStore
from harness.catalog.fetch import Fetcher, download
from harness.contract.digest import sha256_file
from harness.contract.errors import EnvironmentFailure, MissingAsset, UserError
from harness.store.digests import DigestMemo

CONTENT = bytes(range(256)) * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files` from the byte asked for; some paths misbehave first. Speaks enough of the hub's protocol."""

    files: dict[str, bytes]
    faults: dict[str, list[int | str]]
    asked: list[tuple[str, str, str | None]]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path, wanted = self.path.split("?")[0], self.headers["Range"]
        self.asked.append((self.command, path, wanted))
        fault = self.faults.get(path)
        reason = fault.pop(0) if fault else None
        if isinstance(reason, int):
            self.send_response(reason)
            if reason == 403:
                self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path not in self.files:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.files[path]
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if start >= len(content):
            self.send_error(416)
            return
        rest = content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(rest)))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(rest[: len(rest) // 2] if reason == "cut" else rest)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Server.files, Server.faults, Server.asked = {}, {}, []
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_token")
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


def fetcher(root: Path, asset: Asset, mirror: str | None = None) -> Fetcher:
    return Fetcher(AssetStore(root / "assets", {asset.name: asset}, DigestMemo(root / "memo")), mirror)


def test_a_download_that_is_cut_off_continues_by_itself(tmp_path, server):
    Server.files["/file"], Server.faults["/file"] = CONTENT, ["cut"]
    reports: list[tuple[int, int | None]] = []
    download(f"{server}/file", tmp_path / "partial", lambda done, total: reports.append((done, total)))
    assert (tmp_path / "partial").read_bytes() == CONTENT
    assert [wanted for _, _, wanted in Server.asked] == [None, f"bytes={len(CONTENT) // 2}-"]
    assert reports[-1] == (len(CONTENT), len(CONTENT))


def test_a_complete_download_is_not_fetched_again(tmp_path, server):
    Server.files["/file"] = CONTENT
    (tmp_path / "partial").write_bytes(CONTENT)
    download(f"{server}/file", tmp_path / "partial")
    assert (tmp_path / "partial").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(tmp_path, server):
    Server.files["/file"], Server.faults["/file"] = CONTENT, [503, 429]
    download(f"{server}/file", tmp_path / "partial")
    assert len(Server.asked) == 3 and (tmp_path / "partial").read_bytes() == CONTENT


def test_a_mirror_is_a_copy_of_a_store_behind_an_address_or_on_a_disk(tmp_path, server):
    asset = Asset(name="w", file="w.bin")
    Server.files["/store/w/w.bin"] = CONTENT
    path = fetcher(tmp_path / "one", asset, f"{server}/store").pull(asset)
    assert path.read_bytes() == CONTENT
    again = fetcher(tmp_path / "two", asset, str(tmp_path / "one" / "assets")).pull(asset)
    assert again.read_bytes() == CONTENT and again != path


def test_without_an_answer_the_network_is_blamed_and_the_partial_download_kept(tmp_path, server):
    asset = Asset(name="w", file="w.bin")
    Server.files["/w/w.bin"], Server.faults["/w/w.bin"] = CONTENT, ["cut", 503, 503, 503, 503]
    one = fetcher(tmp_path, asset, server)
    with pytest.raises(EnvironmentFailure, match=r"the network failed .*status 503.* the partial download is kept"):
        one.pull(asset)
    assert one.pull(asset).read_bytes() == CONTENT
    assert Server.asked[-1][2] == f"bytes={len(CONTENT) // 2}-"


def test_a_file_that_is_gone_is_told_from_a_network_that_fails(tmp_path, server):
    asset = Asset(name="w", file="w.bin", note="It has moved before.")
    with pytest.raises(MissingAsset, match=r"'w' is no longer at its address .*status 404.* It has moved before"):
        fetcher(tmp_path, asset, server).pull(asset)
    assert len(Server.asked) == 1  # nobody asks twice for what is not there


def test_terms_to_accept_are_named_with_their_page(tmp_path, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server)
    asset = Asset(name="w", file="w.bin", hub="org/model", hub_kind="dataset", gated="https://example.org/terms")
    Server.faults["/datasets/org/model/resolve/main/w.bin"] = [403] * 9
    with pytest.raises(MissingAsset, match=r"Accept its terms at https://example.org/terms, put a token into HF_TOKEN"):
        fetcher(tmp_path, asset).pull(asset)


def test_a_file_of_the_hub_comes_through_its_client(tmp_path, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server)
    asset = Asset(name="w", file="w.bin", hub="org/model", hub_path="deep/w.bin", revision="r1")
    Server.files["/org/model/resolve/r1/deep/w.bin"] = CONTENT
    one, reports = fetcher(tmp_path, asset), []
    assert one.size(asset) == len(CONTENT)
    path = one.pull(asset, lambda done, total: reports.append((done, total)))
    assert path == tmp_path / "assets" / "w" / "w.bin" and path.read_bytes() == CONTENT
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert [inner.name for inner in path.parent.iterdir() if inner != path] == [".w.bin.json"]


def test_a_folder_of_the_hub_is_one_asset_and_can_be_mirrored(tmp_path, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server)
    asset = Asset(name="set", file="val", hub="org/set", hub_kind="dataset", files=("*.parquet",))
    names = ["data/a.parquet", "data/b.parquet", "README.md"]
    listing = {"id": "org/set", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
    Server.files["/api/datasets/org/set/revision/main"] = json.dumps(listing).encode()
    tree = [{"type": "file", "path": name, "size": len(name), "oid": "0" * 40} for name in names]
    Server.files[f"/api/datasets/org/set/tree/{COMMIT}"] = json.dumps(tree).encode()
    for name in names:
        Server.files[f"/datasets/org/set/resolve/{COMMIT}/{name}"] = name.encode()
    one = fetcher(tmp_path / "one", asset)
    path = one.pull(asset)
    assert sorted(inner.relative_to(path).as_posix() for inner in path.rglob("*") if inner.is_file()) == names[:2]
    assert one.store.find("set").path == path and one.store.is_listed(asset)
    asked = len(Server.asked)
    assert one.pull(asset) == path and len(Server.asked) == asked  # it is there

    for inner in (tmp_path / "one" / "assets").rglob("*"):
        if inner.is_file():
            Server.files[f"/mirror/{inner.relative_to(tmp_path / 'one' / 'assets').as_posix()}"] = inner.read_bytes()
    copy = fetcher(tmp_path / "two", asset, f"{server}/mirror")
    copy.pull(asset)
    assert copy.store.find("set").digest == one.store.find("set").digest
    (path / "data" / "a.parquet").write_text("changed")
    assert not one.store.is_listed(asset)


def test_a_mirror_cannot_write_outside_the_store(tmp_path, server):
    asset = Asset(name="set", file="val", hub="org/set", files=("*",))
    Server.files["/set/.val.json"] = json.dumps({"files": ["../../../escaped"]}).encode()
    with pytest.raises(UserError, match="escaped"):
        fetcher(tmp_path, asset, server).pull(asset)
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_file_that_is_fetched_again_is_compared_with_the_first(tmp_path, server):
    asset = Asset(name="w", file="w.bin")
    one = fetcher(tmp_path, asset, server)
    Server.files["/w/w.bin"] = b"first"
    path = one.pull(asset)
    Server.files["/w/w.bin"] = b"second"
    assert one.pull(asset).read_bytes() == b"first"  # nothing is fetched
    path.unlink()
    with pytest.raises(MissingAsset, match="add --replace"):
        one.pull(asset)
    assert one.pull(asset, replace=True).read_bytes() == b"second"
    assert one.store.find("w").digest == sha256_file(path)


def test_an_asset_without_address_says_how_else(tmp_path):
    asset = Asset(name="w", file="w.bin")
    with pytest.raises(MissingAsset, match="harness assets import w FILE"):
        fetcher(tmp_path, asset).pull(asset)


def test_plain_http_is_refused(tmp_path):
    asset = Asset(name="w", file="w.bin", urls=("http://example.org/w",))
    with pytest.raises(UserError, match="not https"):
        fetcher(tmp_path, asset).pull(asset)


def test_an_address_that_does_not_answer_is_an_environment_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    asset = Asset(name="w", file="w.bin", urls=("https://127.0.0.1:1/w",))
    with pytest.raises(EnvironmentFailure, match="the partial download is kept"):
        fetcher(tmp_path, asset).pull(asset)
