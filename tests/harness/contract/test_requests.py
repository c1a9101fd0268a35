import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract.digest import canonical_json, digest_json
from harness.contract.errors import BadSamples, UserError
from harness.contract.requests import (
    NUM_SEEDS,
    Prompt,
    Request,
    RequestSet,
    SamplingProtocol,
    class_requests,
    image_seed,
    prompt_requests,
)

NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5)
JSON_VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def request_sets(draw):
    protocol = SamplingProtocol(
        image_size=draw(st.integers(1, 1024)),
        cfg_scale=draw(st.floats(0, 20)),
        cfg_interval=draw(st.integers(-1, 300)),
        temperature=draw(st.floats(0.01, 5)),
        top_k=draw(st.integers(0, 16384)),
        top_p=draw(st.floats(0.01, 1)),
    )
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique_by=str.casefold))
    by_label = draw(st.booleans())
    requests = [
        Request(
            id=f"b/{name}",
            seed=draw(st.integers(0, NUM_SEEDS - 1)),
            path=f"{name}.png",
            label=draw(st.integers(0, 999)) if by_label else None,
            prompt=None if by_label else draw(st.text(st.characters(exclude_categories=["Cs"]))),
            meta=draw(st.dictionaries(NAMES, JSON_VALUES, max_size=2)),
        )
        for name in names
    ]
    return RequestSet(benchmark="b", version=draw(st.integers(0, 9)), protocol=protocol, requests=requests)


@settings(max_examples=40, deadline=None)
@given(request_sets())
def test_what_is_written_is_read_back(tmp_path_factory, requests):
    folder = tmp_path_factory.mktemp("requests")
    requests.write(folder)
    again = RequestSet.read(folder)
    assert list(again) == list(requests)
    assert (again.benchmark, again.version, again.protocol) == (requests.benchmark, requests.version, requests.protocol)
    assert again.digest == requests.digest


def test_the_digest_is_the_documented_one(class_set):
    head = ["adm", 1, vars(class_set.protocol)]
    lines = [canonical_json(head), *(canonical_json(request.to_row()) for request in class_set)]
    assert class_set.digest == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def test_everything_that_decides_what_is_drawn_is_in_the_digest(class_set):
    changed = [
        class_requests("adm2", 1, class_set.protocol, count=10, num_classes=4),
        class_requests("adm", 2, class_set.protocol, count=10, num_classes=4),
        class_requests("adm", 1, class_set.protocol, count=10, num_classes=4, run_seed=1),
        class_requests("adm", 1, class_set.protocol, count=10, num_classes=4, labels="balanced"),
        class_set.with_protocol(cfg_scale=2.0),
        class_set.limit(9),
    ]
    assert len({class_set.digest, *(requests.digest for requests in changed)}) == 7


def test_one_and_one_point_zero_are_the_same_protocol(class_set):
    assert class_set.with_protocol(cfg_scale=1, top_p=1).digest == class_set.digest


# --- seeds -----------------------------------------------------------------------------------------------------------


@given(st.integers(), NAMES, NAMES, st.integers(0, 99))
def test_a_seed_is_64_bits_and_depends_on_every_part(run_seed, benchmark, item, repeat):
    seed = image_seed(run_seed, benchmark, item, repeat)
    assert 0 <= seed < NUM_SEEDS
    assert seed == image_seed(run_seed, benchmark, item, repeat)
    others = [(run_seed + 1, benchmark, item, repeat), (run_seed, benchmark + "x", item, repeat),
              (run_seed, benchmark, item + "x", repeat), (run_seed, benchmark, item, repeat + 1)]  # fmt: skip
    assert seed not in {image_seed(*other) for other in others}


def test_a_known_seed_never_changes():
    """Seeds are part of published results: this value must survive every refactoring."""
    assert image_seed(0, "adm", "0") == int(digest_json([0, "adm", "0", 0])[:16], 16) == 7993405567843002781


def test_a_limit_keeps_the_first_requests_as_they_are(class_set):
    assert list(class_set.limit(3)) == list(class_set)[:3]
    assert list(class_set.limit(99)) == list(class_set)
    with pytest.raises(UserError, match="at least 1"):
        class_set.limit(0)


def test_a_longer_set_begins_with_the_shorter_one(class_set):
    longer = class_requests("adm", 1, class_set.protocol, count=20, num_classes=4)
    assert list(longer.limit(10)) == list(class_set)


# --- builders --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 12))
def test_balanced_labels_are_as_even_as_they_can_be(count, num_classes):
    requests = class_requests(
        "b", 1, SamplingProtocol(image_size=8), count=count, num_classes=num_classes, labels="balanced"
    )
    counts = Counter(requests.labels)
    assert set(counts) <= set(range(num_classes))
    assert max(counts.values()) - min(counts[label] for label in range(num_classes)) <= 1


def test_random_labels_are_uniform_and_not_a_function_of_the_seed():
    requests = class_requests("b", 1, SamplingProtocol(image_size=8), count=4000, num_classes=4)
    assert all(abs(count - 1000) < 150 for count in Counter(requests.labels).values())
    assert any(request.label != request.seed % 4 for request in requests)


def test_prompts_are_repeated_in_a_row_at_the_paths_of_the_layout(prompt_set):
    assert [request.id for request in prompt_set][:3] == ["geneval/00000/0", "geneval/00000/1", "geneval/00001/0"]
    assert prompt_set[3].path == "00001/samples/0001.png"
    assert prompt_set[3].prompt == "a photo of 1 Füchse"
    assert prompt_set[3].meta == {"tag": "counting"}
    assert prompt_set.labels is None
    assert not prompt_set.is_class_conditional


def test_a_layout_that_gives_two_images_one_path_is_refused():
    with pytest.raises(UserError, match=r"the path '0\.png' of 'b/x/1' is also that of 'b/x/0'"):
        prompt_requests(
            "b",
            1,
            SamplingProtocol(image_size=8),
            prompts=[Prompt(item="x", text="t")],
            repeats=2,
            layout="{index}.png",
        )


@pytest.mark.parametrize("layout", ["{name}.png", "{", "{item:05d}.png", "{}.png", "{item.x}.png"])
def test_a_layout_that_cannot_be_filled_in_is_refused(layout):
    with pytest.raises(UserError, match=r"layout .* cannot be filled in .*use {item}, {index} and {repeat}"):
        prompt_requests("b", 1, SamplingProtocol(image_size=8), prompts=[Prompt(item="x", text="t")], layout=layout)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (class_requests, {"count": 0, "num_classes": 1}),
        (class_requests, {"count": 1, "num_classes": 0}),
        (class_requests, {"count": 1, "num_classes": 1, "labels": "even"}),
        (prompt_requests, {"prompts": [], "repeats": 1}),
        (prompt_requests, {"prompts": [Prompt(item="x", text="t")], "repeats": 0}),
    ],
)
def test_nonsense_is_refused_by_the_builders(kind, arguments):
    with pytest.raises(UserError):
        kind("b", 1, SamplingProtocol(image_size=8), **arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 0}, {"image_size": 100_000}, {"cfg_scale": -1}, {"cfg_scale": float("nan")},
        {"cfg_interval": float("inf")}, {"temperature": 0}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5},
    ],
)  # fmt: skip
def test_a_protocol_refuses_nonsense(changes):
    with pytest.raises(UserError, match=f"protocol: {next(iter(changes))}"):
        SamplingProtocol(**{"image_size": 8, **changes})


# --- sets that contradict themselves ---------------------------------------------------------------------------------


def request(**changes):
    return Request(**{"id": "a", "seed": 1, "path": "a.png", "label": 3, **changes})


CONTRADICTIONS = {
    "an id twice": ([request(), request(path="b.png")], "id 'a' occurs twice"),
    "a path twice": ([request(), request(id="b")], "make paths unique"),
    "paths that differ in case": ([request(), request(id="b", path="A.png")], "make paths unique"),
    "an image as a folder": ([request(), request(id="b", path="a.png/b.png")], "lies inside 'a.png'"),
    "no requests": ([], "has no requests"),
    "labels and prompts": (
        [request(), request(id="b", path="b.png", label=None, prompt="t")],
        "mixes labels with prompts",
    ),
    "label and prompt at once": ([request(prompt="t")], "exactly one"),
    "neither label nor prompt": ([request(label=None)], "exactly one"),
    "a negative label": ([request(label=-1)], "label -1 is not within"),
    "an absurd label": ([request(label=2**31)], "label 2147483648 is not within"),
    "a negative seed": ([request(seed=-1)], "seed"),
    "a seed beyond 64 bits": ([request(seed=2**64)], "seed"),
    "an empty id": ([request(id="")], "id"),
    "a line break in an id": ([request(id="a\nb")], "id"),
    "an absolute path": ([request(path="/a.png")], "absolute"),
    "a path upwards": ([request(path="../a.png")], r"'\.\.'"),
    "a backslash": ([request(path="a\\b.png")], "backslash"),
    "another suffix": ([request(path="a.jpg")], r"\.png"),
    "a suffix without a name": ([request(path="x/.png")], r"\.png"),
}


@pytest.mark.parametrize(("requests", "sentence"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_requests_that_contradict_themselves_are_refused(requests, sentence):
    with pytest.raises(UserError, match=sentence):
        RequestSet(benchmark="b", version=1, protocol=SamplingProtocol(image_size=8), requests=requests)


# --- files that are not what they should be --------------------------------------------------------------------------


def edit_head(folder, **changes):
    head = json.loads((folder / "requests.json").read_text())
    (folder / "requests.json").write_text(json.dumps({**head, **changes}))


def edit_line(folder, number, **changes):
    lines = (folder / "requests.jsonl").read_text().splitlines()
    row = {**json.loads(lines[number]), **changes}
    lines[number] = json.dumps({key: value for key, value in row.items() if value is not ...})
    (folder / "requests.jsonl").write_text("\n".join(lines) + "\n")


DAMAGED_HEADS = {
    "another kind of file": ({"format": "sample-set"}, "a different kind of file"),
    "a version from the future": ({"schema_version": 2}, "schema_version 2 is not the 1"),
    "a version that is no number": ({"schema_version": "1"}, "schema_version"),
    "no benchmark": ({"benchmark": ""}, "benchmark"),
    "a benchmark that is no text": ({"benchmark": 7}, "benchmark"),
    "another benchmark": ({"benchmark": "other"}, "does not have the digest"),
    "too many announced": ({"count": 11}, "holds 10 requests where requests.json says 11"),
    "a count that is true": ({"count": True}, "count"),
    "no digest": ({"digest": "abc"}, "digest"),
    "an unknown field": ({"extra": 1}, "has no field 'extra'"),
    "a protocol that is no object": ({"protocol": [1]}, "protocol"),
    "a protocol without a size": ({"protocol": {}}, "image_size"),
    "a protocol with an unknown field": ({"protocol": {"image_size": 8, "cfg": 1}}, r"has no field 'protocol\.cfg'"),
    "a protocol out of range": ({"protocol": {"image_size": 8, "top_p": 2}}, "top_p"),
    "a flag for a number": ({"protocol": {"image_size": 8, "top_k": False}}, "top_k"),
    "a number as text": ({"protocol": {"image_size": 8, "cfg_scale": "2"}}, "cfg_scale must be a number, not '2'"),
    "a number beyond all floats": ({"protocol": {"image_size": 8, "cfg_scale": 10**400}}, "cfg_scale"),
}


@pytest.mark.parametrize(("changes", "sentence"), DAMAGED_HEADS.values(), ids=DAMAGED_HEADS.keys())
def test_a_damaged_head_is_refused_by_name(tmp_path, class_set, changes, sentence):
    class_set.write(tmp_path)
    edit_head(tmp_path, **changes)
    with pytest.raises(BadSamples, match=rf"requests\.json.*{sentence}|{sentence}.*requests\.json"):
        RequestSet.read(tmp_path, error=BadSamples)


DAMAGED_LINES = {
    "a seed beyond 64 bits": ({"seed": 2**64}, "seed"),
    "a negative seed": ({"seed": -1}, "seed"),
    "a seed that is a float": ({"seed": 1.0}, "seed"),
    "no seed": ({"seed": ...}, "'seed' is missing"),
    "both conditions": ({"prompt": "t"}, "exactly one"),
    "no condition": ({"label": ...}, "exactly one"),
    "a label that is text": ({"label": "3"}, "label"),
    "a prompt that is no text": ({"label": ..., "prompt": 5}, "prompt"),
    "a path upwards": ({"path": "../../etc/x.png"}, r"'\.\.'"),
    "an absolute path": ({"path": "/etc/x.png"}, "absolute"),
    "a backslash": ({"path": "a\\x.png"}, "backslash"),
    "meta that is no object": ({"meta": "x"}, "meta"),
    "an unknown field": ({"lable": 3}, "has no field 'lable'; did you mean 'label'"),
}


def test_an_empty_prompt_is_a_prompt(tmp_path):
    """Published lists have missing captions, which are empty strings there."""
    prompts = [Prompt(item="a", text=""), Prompt(item="b", text="two cats")]
    prompt_requests("gpic", 1, SamplingProtocol(image_size=8), prompts=prompts).write(tmp_path)
    assert [request.prompt for request in RequestSet.read(tmp_path)] == ["", "two cats"]


@pytest.mark.parametrize(("changes", "sentence"), DAMAGED_LINES.values(), ids=DAMAGED_LINES.keys())
def test_a_damaged_line_is_refused_by_number(tmp_path, class_set, changes, sentence):
    class_set.write(tmp_path)
    edit_line(tmp_path, 4, **changes)
    with pytest.raises(UserError, match=rf"requests\.jsonl, line 5.*{sentence}"):
        RequestSet.read(tmp_path)


@pytest.mark.parametrize("changes", [{"id": "adm/000000"}, {"path": "000000.png"}, {"seed": 5}, {"label": 77}])
def test_an_edited_line_is_refused_by_digest_or_uniqueness(tmp_path, class_set, changes):
    class_set.write(tmp_path)
    edit_line(tmp_path, 4, **changes)
    with pytest.raises(UserError, match=r"requests\.jsonl: "):
        RequestSet.read(tmp_path)


def test_missing_files_are_named(tmp_path, class_set):
    with pytest.raises(UserError, match=r"requests\.json: is missing, so this is not a request set"):
        RequestSet.read(tmp_path)
    class_set.write(tmp_path)
    (tmp_path / "requests.jsonl").unlink()
    with pytest.raises(UserError, match=r"requests\.jsonl: cannot be read"):
        RequestSet.read(tmp_path)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_goes_unnoticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("requests")
    requests = class_requests("b", 1, SamplingProtocol(image_size=8), count=2, num_classes=3)
    requests.write(folder)
    path = folder / data.draw(st.sampled_from(["requests.json", "requests.jsonl"]))
    text = bytearray(path.read_bytes())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(text))
    try:
        again = RequestSet.read(folder)
    except UserError:
        return
    assert again.digest == requests.digest
    assert list(again) == list(requests)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"top_k": 1.5}, "top_k is 1.5, which is not a whole number"),
        ({"image_size": 256.5}, "image_size is 256.5, which is not a whole number"),
        ({"image_size": "256"}, "image_size is '256', which is not a whole number"),
        ({"top_k": True}, "top_k is True"),
        ({"cfg_scale": "abc"}, "cfg_scale is 'abc', which is not a finite number"),
        ({"cfg_scale": None}, "cfg_scale is None"),
        ({"top_p": float("nan")}, "top_p is nan"),
    ],
)
def test_a_protocol_of_other_things_than_numbers_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        SamplingProtocol(**{"image_size": 8, **changes})


def test_a_protocol_is_the_same_however_its_numbers_are_written():
    one, other = (
        SamplingProtocol(image_size=8, cfg_scale=2, top_k=5),
        SamplingProtocol(image_size=8.0, cfg_scale="2e0", top_k=5.0),
    )
    assert digest_json(vars(one)) == digest_json(vars(other))


@pytest.mark.parametrize(
    ("prompt", "meta"), [("\ud800", {}), ("cow", {"a": "\udcff"}), ("cow", {"a": float("nan")}), ("cow", {"a": {1, 2}})]
)
def test_a_prompt_or_meta_that_no_file_can_hold_is_refused_before_anything_is_written(tmp_path, prompt, meta):
    request = Request(id="x/0/0", seed=1, path="a.png", prompt=prompt, meta=meta)
    requests = RequestSet(benchmark="x", version=1, protocol=SamplingProtocol(image_size=8), requests=[request])
    with pytest.raises(UserError, match=r"'x/0/0' cannot be written as JSON in UTF-8 .*correct its prompt or meta"):
        requests.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
