"""The published text is taken from a program as its own f-string would show it; no other program is guessed at."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from benchmarks.wise.interface import Options
from benchmarks.wise.judge import messages
from benchmarks.wise.wording import Wording, wording_of
from harness.contract.errors import MissingAsset
from harness.scoring.scorer import Assets

CHECK_ASSETS = Path(__file__).parents[3] / "benchmarks/wise/check/assets"
SYSTEM = '"You look at " "pictures."'
P, E = "{prompt_data['Prompt']}", "{prompt_data['Explanation']}"
USER = f'f"""Prompt: {P}\nMeaning: {E}"""'
IMAGE = '{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_base64}"}}'
TEXT_PART = f'{{"type": "text", "text": {USER}}}'
SYSTEM_MESSAGE = f'{{"role": "system", "content": [{{"type": "text", "text": {SYSTEM}}}]}}'


def program(
    user: str = USER,
    *,
    system: str = SYSTEM,
    image: str = IMAGE,
    returned: str = "",
    before: str = "pass",
    name: str = "build_evaluation_messages",
) -> str:
    system_message = f'{{"role": "system", "content": [{{"type": "text", "text": {system}}}]}}'
    user_message = f'{{"role": "user", "content": [{{"type": "text", "text": {user}}}, {image}]}}'
    value = returned or f"[{system_message}, {user_message}]"
    return f"def {name}(prompt_data, image_base64):\n    {before}\n    return {value}\n"


def read(folder: Path, content: str | bytes) -> Wording:
    file = folder / "wise-judge-text" / "step2.py"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return wording_of("wise", Options(), Assets(folder))


def said_by(content: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """What the program itself makes of a prompt; only these, which are our own, are run."""
    names: dict[str, Any] = {}
    exec(content, names)
    made: list[dict[str, Any]] = names["build_evaluation_messages"](row, "iVBORw==")
    return made


TEXTS = {
    "triple quotes": USER,
    "implicit concatenation": f"""("A " f"{P}" ' {{not a place}} ' f"{E}" "!")""",
    "braces": f'f"{{{{prompt}}}} {{{{{P}}}}} {{{{}}}} }}}}{{{{ {E}{{{{explanation}}}}"',
    "the other order": f'f"{E}{P}"',
    "nothing between": f'f"{P}{E}"',
    "continued lines": f'f"""\\\none \\\ntwo {P}\\t\\N{{BULLET}}\\u00e9\\x41 {E}"""',
    "raw": f'rf"\\d {P} {E}\\n"',
    "other letters": f'f"画像 {P} é😀 {E}"',
    "double quotes": USER.replace("['", '["').replace("']", '"]'),
}
VALUES = list(itertools.product(("a {b} {{c}}", "{prompt}\n'\"", ""), ("{explanation}", "\\n é")))


@pytest.mark.parametrize("user", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(("prompt", "explanation"), VALUES)
def test_the_judge_is_told_what_the_program_says(tmp_path: Path, user: str, prompt: str, explanation: str) -> None:
    wording = read(tmp_path, program(user))
    said = said_by(program(user), {"Prompt": prompt, "Explanation": explanation})
    assert messages(bytes.fromhex("89504e47"), wording.system, wording.fill_in(prompt, explanation)) == said


PROGRAMS = {
    "in a class": "class Judge:"
    + ("\n" + program()).replace("\n", "\n    ").rstrip().replace("\n    Meaning", "\nMeaning"),
    "with functions inside": program(before="def other(): return 1\n    class Other: pass\n    x = lambda: 2"),
    "that cannot be run": "import no_such_module\nassert False\n" + program(),
    "with types": program().replace("image_base64)", "image_base64: str) -> list[dict]"),
    "of a coroutine": "async " + program(),
    "with odd escapes": program() + "OTHER = '\\d'\n",
    "with the line ends of Windows": program().replace("\n", "\r\n"),
    "with a mark": "\ufeff" + program(),
}


@pytest.mark.parametrize("content", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.filterwarnings("error")
def test_what_stands_around_the_text_does_not_matter(tmp_path: Path, content: str) -> None:
    wording = read(tmp_path, content)
    assert wording.system == "You look at pictures."
    assert wording.template == "Prompt: {prompt}\nMeaning: {explanation}"


def test_nothing_of_the_program_is_executed(tmp_path: Path) -> None:
    read(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n" + program())
    assert not (tmp_path / "ran").exists()


NOT_PLAIN, LENGTH_2 = "not plainly prompt_data", "not a list literal of length 2"
BAD = {
    "a conversion": (program(f'f"{P[:-1]}!r}} {E}"'), NOT_PLAIN),
    "a conversion to text": (program(f'f"{P[:-1]}!s}} {E}"'), NOT_PLAIN),
    "a format": (program(f'f"{P[:-1]}:>9}} {E}"'), NOT_PLAIN),
    "a named field": (program(f'f"{P[:-1]}=}} {E}"'), NOT_PLAIN),
    "another field": (program(f"f\"{P} {{prompt_data['Category']}}\""), NOT_PLAIN),
    "an extra field": (program(f'f"{P} {E} {{image_base64}}"'), NOT_PLAIN),
    "a call": (program(f'f"{P[:-1]}.strip()}} {E}"'), NOT_PLAIN),
    "a field of another": (program(f'f"{P} {E}"'.replace("prompt_data", "row")), NOT_PLAIN),
    "a field twice": (program(f'f"{P} {P}"'), "not exactly the fields"),
    "three fields": (program(f'f"{P} {E} {E}"'), "not exactly the fields"),
    "one field": (program(f'f"{P}"'), "not exactly the fields"),
    "no f-string": (program("'Prompt, Explanation'"), "no f-string"),
    "a text that is computed": (program(f"({USER}).strip()"), "no f-string"),
    "a system text with a field": (program(system='f"{image_base64}"'), "not plain text"),
    "a system text of bytes": (program(system='b"You"'), "what is no text"),
    "a system text that is a number": (program(system="1"), "what is no text"),
    "half a character": (program(system=r'"\ud800"'), "what is no text"),
    "the image first": (
        program(returned=f'[{SYSTEM_MESSAGE}, {{"role": "user", "content": [{IMAGE}, {TEXT_PART}]}}]'),
        "not a literal of type 'image_url'",
    ),
    "no image": (program(image=""), LENGTH_2),
    "two images": (program(image=f"{IMAGE}, {IMAGE}"), LENGTH_2),
    "unpacked parts": (program(image="*images"), "not a literal of type 'image_url'"),
    "the user first": (program().replace('"system"', '"user"', 1), "not a literal of role 'system'"),
    "one more key": (program().replace('"role": "user"', '"role": "user", "name": "x"'), "not a literal of role"),
    "a key twice": (program().replace('"role": "user"', '"role": "user", "role": "user"'), "not a literal of role"),
    "unpacked messages": (program(returned="[{**a}, {**b}]"), "not a literal of role"),
    "one message": (program(returned='[{"role": "system"}]'), LENGTH_2),
    "a name": (program(returned="messages"), LENGTH_2),
    "a call of it": (program(returned="list(x)"), LENGTH_2),
    "no return": (program().replace("return", "x ="), "returns something in 0 places"),
    "two returns": (program(before="if image_base64: return []"), "returns something in 2 places"),
    "another name": (program(name="other"), "0 times"),
    "the name twice": (program() + program(), "2 times"),
    "the name inside itself": (program(before="def build_evaluation_messages(): pass"), "2 times"),
    "no Python": ("def build(:", "line 1"),
    "an open string": (program(USER[:-3]), "line 3"),
    "many parentheses": ("(" * 3000 + ")" * 3000, "nested"),
    "many signs": ("x = " + "-" * 100_000 + "1", "nested too deeply"),
    "a long chain": ("x = a" + ".b" * 100_000, "nested too deeply"),
    "a long number": ("x = " + "9" * 9000, "line 1"),
    "another encoding": (program().encode().replace(b"pictures", "Größe".encode("latin-1")), "line 3: is not UTF-8"),
    "a NUL": (program() + "\0", "NUL"),
    "nothing at all": ("", "0 times"),
    "a page of a server": ("<!DOCTYPE html><html></html>", "line 1"),
    "a picture": (bytes.fromhex("89504e470d0a1a0a"), "is not UTF-8"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_a_file_without_such_a_text_is_one_sentence_with_the_fix(
    tmp_path: Path, content: str | bytes, reason: str
) -> None:
    with pytest.raises(MissingAsset, match=reason) as caught:
        read(tmp_path, content)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/wise-judge-text/step2.py: ") and "\n" not in said and len(said) < 500
    assert "harness assets pull wise-judge-text" in said and "--set wise.wording=own" in said


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    read(tmp_path, program())
    with (tmp_path / "wise-judge-text" / "step2.py").open("ab") as file:
        file.truncate(200 << 20)
    with pytest.raises(MissingAsset, match="more than 256 KiB"):
        wording_of("wise", Options(), Assets(tmp_path))


def test_a_folder_without_the_file_names_the_asset(tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match="harness assets pull wise-judge-text"):
        wording_of("wise", Options(), Assets(tmp_path))


def test_the_gold_check_brings_a_text_of_its_own() -> None:
    said = wording_of("wise", Options(), Assets(CHECK_ASSETS)).fill_in("<p>", "<e>")
    assert 'PROMPT: "<p>"' in said and 'EXPLANATION: "<e>"' in said and "{other}" in said
