from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from harness.contract.errors import BadSamples, UserError
from harness.contract.fields import Digest, Text, Within, build, field_types


@dataclass(frozen=True, kw_only=True)
class Lens:
    length_mm: float
    stops: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.length_mm <= 0:
            raise ValueError(f"length_mm is {self.length_mm}, which is not above 0.")


@dataclass(frozen=True, kw_only=True)
class Sensor:
    side: Annotated[int, Within(1, 100)]

    def __post_init__(self) -> None:
        if self.side == 13:
            raise UserError("camera.sensor.side is 13; choose another.")


class Family:
    """A base class that reads its own values."""

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Family:
        if "name" not in values:
            raise ValueError("there is no name")
        return Family(values["name"])


@dataclass(frozen=True, kw_only=True)
class Camera:
    name: Text
    sha256: Digest | None = None
    on: bool = True
    shots: Annotated[int, Within(0)] = 0
    iso: int | None = None
    mode: Literal["auto", "manual"] = "auto"
    lens: Lens | Sensor | None = None
    lenses: dict[str, Lens] = field(default_factory=dict)
    box: tuple[float, float] = (0.0, 0.0)
    tags: Sequence[str] = ()
    note: bool | str | None = None
    family: Family | None = None
    state: Literal["new", "old"] | str = "new"
    anything: Any = None
    seen: int = field(default=7, init=False)


def read(**values: Any) -> Camera:
    return build(Camera, {"name": "a", **values}, "camera.json")


def test_plain_values_become_what_the_types_say() -> None:
    camera = read(
        shots=3,
        iso=None,
        lens={"length_mm": 50, "stops": [2, 4.0]},
        lenses={"wide": {"length_mm": 24.0}},
        box=[1, 2.5],
        tags=["x"],
        note="n",
        state="a state of tomorrow",
        anything={"a": [1, None]},
    )
    assert camera.lens == Lens(length_mm=50.0, stops=(2.0, 4.0)) and isinstance(camera.lens.length_mm, float)
    assert camera.lenses == {"wide": Lens(length_mm=24.0)}
    assert camera.box == (1.0, 2.5) and camera.tags == ["x"] and camera.note == "n" and camera.seen == 7
    assert camera.state == "a state of tomorrow" and camera.anything == {"a": [1, None]}


def test_of_several_sections_the_one_with_these_fields_is_read() -> None:
    assert read(lens={"side": 4}).lens == Sensor(side=4)


def test_a_class_that_reads_its_own_values_is_asked() -> None:
    family = read(family={"name": "vq"}).family
    assert family is not None and family.name == "vq"


WRONG = {
    "a misspelt field": ({"shotz": 3}, "camera.json has no field 'shotz'; did you mean 'shots'?"),
    "a field that the program sets": ({"seen": 3}, "camera.json has no field 'seen'; this section has: name, sha256, "),
    "a name that is no text": ({3: 3}, "camera.json has no field '3'; this section has: name, sha256, "),
    "a number for text": ({"name": 3}, "camera.json: name must be text, not 3."),
    "an empty text": ({"name": ""}, "camera.json: name must be text that is not empty, not ''."),
    "half a digest": (
        {"sha256": "ab"},
        "camera.json: sha256 must be text that is a sha256 (64 lower-case hexadecimal digits)",
    ),
    "a number for a flag": ({"on": 1}, "camera.json: on must be true or false, not 1."),
    "a flag for a number": ({"shots": True}, "camera.json: shots must be a whole number, not True."),
    "a float for a whole number": ({"shots": 3.0}, "camera.json: shots must be a whole number, not 3.0."),
    "a number too low": ({"shots": -1}, "camera.json: shots must be a whole number of at least 0, not -1."),
    "null": ({"shots": None}, "camera.json: shots must be a whole number, not None."),
    "a wrong optional": ({"iso": "x"}, "camera.json: iso must be a whole number, not 'x'."),
    "no such choice": ({"mode": "off"}, "camera.json: mode is 'off'; choose one of auto, manual."),
    "a list for a choice": ({"mode": ["auto"]}, "camera.json: mode is ['auto']; choose one of auto, manual."),
    "no section": ({"lens": 3}, "camera.json: lens must be a section with fields, not 3."),
    "an unknown field inside": ({"lens": {"length_mm": 1, "top": 2}}, "camera.json has no field 'lens.top'; did you m"),
    "a field missing inside": ({"lens": {}}, "camera.json: the field 'lens.length_mm' is missing; add it."),
    "a wrong item": (
        {"lens": {"length_mm": 1, "stops": [1, "2"]}},
        "camera.json: lens.stops.1 must be a number, not '2'.",
    ),
    "a wrong value of a mapping": (
        {"lenses": {"wide": {"length_mm": "24"}}},
        "camera.json: lenses.wide.length_mm must be a number, not '24'.",
    ),
    "a list for a mapping": ({"lenses": []}, "camera.json: lenses must be a section with fields, not []."),
    "a list too short": ({"box": [1]}, "camera.json: box must be a list of 2, not [1]."),
    "text for a list": ({"tags": "xy"}, "camera.json: tags must be a list, not 'xy'."),
    "none of a union": ({"note": 3}, "camera.json: note must be true or false or text, not 3."),
    "NaN": ({"box": [0, float("nan")]}, "camera.json: box.1 must be a finite number, not nan."),
    "beyond float": ({"box": [0, 10**400]}, "camera.json: box.1 must be a finite number, not 1000"),
    "refused by a class": (
        {"lens": {"length_mm": -1}},
        "camera.json: lens: length_mm is -1.0, which is not above 0.",
    ),
    "refused by a class that names itself": (
        {"lens": {"side": 13}},
        "camera.json: camera.sensor.side is 13; choose another.",
    ),
    "beyond a bound": (
        {"lens": {"side": 100}},
        "camera.json: lens.side must be a whole number from 1 to below 100, not 100.",
    ),
    "refused by a class that reads itself": ({"family": {}}, "camera.json: family: there is no name."),
}


@pytest.mark.parametrize(("values", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_one_sentence_with_file_and_field(values: dict[Any, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        build(Camera, {"name": "a", **values}, "camera.json")
    assert str(caught.value).startswith(sentence)


def test_a_missing_field_and_a_list_for_the_whole_are_refused() -> None:
    with pytest.raises(UserError, match=r"^camera\.json: the field 'name' is missing; add it\.$"):
        build(Camera, {}, "camera.json")
    with pytest.raises(UserError, match=r"^camera\.json must be a section with fields, not \[\]\.$"):
        build(Camera, [], "camera.json")


def test_the_caller_chooses_the_error_and_says_which_section_it_reads() -> None:
    with pytest.raises(BadSamples, match=r"^line 3: a\.lens\.length_mm must be a number, not 'x'\.$"):
        build(Camera, {"name": "a", "lens": {"length_mm": "x"}}, "line 3", error=BadSamples, path="a")
    with pytest.raises(BadSamples, match=r"^line 3: a must be a section with fields, not None\.$"):
        build(Camera, None, "line 3", error=BadSamples, path="a")


class Even:
    """A limit of one's own."""

    def holds(self, value: int) -> bool:
        return value % 2 == 0

    def __str__(self) -> str:
        return "that is even"


@dataclass(frozen=True, kw_only=True)
class Pair:
    count: Annotated[int, Within(0), Even()] = 0
    names: Annotated[list[str], Within(2, 4)] = field(default_factory=list)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": 3}, "pair: count must be a whole number that is even, not 3."),
        ({"count": -2}, "pair: count must be a whole number of at least 0, not -2."),
        ({"names": ["a"]}, "pair: names must be a list with a length from 2 to below 4, not ['a']."),
    ],
)
def test_anything_that_holds_or_not_is_a_limit(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        build(Pair, values, "pair")
    assert str(caught.value) == sentence
    assert build(Pair, {"count": 4, "names": ["a", "b"]}, "pair") == Pair(count=4, names=["a", "b"])


def test_a_long_value_is_cut_in_messages() -> None:
    with pytest.raises(UserError) as caught:
        read(shots="x" * 500)
    assert len(str(caught.value)) < 150


def test_the_types_of_fields_are_those_that_can_be_given() -> None:
    assert list(field_types(Lens)) == ["length_mm", "stops"] and "seen" not in field_types(Camera)
