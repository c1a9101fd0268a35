"""What others wrote is kept and shown without secrets and without control characters."""

from __future__ import annotations

import json
import shlex

import pytest

from harness.contract.shown import conceal, printable, shell_line, without_secrets

KEY = "sk-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    (tmp_path / "id_rsa").touch()
    variables = {
        "HARNESS_JUDGE_API_KEY": "k3y-5",
        "OPENAI_API_KEY": KEY,
        "GITHUB_TOKEN": "ghp_abcdefgh",
        "DB_PASSWORD": "a(b+c)*[d]",
        "https_proxy": "http://user:p%40ssw0rd@proxy:3128",
        "DEPLOY_KEY": str(tmp_path / "id_rsa"),
        "USE_TOKEN": "1",
        "KEYBOARD": "qwertyuiop",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"Bearer {KEY}, again {KEY}", "Bearer [secret], again [secret]"),
        ("k3y-5", "[secret]"),
        ("x=a(b+c)*[d];", "x=[secret];"),
        ("407 from http://user:p%40ssw0rd@proxy:3128", "407 from http://[secret]@proxy:3128"),
        ("the password p@ssw0rd, or p%40ssw0rd", "the password [secret], or [secret]"),
        ("git+https://me:other@host/x", "git+https://[secret]@host/x"),
        ("ssh://git@host, a@b.c, http://h:80/x@y", "ssh://git@host, a@b.c, http://h:80/x@y"),
        ("1 qwertyuiop", "1 qwertyuiop"),
    ],
)
def test_secrets_are_replaced_and_nothing_else_is(text, kept):
    assert without_secrets(text) == kept


def test_the_path_of_a_key_is_no_secret(tmp_path):
    assert without_secrets(str(tmp_path / "id_rsa")) == str(tmp_path / "id_rsa")


def test_secrets_are_replaced_at_any_depth():
    value = {"a": [f"x {KEY}", 3, None, {KEY: (KEY,)}]}
    assert KEY not in json.dumps(conceal(value)) and conceal({"a": 1.5}) == {"a": 1.5}


def test_a_shown_command_line_can_be_copied_and_has_no_secret_in_it():
    line = shell_line(["env", "-i", "OPENAI_API_KEY=$OPENAI_API_KEY", "A=$B", f"--key={KEY}", "a b"])
    assert line == """env -i OPENAI_API_KEY="$OPENAI_API_KEY" 'A=$B' --key=[secret] 'a b'"""
    assert shlex.split(line)[2] == "OPENAI_API_KEY=$OPENAI_API_KEY"


@pytest.mark.parametrize("code", [0, 7, 8, 0x1B, 0x7F, 0x9B, 0x85, 0x202E, 0x2066, 0x200F, 0x2028])
def test_characters_that_act_on_a_terminal_are_written_out(code):
    assert printable(f"a{chr(code)}[2Jb") == f"a\\u{code:04x}[2Jb"
    text = json.dumps({"x": f"a{chr(code)}"}, ensure_ascii=False)
    assert json.loads(printable(text)) == json.loads(text)


def test_plain_text_of_any_script_stays():
    text = "two lines\nand\ttabs, ✓ é 文 שלום 🙂"
    assert printable(text) == text
