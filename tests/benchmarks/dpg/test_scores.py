"""Question table, dependencies and the quirks of the original."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dpg.metrics import metrics, score_prompts
from benchmarks.dpg.questions import Item, Question, read_questions
from benchmarks.dpg.scores import MissingParent, apply_dependencies, raw_scores, tile_score
from harness.contract.errors import MissingAsset
from tests.conformance.area_dpg import score_case

HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)


def table(folder: Path, *rows: str) -> Path:
    path = folder / "dpg_bench.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def row(item: str, number: int, parents: str = "0", category: str = "entity - whole (a, b)") -> str:
    return f'{item},t,k,{number},"{parents}",x,y,"{category}",Is {number} there?'


def item(*parents: tuple[int, ...]) -> Item:
    return Item(tuple(Question(number=n, text="?", parents=p, category="global") for n, p in enumerate(parents, 1)))


def test_the_first_row_is_not_asked_and_an_item_that_comes_again_replaces_the_earlier_one(tmp_path: Path) -> None:
    path = table(tmp_path, row("a", 1), row("a", 2, "1, 3"), row("b", 1), row("a", 7))
    found = read_questions(path)
    assert [q.number for q in found["a"].questions] == [7] and list(found) == ["a", "b"]
    assert [q.number for q in read_questions(table(tmp_path, row("a", 1), row("a", 2))).get("a").questions] == [2]
    everything = read_questions(table(tmp_path, row("a", 1), row("a", 2, "1, 3")), skip_first_row=False)
    assert [q.parents for q in everything["a"].questions] == [(), (1, 3)]


def test_categories_are_what_stands_before_the_bracket_and_before_the_dash(tmp_path: Path) -> None:
    path = table(tmp_path, row("a", 1), row("a", 2, "0", " relation - non-spatial (x)"), row("a", 3, "0", "global (x)"))
    found = read_questions(path)["a"].questions
    assert [(q.category, q.broad_category) for q in found] == [
        ("relation - non-spatial", "relation"),
        ("global", "global"),
    ]


def test_a_number_that_comes_again_has_its_last_row_in_its_first_place(tmp_path: Path) -> None:
    again = 'a,t,k,2,"3",x,y,"global (z)",Is it there after all?'
    path = table(tmp_path, row("a", 1), row("a", 2, "1"), row("a", 3), again)
    two, three = read_questions(path)["a"].questions
    assert (two.number, two.text, two.parents, two.category) == (2, "Is it there after all?", (3,), "global")
    assert three.number == 3


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = table(tmp_path, row("a", 1), row("a", 2))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_questions(path)["a"].questions) == 1


def test_only_the_exact_word_yes_counts() -> None:
    assert raw_scores(item((), (), (), ()), ["yes", "Yes", "yes ", "no"]) == {1: 1, 2: 0, 3: 0, 4: 0}


def test_a_parent_that_comes_later_has_not_been_zeroed_yet() -> None:
    chain = item((), (1,), (2,))
    assert apply_dependencies(chain, {1: 0.0, 2: 1.0, 3: 1.0}) == {1: 0, 2: 0, 3: 0}
    backwards = item((2,), (3,), ())
    assert apply_dependencies(backwards, {1: 1.0, 2: 1.0, 3: 0.0}) == {1: 1, 2: 0, 3: 0}


def test_a_parent_that_is_not_asked_drops_the_item_unless_it_is_forgiven() -> None:
    orphan = item((9,), ())
    with pytest.raises(MissingParent):
        tile_score(orphan, ["yes", "no"])
    assert tile_score(orphan, ["yes", "no"], lenient=True) == 0.5


def test_a_tile_without_answers_leaves_the_others_their_weight_and_counts_nowhere() -> None:
    items = {"a": item((), ()), "b": item(())}
    rows = [
        {"key": "a", "tile": 0, "answers": {"1": "yes", "2": "yes"}},
        {"key": "a", "tile": 3, "answers": {"1": "no", "2": "yes"}},
        {"key": "b", "tile": 1, "answers": {"1": "no"}},
    ]
    scored = score_prompts(rows, items)
    assert [prompt.mean for prompt in scored.prompts] == [0.75, 0.0]
    found = {(metric.name, metric.category): metric for metric in metrics(scored, scored)}
    assert found["dpg", None].value == 37.5 and found["dpg", None].n == 2
    assert found["category_score", "global"].value == pytest.approx(100 / 3)  # the last tile alone


def test_a_prompt_of_which_nothing_is_asked_is_dropped_and_not_lost() -> None:
    rows = [{"key": key, "tile": 0, "answers": {"1": "yes"}} for key in ("only-the-first-row", "b")]
    assert score_prompts(rows, {"b": item(())}).dropped == ["only-the-first-row"]


def test_the_checker_counts_the_lines_of_every_tile_until_the_original_fails() -> None:
    """A parent without a yes ends the look at a question's parents, so a later tile may be the first to fail."""
    questions = (
        Question(number=2, text="first", parents=(), category="global"),
        Question(number=3, text="second", parents=(2, 1), category="global"),
    )
    tiles = [{"first": answer, "second": "yes"} for answer in ("no", "no", "yes", "yes")]
    case = {"image_names": ["a"], "answers": {"a": tiles}}
    assert score_case(case, {"a": Item(questions)}) == ([], ["a"], 6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "question table"),
        ("item_id\na\n", "proposition_id"),
        (HEADER + "\na,t,k,x,0,b,c,d (e),f\n" * 2, "row 3"),
        (f"{HEADER}\n{'a,t,k,1,0,b,c,d (e),f'}\na,t,k\n", "row 3"),
        (f"{HEADER}\n{'a,t,k,1,0,b,c,d (e),f'}\na,t,k,2,0\n", "row 3.*no category"),
    ],
)
def test_a_file_that_is_no_question_table_is_named_with_the_command(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(MissingAsset, match=sentence) as caught:
        read_questions(path)
    assert "harness assets pull dpg-questions" in str(caught.value)
