"""What a crawl taught reaches `link`, `label` and `evaluate linking` by one option."""

import json

import pyarrow.parquet as pq
import pytest

import fruit
from conftest import write_tar
from openmofi.cli import app
from openmofi.config import LabelSettings
from openmofi.errors import MismatchError
from openmofi.label import label
from openmofi.shards import committed_files
from shop import captions_of_shop, make_shop_kb

TITLES = [pair for pair in captions_of_shop(1, 200) if pair[1][0] == "b"][:40]


def run(line):
    app(line, exit_on_error=False, result_action="return_value")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A knowledge base, captions, their priors and those of too few captions, and pairs."""
    folder = tmp_path_factory.mktemp("world")
    make_shop_kb(folder)
    texts = [text for text, _ in captions_of_shop(0)]
    (folder / "captions.txt").write_text("\n".join(texts))
    (folder / "few.txt").write_text("\n".join(texts[:50]))
    for name in ("captions", "few"):
        run(f"kb count {folder}/{name}.txt --kb {folder}/kb --priors {folder}/{name}.priors")
    run(f"kb count {folder}/captions.txt --kb {folder}/kb")
    photo = fruit.photo("red")
    members = {f"{i:03d}.jpg": photo for i in range(len(TITLES))}
    members |= {f"{i:03d}.txt": text.encode() for i, (text, _) in enumerate(TITLES)}
    write_tar(folder / "pairs.tar", members)
    return folder


def labelled(world, out, **settings):
    settings = LabelSettings(workers=1, **settings)
    label(world / "pairs.tar", kb=world / "kb", out=out, settings=settings)
    return [row for file in committed_files(out) for row in pq.read_table(file).to_pylist()]


def best(rows):
    return [max(row["entities"], key=lambda one: one["text_score"])["id"] for row in rows]


def test_kb_count_says_what_moved(world, capsys):
    run(f"kb count {world}/captions.txt --kb {world}/kb --priors {world}/again.priors")
    out = capsys.readouterr().out
    assert "animal" in out
    assert "b-Puma" in out
    assert f"--priors {world}/again.priors" in out
    assert (world / "again.priors").read_bytes() == (world / "captions.priors").read_bytes()


def test_kb_count_says_why_nothing_is_learnt(world, capsys):
    run(f"kb count {world}/few.txt --kb {world}/kb --priors {world}/few.priors")
    assert "changes nothing: there are" in capsys.readouterr().out


def test_link_takes_priors(world, capsys):
    run(f'link "Puma men black shoes 7" --kb {world}/kb --priors {world}/captions.priors --json')
    [found] = json.loads(capsys.readouterr().out)
    assert found["id"] == "b-Puma"
    assert found["type"] is not None


def test_evaluate_linking_takes_priors(world, capsys):
    lines = [
        {"sentence": text, "mentions": [id_[2:]], "entities": [id_[2:]], "answer": [id_]}
        for text, id_ in TITLES
    ]
    (world / "mel.jsonl").write_text("\n".join(map(json.dumps, lines)))
    accuracy = []
    for more in ("", f" --priors {world}/captions.priors"):
        run(f"evaluate linking --kb {world}/kb --data {world}/mel.jsonl --json{more}")
        accuracy += [json.loads(capsys.readouterr().out)[0]["accuracy"]]
    assert accuracy[0] < 0.6
    assert accuracy[1] == 1


def test_labels_follow_the_crawl(world, tmp_path):
    truth = [id_ for _, id_ in TITLES]
    before = best(labelled(world, tmp_path / "before"))
    after = best(labelled(world, tmp_path / "after", priors=str(world / "captions.priors")))
    assert before != truth
    assert after == truth


def test_every_label_keeps_the_prior_before_and_after(world, tmp_path):
    before = labelled(world, tmp_path / "before")
    after = labelled(world, tmp_path / "after", priors=str(world / "captions.priors"))
    moved = 0
    for old, new in zip(before, after, strict=True):
        priors = {one["id"]: one["prior"] for one in old["entities"]}
        assert {one["id"]: one["kb_prior"] for one in new["entities"]} == priors
        moved += any(one["prior"] != one["kb_prior"] for one in new["entities"])
    assert moved > 10


def test_priors_that_change_nothing_give_the_same_bytes_and_say_so(world, tmp_path, capsys):
    labelled(world, tmp_path / "plain")
    labelled(world, tmp_path / "few", priors=str(world / "few.priors"))
    assert "changes nothing: there are" in capsys.readouterr().err
    [plain], [few] = committed_files(tmp_path / "plain"), committed_files(tmp_path / "few")
    assert plain.read_bytes() == few.read_bytes()


def test_a_job_is_not_continued_with_other_priors(world, tmp_path):
    labelled(world, tmp_path / "o", priors=str(world / "captions.priors"))
    with pytest.raises(MismatchError, match="priors"):
        labelled(world, tmp_path / "o", priors=str(world / "few.priors"))
    with pytest.raises(MismatchError, match="priors"):
        labelled(world, tmp_path / "o")
