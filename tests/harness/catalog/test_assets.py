"""Assets come in whole, are checked, and are found missing with the command that helps."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path

import pytest

from harness.catalog.assets import Asset, AssetStore, git_blob_id, read_assets
from harness.catalog.project import find_project
from harness.contract.digest import sha256_file
from harness.contract.errors import MissingAsset, UserError
from harness.store.digests import DigestMemo

CONTENT = bytes(range(256)) * 1000


def make_store(root: Path, asset: Asset, **overrides: Path) -> AssetStore:
    return AssetStore(root / "assets", {asset.name: asset}, DigestMemo(root / "memo"), overrides)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(CONTENT)
    return path


def test_an_imported_file_is_found_with_its_digest(tmp_path, file):
    asset = Asset(name="w", file="w.bin", sha256=sha256_file(file))
    store = make_store(tmp_path, asset)
    store.bring(asset, file)
    found = store.find("w")
    assert found.digest == asset.sha256 and found.path == tmp_path / "assets" / "w" / "w.bin"
    assert file.exists()


def test_a_wrong_file_is_not_taken_in(tmp_path, file):
    asset = Asset(name="w", file="w.bin", sha256="0" * 64)
    store = make_store(tmp_path, asset)
    with pytest.raises(MissingAsset, match="not accepted"):
        store.bring(asset, file)
    assert not list((tmp_path / "assets" / "w").glob("[!.]*"))


def test_a_missing_asset_names_who_needs_it_and_the_commands(tmp_path):
    address = "https://example.org/"
    asset = Asset(name="w", file="w.bin", urls=(f"{address}w",), sha256="ab" * 32, gated=f"{address}terms")
    with pytest.raises(MissingAsset) as caught:
        make_store(tmp_path, asset).find("w", needed_by="geneval")
    text = str(caught.value)
    for part in ("geneval needs 'w'", "abababab", "harness assets pull w", "harness assets import w FILE", "terms"):
        assert part in text


def test_an_asset_nobody_offers_tells_how_to_make_it(tmp_path):
    asset = Asset(name="w", file="w.bin", note="Make it: gear data digits --out DIR")
    with pytest.raises(MissingAsset, match="gear data digits") as caught:
        make_store(tmp_path, asset).find("w")
    assert "--asset w=PATH" in str(caught.value) and "pull" not in str(caught.value)


def test_the_first_file_of_an_unlisted_digest_holds_from_then_on(tmp_path, file):
    asset = Asset(name="w", file="w.bin")
    store = make_store(tmp_path, asset)
    path = store.bring(asset, file)
    assert store.find("w").digest == sha256_file(file)
    path.write_bytes(b"something else")
    with pytest.raises(MissingAsset, match="has sha256"):
        store.find("w")


def test_an_override_takes_the_place_of_the_listed_file(tmp_path, file):
    asset = Asset(name="w", file="w.bin", sha256="0" * 64)
    found = make_store(tmp_path, asset, w=file).find("w")
    assert found.overridden and found.path == file and found.digest == sha256_file(file)


# --- the list --------------------------------------------------------------------------------------------------------


def write_list(root: Path, benchmark: str, text: str) -> None:
    (root / benchmark).mkdir()
    (root / benchmark / "assets.yaml").write_text(text)


def test_lists_are_merged_and_users_joined(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    write_list(tmp_path, "a", "- {name: w, file: w.bin, hub: org/model, revision: r1, used_by: [a]}")
    write_list(tmp_path, "b", "- {name: w, file: w.bin, hub: org/model, revision: r1, gated: true, used_by: [b]}")
    asset = read_assets(sorted(tmp_path.glob("*/assets.yaml")))["w"]
    assert asset.used_by == ("a", "b") and asset.gated == "https://huggingface.co/org/model"
    assert (asset.hub, asset.revision, asset.commercial) == ("org/model", "r1", "ask")


def test_two_lists_that_mean_different_files_are_refused(tmp_path):
    write_list(tmp_path, "a", "- {name: w, file: w.bin}")
    write_list(tmp_path, "b", "- {name: w, file: other.bin}")
    with pytest.raises(UserError, match="is a different file in"):
        read_assets(sorted(tmp_path.glob("*/assets.yaml")))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- {name: w}", r"assets\.yaml, asset w: the field 'file' is missing"),
        ("- {file: w}", r"assets\.yaml: the field 'name' is missing"),
        ("- {name: w, file: ../w}", "the path 'w/../w' has an empty, '.' or '..' part"),
        ("just text", r"assets\.yaml: is not a list of assets"),
        ("- just text", r"assets\.yaml: 'just text' is not an asset"),
        ("- {name: w, file: a, extra: 1}", r"assets\.yaml, asset w has no field 'extra'"),
        ("- {name: w, file: a, sha256: abc}", "asset w: sha256 must be text that is a sha256"),
        ("- {name: w, file: a, size: -1}", "asset w: size must be a whole number of at least 0"),
        ("- {name: w, file: a, urls: [3]}", r"asset w: urls\.0 must be text"),
        ("- {name: w, file: a, hub: ''}", "asset w: hub must be text that is not empty"),
        ("- {name: w, file: a, gated: [1]}", "asset w: gated must be true or false or text"),
        ("- {name: w, file: a, commercial: perhaps}", "asset w: commercial is 'perhaps'; choose one of yes, no, ask"),
    ],
)
def test_a_broken_list_is_an_error_that_names_the_file(tmp_path, text: str, sentence: str):
    write_list(tmp_path, "a", text)
    with pytest.raises(UserError, match=sentence):
        read_assets(sorted(tmp_path.glob("*/assets.yaml")))


def test_a_file_known_by_its_git_id_or_the_beginning_of_its_digest_is_checked_when_it_comes_in(tmp_path):
    file = tmp_path / "table.csv"
    file.write_bytes(b"a,b\n1,2\n")
    git_id = "9f4a5a4a2f8a4c4bd9f3e2bb9a35cbf3d5cb53b3"
    assert len(git_blob_id(file)) == 40
    for known in ({"git_blob": git_id}, {"sha256_prefix": "00000000"}):
        asset = Asset(name="table", file="table.csv", **known)
        store = AssetStore(tmp_path / "store", {"table": asset}, DigestMemo(tmp_path / "memo"))
        with pytest.raises(MissingAsset, match="was not accepted"):
            store.bring(asset, file)
    right = Asset(name="table", file="table.csv", git_blob=git_blob_id(file), sha256_prefix=sha256_file(file)[:8])
    store = AssetStore(tmp_path / "store", {"table": right}, DigestMemo(tmp_path / "memo"))
    assert store.bring(right, file).read_bytes() == file.read_bytes()


def test_the_git_id_is_what_git_says(tmp_path):
    file = tmp_path / "empty"
    file.write_bytes(b"")
    assert git_blob_id(file) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # the id of the empty file, everywhere


def test_another_file_than_the_first_is_taken_in_only_where_that_is_meant(tmp_path, file):
    asset, other = Asset(name="w", file="w.bin"), tmp_path / "other.bin"
    other.write_bytes(b"another")
    store = make_store(tmp_path, asset)
    path = store.bring(asset, file)
    with pytest.raises(MissingAsset, match=r"the first 'w' had .* add --replace"):
        store.bring(asset, other)
    assert path.read_bytes() == CONTENT and store.find("w").digest == sha256_file(file)
    path.unlink()  # what holds is the digest that was recorded, not the file that happens to lie there
    with pytest.raises(MissingAsset, match="add --replace"):
        store.bring(asset, other)
    store.bring(asset, other, replace=True)
    assert store.find("w").digest == sha256_file(other)


def test_replacing_does_not_overrule_a_listed_digest(tmp_path, file):
    asset = Asset(name="w", file="w.bin", sha256="0" * 64)
    with pytest.raises(MissingAsset, match="listed is"):
        make_store(tmp_path, asset).bring(asset, file, replace=True)


def test_a_file_in_the_store_is_not_read_again_because_a_step_linked_it(tmp_path, file, monkeypatch):
    """The venv runtime links assets into the folder of each step that reads them."""
    asset = Asset(name="w", file="w.bin")
    store = make_store(tmp_path, asset)
    path = store.bring(asset, file)
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    digest = store.find("w").digest
    monkeypatch.setattr("harness.store.digests.sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    os.link(path, tmp_path / "in")
    assert store.find("w").digest == digest
    (tmp_path / "in").unlink()
    assert store.find("w").digest == digest


def test_a_file_whose_name_ends_in_its_digest_is_checked_against_it(monkeypatch):
    """As PyTorch names weights: `name-<first eight digits of the sha256>.pth`."""
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    listed = read_assets(find_project().asset_files()).values()
    names = {asset.name: re.search(r"-([0-9a-f]{8})\.pth$", (*asset.urls, asset.file)[0]) for asset in listed}
    wanted = {name: match[1] for name, match in names.items() if match}
    assert {"fid-inception", "mask2former-swin-s"} <= set(wanted)
    assert {asset.name: asset.sha256_prefix for asset in listed if asset.name in wanted} == wanted


def test_several_missing_assets_are_one_table_and_one_command(tmp_path):
    listed = {
        name: Asset(
            name=name,
            file=f"{name}.bin",
            urls=(f"https://example.org/{name}",),
            licence="MIT",
            size=5,
            used_by=("geneval",),
        )
        for name in ("a", "b", "c", "d")
    }
    listed["model"] = Asset(name="model", file="model.pt", hub="owner/name")
    listed["own"] = Asset(name="own", file="own.npz", note="Make it yourself.")
    store = AssetStore(tmp_path / "assets", listed, DigestMemo(tmp_path / "memo"))
    with pytest.raises(MissingAsset) as caught:
        store.require([*((name, "geneval") for name in listed), ("a", "dpg")])
    lines = str(caught.value).splitlines()
    assert lines[0] == "6 assets are missing:"
    assert lines[1].split() == ["a", "geneval,", "dpg", "5", "bytes", "MIT", "commercial", "use:", "ask"]
    # A model is on no benchmark's list, so it is named.
    assert "Fetch them:  harness assets pull model --benchmark geneval" in lines
    assert "own cannot be downloaded. Make it yourself." in lines and "For one run:  --asset own=PATH" in lines
    with pytest.raises(MissingAsset, match="harness assets pull a b"):
        store.require([("a", "x"), ("b", "x")])


def test_a_text_that_differs_in_its_last_newline_only_is_the_listed_one(tmp_path):
    """GenEval's own object_names.txt ends with a newline, and GEAR's copy does not."""
    listed, given = b"person\nbicycle\n", b"person\nbicycle"
    asset = Asset(name="names", file="names.txt", sha256=hashlib.sha256(listed).hexdigest())
    (file := tmp_path / "given.txt").write_bytes(given)
    store = make_store(tmp_path, asset)
    assert store.bring(asset, file).read_bytes() == listed
    assert make_store(tmp_path, asset, names=file).find("names").digest == asset.sha256
    file.write_bytes(b"person\n\nbicycle\n")
    with pytest.raises(MissingAsset, match="not accepted"):
        store.bring(asset, file)


def test_every_listed_asset_says_whether_commercial_use_is_allowed_and_most_can_be_fetched(monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    files = find_project().asset_files()
    assert sum(path.read_text(encoding="utf-8").count("\n  commercial: ") for path in files) == sum(
        path.read_text(encoding="utf-8").count("- name: ") for path in files
    )
    by_hand = {asset.name for asset in read_assets(files).values() if not (asset.urls or asset.hub)}
    assert by_hand == {"demo-digits", "imagenet-val"}


def test_files_that_their_library_wrote_for_their_owner_alone_can_be_read_in_the_store(tmp_path):
    """A step may run as another user than the one who fetched them."""
    (file := tmp_path / "given.bin").write_bytes(b"weights")
    file.chmod(0o600)
    asset = Asset(name="weights", file="weights.bin")
    store = make_store(tmp_path, asset)
    store.root.mkdir(parents=True, exist_ok=True)
    store.bring(asset, file)
    brought = store.own_path(asset)
    brought.chmod(0o600)
    store.admit(asset, brought.rename(brought.with_name(".partial")), source="test", replace=True)
    assert brought.stat().st_mode & 0o004
