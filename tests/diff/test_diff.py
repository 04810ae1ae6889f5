"""`diff` by hand: one small change after another, and the cause that each must get."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fruit
from labelled import BY_TEXT, candidate, pair, select_by_text, unseen, write_i2e
from openmofi.cli import app, main
from openmofi.config import SelectSettings
from openmofi.diff import diff
from openmofi.diff.causes import MEANINGS, Cause
from openmofi.diff.matching import _match
from openmofi.errors import InputError, MismatchError
from openmofi.kb import build_kb
from openmofi.schema import CHANGES
from openmofi.select import select


def two(tmp_path, one, other, **run):
    """Selects by text from two jobs with these rows; `run` differs in the second."""
    made = []
    for name, rows in (("a", one), ("b", other)):
        (tmp_path / name).mkdir()
        i2e = write_i2e(tmp_path / name, rows)
        description = json.loads((i2e / "run.json").read_text()) | {"input": "here", "kb": "old"}
        description |= run if name == "b" else {}
        (i2e / "run.json").write_text(json.dumps(description))
        made.append(i2e)
    return made


def found(one, other, tmp_path):
    """Returns {(key, kind): (cause, reason)}."""
    table = tmp_path / "changes.parquet"
    diff(one, other, table=table)
    rows = pq.read_table(table)
    assert rows.schema.equals(CHANGES)
    return {(r["key"], r["kind"]): (r["cause"], r["reason"]) for r in rows.to_pylist()}


def again(tmp_path, rows, **second):
    """Selects twice from one job, the second time with other settings."""
    i2e = write_i2e(tmp_path, rows)
    one = select_by_text(i2e, name="a") if "name" in second else select_by_text(i2e)
    other = select(i2e, name="b", settings=SelectSettings(**(BY_TEXT | second)))
    return found(one.out, other.out, tmp_path)


def test_a_selection_compared_with_itself_has_no_changes(tmp_path):
    i2e = write_i2e(tmp_path, [pair("a", candidate("red", z=2)), pair("b")])
    out = select_by_text(i2e).out
    summary = diff(out, out)
    assert (summary.changes, summary.causes, summary.kept) == (0, {}, 1)


def test_a_label_below_the_new_threshold_is_lost_to_it(tmp_path):
    rows = [pair("sure", candidate("red", z=9)), pair("unsure", candidate("red", z=2))]
    changes = again(tmp_path, rows, threshold=5.0)
    assert changes == {("unsure", "lost"): ("threshold", "picture_disagrees")}


def test_labels_beyond_the_cap_are_lost_to_it(tmp_path):
    rows = [pair(str(i), candidate("red", z=2), image=bytes([i])) for i in range(5)]
    changes = again(tmp_path, rows, max_images=3)
    assert set(changes.values()) == {("cap", "entity_has_enough")}
    assert len(changes) == 2


def test_copies_and_rare_entities_and_crowds_and_types_have_their_own_causes(tmp_path):
    catalogue = fruit.CATALOGUE.replace("weight\n", "weight,type\n")
    catalogue = catalogue.replace(",1\n", ",1,pome\n").replace(",2\n", ",2,other\n")
    both = candidate("red", z=3, text=0.9), candidate("lime", z=3, text=0.5, start=9)
    rows = [pair(str(i), candidate("red", z=3), image=bytes([i])) for i in range(3)]
    rows += [pair("copy", candidate("red", z=3, text=0.3), image=bytes([0]))]
    rows += [pair("crowded", *both), pair("denied", candidate("green", z=3))]
    i2e = write_i2e(tmp_path, rows, catalogue=catalogue.replace(",3\n", ",3,red\n"))
    one = select_by_text(i2e, duplicates="keep").out
    for changed, lost in (
        ({"duplicates": "exact"}, {"copy": "duplicate"}),
        ({"max_entities": 1}, {"crowded": "max_entities"}),
        ({"deny_types": ("pome",)}, {"denied": "denied_type"}),
        ({"min_images": 2}, {"crowded": "min_images", "denied": "min_images"}),
    ):
        chosen = SelectSettings(**(BY_TEXT | {"duplicates": "keep"} | changed))
        other = select(i2e, name="b", settings=chosen).out
        changes = found(one, other, tmp_path)
        assert {key: cause for (key, _), (cause, _) in changes.items()} == lost
        assert {kind for _, kind in changes} == {"lost"}
        back = found(other, one, tmp_path)
        assert {key: cause for (key, _), (cause, _) in back.items()} == lost
        assert {kind for _, kind in back} == {"gained"}


def test_text_and_excluded_images_are_causes(tmp_path):
    data = fruit.photo("red", 1, side=64)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/x.jpg").write_bytes(data)
    rows = [
        pair("written", candidate("red", z=2), text=0.9, image=b"1"),
        pair("known", candidate("red", z=2), image=data, text=0.0),
        pair("kept", candidate("red", z=2), image=b"2", text=0.0),
    ]
    changes = again(tmp_path, rows, max_text_area=0.5, exclude=(str(tmp_path / "test"),))
    assert changes == {
        ("written", "lost"): ("text_area", "text_in_picture"),
        ("known", "lost"): ("exclusion", "evaluation_duplicate"),
    }


def test_another_order_of_decision_changes_labels_by_its_weights(tmp_path):
    rows = [pair("a", candidate("red", text=0.6, z=1.0), candidate("green", text=0.4, z=9.0))]
    i2e = write_i2e(tmp_path, rows)
    one = select_by_text(i2e, threshold=0.5).out
    other = select(i2e, name="j", settings=SelectSettings(threshold=0.5, min_images=1)).out
    assert found(one, other, tmp_path) == {("a", "changed"): ("weights", "not_chosen")}


def test_another_encoder_is_the_cause_where_it_sees_something_else(tmp_path):
    seen = [candidate("red", z=3, clip=0.3)], [candidate("red", z=-3, clip=0.1)]
    jobs = two(tmp_path, [pair("a", *seen[0]), pair("z", *seen[0])],
               [pair("a", *seen[1]), pair("z", *seen[0])], model_sha256="new")  # fmt: skip
    one, other = (select_by_text(job).out for job in jobs)
    assert found(one, other, tmp_path) == {("a", "lost"): ("encoder", "picture_disagrees")}


def test_a_candidate_that_the_knowledge_base_has_gained_changes_the_label(tmp_path):
    old, new = candidate("red", z=3, text=0.5), candidate("green", z=3, text=0.9)
    jobs = two(tmp_path, [pair("a", old)], [pair("a", new, old)], kb="new")
    one, other = (select_by_text(job).out for job in jobs)
    assert found(one, other, tmp_path) == {("a", "changed"): ("knowledge_base", "not_chosen")}
    assert found(other, one, tmp_path) == {("a", "changed"): ("knowledge_base", "not_a_candidate")}


def test_the_same_candidates_of_another_text_are_the_knowledge_bases_doing(tmp_path):
    old, new = candidate("red", z=3, clip=0.3), candidate("red", z=-3, clip=0.1)
    jobs = two(tmp_path, [pair("a", old), pair("z", old)], [pair("a", new), pair("z", old)],
               kb="new", model_sha256="new")  # fmt: skip
    one, other = (select_by_text(job).out for job in jobs)
    assert found(one, other, tmp_path) == {("a", "lost"): ("encoder", "picture_disagrees")}
    told = json.loads((jobs[1] / "run.json").read_text())
    text = fruit.CATALOGUE.replace("a round red fruit", "a red ball")
    build_kb(fruit.write_catalogue(tmp_path, text), out=told["kb_path"])
    assert found(one, other, tmp_path) == {("a", "lost"): ("knowledge_base", "picture_disagrees")}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda red: [pair("z", red)], "absent"),
        (lambda red: [pair("a", error="corrupt_image"), pair("z", red)], "damaged"),
        (lambda red: [pair("a", caption="nothing"), pair("z", red)], "not_a_candidate"),
    ],
)
def test_another_input_is_the_cause(tmp_path, changed, reason):
    red = candidate("red", z=3)
    jobs = two(tmp_path, [pair("a", red), pair("z", red)], changed(red))
    one, other = (select_by_text(job).out for job in jobs)
    assert found(one, other, tmp_path) == {("a", "lost"): ("input", reason)}
    assert found(other, one, tmp_path) == {("a", "gained"): ("input", reason)}


def test_a_repacked_input_is_recognised_by_keys_captions_and_urls(tmp_path):
    rows = [pair(str(i), candidate("red", z=3, text=i / 40)) for i in range(30)]
    other = [row | {"shard": "elsewhere.tar"} for row in rows[::-1]]
    jobs = two(tmp_path, rows, other)
    one, other = (select_by_text(job).out for job in jobs)
    summary = diff(one, other)
    assert (summary.pairs_in_both, summary.changes, summary.kept) == (30, 0, 30)


def test_rows_that_a_table_only_numbers_are_found_by_their_captions(tmp_path):
    def numbered(order):
        return [
            pair(f"a-{row:09d}", candidate("red", z=3), caption=f"apple {i}")
            | {"path": f"row:{row}"}
            for row, i in enumerate(order)
        ]

    jobs = two(tmp_path, numbered(range(5)), numbered([4, 3, 2, 1, 0, 7]))
    one, other = (select_by_text(job).out for job in jobs)
    summary = diff(one, other)
    # Rows 0 to 4 are in both by their numbers, though with other captions.
    assert (summary.pairs_in_both, summary.pairs_only_after) == (5, 1)


def test_labels_without_a_selection_are_the_best_of_each_mention(tmp_path):
    rows = [pair("a", candidate("red", z=3), candidate("green", z=0)), pair("b", unseen("lime"))]
    new = [pair("a", candidate("red", z=0), candidate("green", z=3)), pair("b", unseen("lime"))]
    for row in new[0]["entities"]:
        row["clip"] = 0.7
    jobs = two(tmp_path, rows, new, model_sha256="new")
    assert found(*jobs, tmp_path) == {("a", "changed"): ("encoder", "not_chosen")}
    summary = diff(*jobs)
    assert (summary.labels_before, summary.labels_after, summary.kept) == (2, 2, 1)


def test_the_same_label_with_another_score_is_no_change(tmp_path):
    jobs = two(tmp_path, [pair("a", candidate("red", z=3, text=0.5))],
               [pair("a", candidate("red", z=3, text=0.6))])  # fmt: skip
    one, other = (select_by_text(job).out for job in jobs)
    summary = diff(one, other)
    assert (summary.changes, summary.kept, summary.kept_with_other_score) == (0, 1, 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_rows_are_matched_by_their_names_the_nth_with_the_nth(one, other):
    first, second = _match(np.array(one, np.uint64), np.array(other, np.uint64))
    nth = [[(x, side[:i].count(x)) for i, x in enumerate(side)] for side in (one, other)]
    slow = [(i, nth[1].index(name)) for i, name in enumerate(nth[0]) if name in nth[1]]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == slow


# ---- the page, and mistakes -----------------------------------------------------------------


@pytest.fixture
def page(tmp_path):
    rows = [pair("a", candidate("red", z=2), caption="<script>apple</script>")]
    rows += [pair("b", candidate("red", z=9)), pair("gone", candidate("lime", z=2))]
    for number, key in enumerate("ab"):
        (tmp_path / f"{key}.jpg").write_bytes(fruit.photo("red", number))
    i2e = write_i2e(tmp_path, rows)
    one = select_by_text(i2e).out
    other = select(i2e, name="b", settings=SelectSettings(**(BY_TEXT | {"threshold": 5.0}))).out
    diff(one, other, out=tmp_path / "new/diff.html")
    return (tmp_path / "new/diff.html").read_text()


def test_the_page_shows_examples_of_each_cause_with_their_images(page):
    section = page.split('<h2 id="threshold">')[1]
    assert section.count('class="card"') == 2
    assert section.count("data:image/jpeg") == 1
    assert "no image<br>image_missing" in section
    assert "<b>Red Apple</b> <code>red</code>" in section
    assert "picture_disagrees" in section


def test_captions_on_the_page_are_text_and_it_loads_nothing(page):
    assert "<script" not in page
    assert "&lt;script&gt;apple" in page
    assert "http" not in page


def test_every_cause_is_explained():
    assert set(MEANINGS) == set(Cause)


def test_a_selection_and_labels_are_not_compared(tmp_path):
    i2e = write_i2e(tmp_path, [pair("a", candidate("red", z=2))])
    out = select_by_text(i2e).out
    for one, other in ((i2e, out), (out, i2e)):
        with pytest.raises(InputError, match=r"is a selection, but .* is the output of `label`"):
            diff(one, other)
    with pytest.raises(InputError, match="neither an output folder"):
        diff(tmp_path / "nowhere", out)
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        diff(out, out, out=tmp_path)


def test_labels_made_again_since_are_named(tmp_path):
    i2e = write_i2e(tmp_path, [pair("a", candidate("red", z=2))])
    out = select_by_text(i2e).out
    next((i2e / "labels").iterdir()).rename(i2e / "labels/other.parquet")
    with pytest.raises(MismatchError, match="was labelled again"):
        diff(out, out)


def test_a_damaged_table_leaves_no_half_written_output(tmp_path, capsys):
    i2e = write_i2e(tmp_path, [pair("a", candidate("red", z=2))])
    out = select_by_text(i2e).out
    shutil.copytree(out, i2e / "select/bad")
    (i2e / "select/bad/keep.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(SystemExit):
        main(["diff", str(out), str(i2e / "select/bad"), "--table", str(tmp_path / "t.parquet")])
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.glob("*t.parquet*"))


def test_the_verb_prints_causes_and_json(tmp_path, capsys):
    rows = [pair("sure", candidate("red", z=9)), pair("unsure", candidate("red", z=2))]
    i2e = write_i2e(tmp_path, rows)
    one = select_by_text(i2e).out
    other = select(i2e, name="b", settings=SelectSettings(**(BY_TEXT | {"threshold": 5.0}))).out
    app(["diff", str(one), str(other)], result_action="return_value")
    said = capsys.readouterr().out
    assert "0 gained, 1 lost, 0 changed, 1 in both" in said
    assert "threshold  1" in said
    assert "next: openmofi diff" in said
    app(["diff", str(one), str(other), "--json"], result_action="return_value")
    assert json.loads(capsys.readouterr().out)["causes"]["threshold"]["lost"] == 1


def test_a_large_selection_is_read_in_any_row_groups(tmp_path):
    rows = [pair(str(i), candidate("red", z=2 + i % 7), image=bytes([i])) for i in range(60)]
    i2e = write_i2e(tmp_path, rows[:20], rows[20:45], rows[45:])
    one = select_by_text(i2e, threshold=4.0).out
    other = select(i2e, name="b", settings=SelectSettings(**(BY_TEXT | {"threshold": 6.0}))).out
    expected = found(one, other, tmp_path)
    for name in ("keep", "refused"):
        table = pq.read_table(other / f"{name}.parquet")
        pq.write_table(table, other / f"{name}.parquet", row_group_size=7)
    assert found(one, other, tmp_path) == expected
    assert len(expected) > 10
