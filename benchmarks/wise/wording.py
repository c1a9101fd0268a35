"""What the judge is told: in the published words (`published_text.py`), or in this project's own.

Scores depend on the wording, and only the published one gives numbers that compare with a leaderboard. Ours follows the
outline of the two protocols.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from benchmarks.wise.interface import Options
from benchmarks.wise.published_text import ASSET, read_published
from harness.contract.digest import digest_json
from harness.contract.errors import UserError
from harness.scoring.scorer import Assets

VERIFIED_SYSTEM = (
    "You are a professional auditor of text-to-image systems. You follow the audit protocol to the letter and give no "
    "credit that it does not provide for."
)

VERIFIED_USER = """\
Task: audit one image of the WISE benchmark and return one binary score, nothing else.

What WISE asks: its prompts are implicit. They name their subject through world knowledge (culture, time and place, \
science), and the image must show the thing that is meant. Judge whether it is correct, not whether it is beautiful.

You get two fields.
- PROMPT: what the image generator was given.
- EXPLANATION: what the prompt means. It is the ground truth, and it decides.
Examples:
1. PROMPT "the pastry families share at Mid-Autumn Festival", EXPLANATION "mooncakes": the image must show mooncakes, \
not just any cake.
2. PROMPT "a potted seedling by a window, some days later", EXPLANATION "phototropism: it bends towards the light": \
the stem must visibly bend towards the window.
3. PROMPT "New York when it is noon in London", EXPLANATION "it is 7 a.m. there": the light must be that of early \
morning in New York.

Check, in this order:
1. Is every object there that PROMPT and EXPLANATION require?
2. Is the intended answer shown, and not merely something near it?
3. Are relations, states, numbers and times as they must be?
4. Is the picture clear enough to tell?

Score 1 only if the image is right by both fields and no flaw keeps you from telling. A plain or unusual style is no \
reason to reject it.
Score 0 if any of these holds: the key object is missing; another object stands in its place; the state or process is \
wrong; the relation, place or time is wrong; the prompt's surface is drawn but its meaning is not; the image is too \
broken to tell. If you seriously doubt, score 0.

Answer with exactly one line, one of:
Score: 0
Score: 1

PROMPT: "{prompt}"
EXPLANATION: "{explanation}"

Remember: one line, "Score: 0" or "Score: 1"."""

LEGACY_SYSTEM = "You are a professional auditor of text-to-image systems. You judge strictly and follow the protocol."

LEGACY_USER = """\
Judge one image against its prompt. The prompt refers to its subject through world knowledge; the explanation says \
what is meant.

PROMPT: "{prompt}"
EXPLANATION: "{explanation}"

Give three whole numbers from 0 to 2.
Consistency: 0 the image does not show what the explanation says; 1 it shows a part of it; 2 it shows all of it.
Realism: 0 it breaks physical or perceptual laws; 1 it has small inconsistencies; 2 it could be real.
Aesthetic Quality: 0 poor composition and colour; 1 acceptable; 2 excellent.
Be strict: give 2 only where nothing is missing.

Answer with exactly these three lines:
Consistency: <number>
Realism: <number>
Aesthetic Quality: <number>"""

_TEXTS = {"wise": (VERIFIED_SYSTEM, VERIFIED_USER), "wise_legacy": (LEGACY_SYSTEM, LEGACY_USER)}


@dataclass(frozen=True)
class Wording:
    """What the judge is told about every image."""

    system: str
    user: tuple[str, ...]
    """Literal text and names of places, "prompt" or "explanation", in turn."""

    @classmethod
    def of(cls, system: str, template: str) -> Wording:
        """From a user text with {prompt} and {explanation} in their places; other braces in it are text."""
        return cls(system, tuple(re.split(r"\{(prompt|explanation)\}", template)))

    @property
    def template(self) -> str:
        """The user text with {prompt} and {explanation} in their places."""
        return self.fill_in("{prompt}", "{explanation}")

    @property
    def digest(self) -> str:
        """Of both texts."""
        return digest_json((self.system, self.template))

    def sha256(self) -> dict[str, str]:
        """Of each text in UTF-8, the user's with {prompt} and {explanation} in their places."""
        named = {"system": self.system, "user": self.template}
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in named.items()}

    def fill_in(self, prompt: str, explanation: str) -> str:
        """The user text about one image."""
        values = {"prompt": prompt, "explanation": explanation}
        return "".join(values[piece] if number % 2 else piece for number, piece in enumerate(self.user))


def wording_of(benchmark: str, options: Options, assets: Assets) -> Wording:
    """The wording in force: `system_prompt` and `user_prompt` take the place of its texts.

    Raises:
        MissingAsset: the published text is not there, or cannot be read.
        UserError: there is no published text for this benchmark.
    """
    if options.wording == "own":
        wording = Wording.of(*_TEXTS[benchmark])
    elif benchmark == "wise":
        system, pieces = read_published(assets.file(ASSET))
        wording = Wording(system, tuple(pieces))
    else:
        raise UserError(f"--set {benchmark}.wording=published: no file known here has that text; use wording=own.")
    return Wording(
        wording.system if options.system_prompt is None else options.system_prompt,
        wording.user if options.user_prompt is None else Wording.of("", options.user_prompt).user,
    )
