"""The command line as a user meets it: mistakes are one sentence, damage is counted."""

import errno
import json
import shlex
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from conftest import jpeg, write_tar
from openmofi import search
from openmofi.cli import app, main

VERBS = """
    kb build | kb query | kb show | kb stats | kb count | kb fit | link | label | status |
    select | inspect | diff | review queue | review answer | review preview | review apply |
    review undo | review list | review merge | review missing | audit |
    export | train | caption | reinforce | pair | adapt | compile |
    embed | evaluate | evaluate linking | evaluate attack | evaluate oven | evaluate compare |
    index | index add | index delete | index compact | index map | index calibrate |
    index export |
    search | tag | tag calibrate | serve | demo | info
"""
VERBS = [" ".join(verb.split()) for verb in VERBS.split("|")]
# Those of fruit.GOOD and `whole`, and once more the `whole` of the tar that is cut short.
NUM_GOOD = len(fruit.GOOD) + 2
RECIPE = """
loss: {supervised: 0, text: [caption], mask_same_entity: false}
model: {image_size: 32, vocab_size: 300}
steps: 2
batch_size: 4
threads: 1
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory, nano_dir):
    """Everything that the verbs make, once, by the verbs themselves."""
    folder = tmp_path_factory.mktemp("world")
    fruit.write_catalogue(folder)
    fruit.write_pairs(folder / "pairs")
    fruit.write_listing(folder / "photos")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "model").symlink_to(nano_dir)
    for line in (
        "kb build {w}/fruit.csv --out {w}/kb",
        "kb build {w}/fruit.csv --out {w}/kb-counted",
        "label {w}/pairs --kb {w}/kb --model {w}/model --out {w}/i2e --background 16 --workers 1",
        "select {w}/i2e --order caption-match --min-images 1",
        "embed {w}/model {w}/i2e/select/default --out {w}/emb.parquet",
        "index {w}/emb.parquet --out {w}/index",
        "train {w}/recipe.yaml --data {w}/pairs --out {w}/run",
        "evaluate {w}/model --data a={w}/photos/test.csv --out {w}/scores",
    ):
        app(line.format(w=folder).split(), exit_on_error=False, result_action="return_value")
    mel = {"sentence": "an apple a day", "mentions": "apple", "entities": "", "answer": "red"}
    (folder / "mel.jsonl").write_text(f"{json.dumps(mel)}\n" * 120)
    (folder / "few.jsonl").write_text(json.dumps(mel))
    oven = {"data_id": "oven_entity_val_1", "entity_id": "Q89", "data_split": "val_seen"}
    (folder / "oven.jsonl").write_text(json.dumps(oven | {"pred_entity_id": "Q89"}))
    (folder / "captions.txt").write_text("an apple\nApple pie for Anna\n")
    (folder / "empty").mkdir()
    (folder / "noise.bin").write_bytes(b"\0\1\2noise")
    (folder / "noise.parquet").write_bytes(b"PAR1 no PAR1")
    pq.write_table(pa.table({"vector": [1.0]}), folder / "other.parquet")
    (folder / "noise.yaml").write_text("steps: [1, 2")
    (folder / "list.yaml").write_text("- steps")
    (folder / "typo.yaml").write_text("optim: {learning_rat: 1}")
    write_tar(folder / "dark.tar", {"1.jpg": b"", "1.txt": b"apple"})
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "bomb.png").write_bytes(fruit.bomb())
    return folder


@pytest.fixture
def run(world, tmp_path, capsys):
    """Runs a command line in process: (exit code, stdout, stderr)."""

    def run(line: str, *more: str):
        capsys.readouterr()
        arguments = [part.format(w=world, t=tmp_path) for part in line.split()] + [*more]
        try:
            main(arguments)
            code = 0
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run


MISTAKES = [
    ("nonsense", "Unknown command"),
    ("label {w}/pairs", "requires an argument"),
    ("select {w}/i2e --order best", "Choose from"),
    ("select {w}/i2e --min-images many", "unable to convert"),
    ("select {w}/i2e --min-images 0", "expected at least 1"),
    ("select {w}/i2e --false-label-rate 3", "from 0 to 1"),
    ("select {w}/i2e --name ../..", "cannot be called"),
    ("kb build {w}/nowhere.csv --out {t}/kb", "nowhere.csv"),
    ("kb build {w}/noise.bin --out {t}/kb", "noise.bin"),
    ("kb build {w}/fruit.csv --out {w}/photos", "exists and is not a knowledge base"),
    ("kb build {w}/fruit.csv --out {w}/index", "exists and is not a knowledge base"),
    ("kb query apple --kb {w}/empty", "is not a knowledge base"),
    ("kb show Q1 --kb {w}/kb", "no entity 'Q1'"),
    ("kb stats --kb {w}/empty", "is not a knowledge base"),
    ("kb count {w}/nowhere.txt --kb {w}/kb-counted", "nowhere.txt"),
    ("kb count {w}/empty --kb {w}/kb-counted", "holds no image-caption pairs"),
    ("kb fit {w}/few.jsonl --kb {w}/kb --out {t}/w.json", "fitting needs 100"),
    ("kb fit {w}/fruit.csv --kb {w}/kb --out {t}/w.json", "fruit.csv"),
    ("link apple --kb {w}/nowhere", "is not a knowledge base"),
    ("link apple --kb {w}/kb --weights {w}/noise.bin", "does not hold the linker's weights"),
    ("link apple --kb {w}/kb --weights {w}/nowhere", "does not hold the linker's weights"),
    ("link apple --kb {w}/kb --priors {w}/noise.bin", "does not hold the priors of a crawl"),
    ("link apple --kb {w}/kb --priors {w}/nowhere", "does not hold the priors of a crawl"),
    ("label {w}/pairs --kb {w}/kb --out {t}/o --priors {w}/nowhere", "does not hold the priors"),
    ("link apple --kb {w}/kb --max-candidates 31", "from 1 to 30"),
    ("link apple --kb {w}/kb --detector best", "There is no detector 'best'"),
    ("link apple --kb {w}/kb --context ./nowhere", "There is no model directory './nowhere'"),
    ("link apple --kb {w}/kb --context {w}/photos", "has no config.json"),
    ("link apple --kb {w}/kb --context {w}/noise.bin", "There is no model directory"),
    ("kb fit {w}/mel.jsonl --kb {w}/kb --out {t}/w.json --context {w}/empty", "no config.json"),
    ("evaluate linking --kb {w}/kb --data {w}/noise.bin", "noise.bin"),
    ("evaluate linking --kb {w}/empty --data {w}/mel.jsonl", "is not a knowledge base"),
    (
        "evaluate linking --kb {w}/kb --data {w}/mel.jsonl --context {w}/empty",
        "has no config.json",
    ),
    (
        "evaluate linking --kb {w}/kb --data {w}/mel.jsonl --weights {w}/noise.bin",
        "does not hold the linker's weights",
    ),
    ("diff {w}/i2e {w}/i2e/select/default", "is a selection, but"),
    ("diff {w}/i2e {w}/photos", "is neither an output folder"),
    ("diff {w}/i2e {w}/i2e --out s3://bucket/x.html", "is a URL"),
    ("label {w}/nowhere --kb {w}/kb --model {w}/model --out {t}/o", "no input"),
    ("label {w}/empty --kb {w}/kb --model {w}/model --out {t}/o", "holds no image-caption pairs"),
    (
        "label {w}/noise.bin --kb {w}/kb --model {w}/model --out {t}/o",
        "holds no image-caption pairs",
    ),
    ("label {w}/dark.tar --kb {w}/kb --model {w}/model --out {t}/o", "corrupt_image 1"),
    ("label {w}/other.parquet --kb {w}/kb --model {w}/model --out {t}/o", "columns vector"),
    ("label {w}/pairs --kb {w}/empty --model {w}/model --out {t}/o", "not a knowledge base"),
    ("label {w}/pairs --kb {w}/kb --model {w}/empty --out {t}/o", "no config.json"),
    ("label {w}/pairs --kb {w}/kb --model ./nowhere --out {t}/o", "no model directory"),
    ("label {w}/pairs --kb {w}/kb --model {w}/run/model --out {w}/i2e", "was begun with model"),
    ("label {w}/photos --kb {w}/kb --model {w}/model --out {w}/photos/o", "inside the input"),
    ("label {w}/pairs --kb {w}/kb --model {w}/model --out {t}/o --batch-size 0", "at least 1"),
    ("label {w}/pairs --kb {w}/kb --model {w}/model --out {w}/noise.bin", "noise.bin"),
    ("select {w}/empty", "is not an output folder of `openmofi label`"),
    ("select {w}/i2e --min-images 99", "lower --min-images"),
    ("select {w}/i2e --threshold 99", "expected a number between 0 and 1"),
    ("select {w}/i2e --order text-first --threshold 99", "lower --min-images"),
    ("select {w}/i2e --weights {w}/noise.bin", "does not hold weights"),
    ("label {w}/pairs --kb {w}/kb --out {t}/o --retry all", "expected failed, partial"),
    ("label {w}/pairs --kb {w}/kb --out {t}/o --engine spark", "Choose from"),
    ("label {w}/pairs --kb {w}/kb --out {t}/o --context model", "needs an encoder"),
    ("label {w}/pairs --kb {w}/kb --out {t}/o --context ./words", "no model directory './words'"),
    ("label {w}/pairs --kb {w}/kb --out {t}/o --context {w}/empty", "has no config.json"),
    ("label {w}/pairs --kb {w}/kb --out {t}/o --keep-embeddings", "needs an encoder"),
    ("status {w}/empty", "is not an output folder of `openmofi label`"),
    ("export {w}/i2e --out {t}/x", "is not a selection"),
    ("inspect {w}/i2e --name none", "has no selection 'none'"),
    ("audit {w}/i2e", "is not a selection"),
    ("audit {w}/i2e/select/default --checks 0", "at least 1"),
    ("audit {w}/i2e/select/default --by ../x", "--by cannot be '../x'"),
    ("audit {w}/i2e/select/default --confidence 1", "from 0.5 to 0.9999"),
    ("audit {w}/i2e/select/default --verify {w}/nowhere", "nowhere"),
    ("audit {w}/i2e/select/default --verify {w}/mel.jsonl", "is not a certificate"),
    ("audit {w}/i2e/select/default --answers {w}/nowhere.csv", "nowhere.csv"),
    ("audit {w}/i2e/select/default --answers {w}/mel.jsonl", "answer"),
    ("audit {w}/i2e/select/default --page s3://bucket/x.html", "is a URL"),
    ("audit {w}/i2e/select/default --page {t}/x.html --verify {w}/x", "goes with neither"),
    ("train {w}/nowhere.yaml --data {w}/pairs --out {t}/r", "no recipe"),
    ("train {w}/noise.yaml --data {w}/pairs --out {t}/r", "is not YAML"),
    ("train {w}/noise.bin --data {w}/pairs --out {t}/r", "is not YAML"),
    ("train {w}/list.yaml --data {w}/pairs --out {t}/r", "must list settings"),
    ("train {w}/typo.yaml --data {w}/pairs --out {t}/r", "did you mean optim.learning_rate"),
    ("train {w}/recipe.yaml --data {w}/nowhere --out {t}/r", "no input"),
    ("train {w}/recipe.yaml --data {w}/pairs --out {t}/r --set steps", "expects name=value"),
    ("train {w}/recipe.yaml --data {w}/pairs --out {t}/r --set loss.text=[name", "is not YAML"),
    ("train {w}/recipe.yaml --data {w}/pairs --out {t}/r --set a=1 --set a.b=2", "and, in 'a.b'"),
    ("train {w}/recipe.yaml --data {w}/pairs --out {t}/r --set stepz=1", "did you mean steps"),
    ("train {w}/recipe.yaml --data {w}/pairs --out {t}/r --set steps=0", "at least 1"),
    ("train {w}/recipe.yaml --data {w}/pairs --out {t}/r --set batch_size=99", "set batch_size="),
    (
        "train {w}/recipe.yaml --data {w}/pairs --out {t}/r --set loss.supervised=1",
        "needs entities",
    ),
    ("train {w}/recipe.yaml --data {w}/pairs --out {w}/run", "add --resume"),
    ("train {w}/recipe.yaml --data {w}/pairs --out {w}/run --resume --set seed=9", "(seed)"),
    ("compile {w}/model --out {t}/c --int8", "--int8 needs --images"),
    ("compile {w}/model --out {t}/c --int8 --images {w}/photos --sample 1", "at least 100"),
    ("compile {w}/model --out {t}/c --to ncnn", "Choose from"),
    ("compile {w}/model --out {w}/photos", "exists and is not a compiled model"),
    ("embed {w}/model {w}/nowhere --out {t}/e.parquet", "no input"),
    ("embed {w}/model {w}/dark.tar --out {t}/e.parquet", "corrupt_image 1"),
    ("embed {w}/model {w}/other.parquet --out {t}/e.parquet", "columns vector"),
    ("embed {w}/model {w}/photos --out {w}/photos/e.parquet", "inside the input"),
    ("embed {w}/model {w}/photos --out {w}/pairs", "exists and is not an output of `embed`"),
    ("embed {w}/model {w}/photos --out {w}/fruit.csv", "is a file; give a folder"),
    ("embed {w}/model {w}/photos --out {t}/e --retry all", "'retry' cannot be 'all'"),
    ("embed {w}/model {w}/photos --out {t}/e --rank 0", "need --engine rank"),
    ("embed {w}/nowhere {w}/photos --out {t}/e.parquet", "no model directory"),
    ("evaluate {w}/model --data {w}/photos", "NAME=PATH"),
    ("evaluate {w}/model --data a={w}/nowhere", "no evaluation data"),
    ("evaluate {w}/model --data a={w}/empty", "is not evaluation data"),
    ("evaluate {w}/model --data a={w}/mel.jsonl", "has the columns sentence"),
    ("evaluate {w}/model --data a={w}/photos/test.csv --benchmarks nkk", "no benchmark 'nkk'"),
    ("evaluate --data a={w}/photos/test.csv", "either a model or --embeddings"),
    ("evaluate --data a={w}/photos/test.csv --embeddings {w}/noise.bin", "noise.bin"),
    ("evaluate attack {w}/model --data {w}/photos/test.csv --out {w}", "is not empty"),
    ("evaluate attack {w}/model --data {w}/photos/test.csv --out {t}/a --seed -1", "cannot be -1"),
    ("demo --out {t}/d --seed -1", "cannot be -1"),
    ("evaluate {w}/model --data a={w}/photos/test.csv --benchmarks ,", "nothing to measure"),
    ("evaluate {w}/model --data a={w}/photos/test.csv --benchmarks probe", "training images"),
    ("evaluate {w}/model --data a={w}/photos/test.csv --out {w}/fruit.csv", "is a file"),
    ("evaluate {w}/model --data a={w}/photos/test.csv --class-names {w}/bomb.png", "is not UTF-8"),
    ("evaluate attack {w}/model --data {w}/photos/captions.csv --out {t}/a", "with captions"),
    ("evaluate oven {w}/mel.jsonl --truth {w}/oven.jsonl", "line 1: data_id is None"),
    ("evaluate oven {w}/oven.jsonl --truth {w}/nowhere", "There is no"),
    ("evaluate {w}/model --data a={w}/noise.bin", "is not evaluation data"),
    ("evaluate compare --out {t}/c.html", "Nothing to compare"),
    ("evaluate compare {w}/photos --out {t}/c.html", "holds no scores.json"),
    ("evaluate compare {w}/photos a=b/photos --out {t}", "is a folder"),
    ("evaluate compare {w}/photos x/photos --out {t}/c.html", "are called 'photos'"),
    ("evaluate compare {w}/photos --classes 5 --out {t}/c.html", "expects NAME=NUMBER"),
    ("evaluate compare {w}/photos --classes a=5 --out {t}/c.html", "no run 'a'"),
    ("evaluate {w}/model --data a={w}/photos/test.csv --data a={w}/photos", "twice"),
    ("index {w}/nowhere.parquet --out {t}/i", "no file"),
    ("index {w}/noise.parquet --out {t}/i", "not a readable Parquet file"),
    ("index {w}/other.parquet --out {t}/i", "expected a list of numbers"),
    ("index {w}/i2e/select/default/keep.parquet --out {t}/i", "may be vectors"),
    ("index {w}/emb.parquet --out {w}/photos", "exists and is not an index"),
    ("index {w}/emb.parquet --out {w}/kb", "exists and is not an index"),
    ("search {w}/index", "Ask for something"),
    ("search {w}/index --text apple --image {w}/bad.jpg", "Cannot read the image"),
    ("search {w}/index --text apple^-1", "A weight cannot be -1"),
    ("search {w}/index --text apple^5000", "A weight cannot be 5000; expected more than 0"),
    ("search {w}/index --text ^0.5", "nothing to search for"),
    ("index delete {w}/index --id nobody", "no such image"),
    ("index delete {w}/index --row 99999", "no row 99999"),
    ("kb build {w}/fruit.csv --out s3://bucket/kb", "is a URL"),
    ("index {w}/emb.parquet --out=gs://bucket/i", "is a URL"),
    ("inspect {w}/i2e --out s3://bucket/look.html", "is a URL"),
    ("tag {w}/model {w}/photos --kb {w}/kb --out s3://bucket/tags.csv", "is a URL"),
    ("evaluate linking --kb {w}/kb --data {w}/mel.jsonl --out s3://b/x", "is a URL"),
    ("index export {w}/index --to parquet --out s3://b/x.parquet", "is a URL"),
    ("embed {w}/model {w}/photos --out {w}/photos", "lies inside the input"),
    ("label {w}/pairs --kb {w}/kb --out {t}/l --rank 1 --world-size 2", "need --engine rank"),
    ("label {w}/pairs --kb {w}/kb --out {t}/l --engine rank", "finds no rank"),
    ("tag {w}/model {w}/photos --kb {w}/kb --xmp --json", "Choose one of"),
    ("search {w}/index --type banana", "is of the type 'banana'"),
    ("index add {w}/index {w}/nowhere.parquet", "There is no file"),
    ("index delete {w}/index", "Say what to delete"),
    ("index delete {w}/index --entity banana", "labelled 'banana'"),
    ("index map {w}/empty", "is not an index"),
    ("index calibrate {w}/empty", "is not an index"),
    ("index calibrate {w}/index", "too few to learn what absent things look like"),
    ("index calibrate {w}/index --queries {w}/nowhere.csv", "No such file"),
    ("index calibrate {w}/index --queries {w}/fruit.csv", "is not a labelled query"),
    ("index calibrate {w}/index --rate 1", "Setting 'rate' cannot be 1"),
    ("search {w}/index --text apple --absent-rate 0", "cannot be 0"),
    ("index export {w}/index --to parquet --out {w}/fruit.csv", "exists"),
    ("index export {w}/index --to arrow --out {t}/x", "arrow"),
    ("search {w}/index --entity Q1", "labelled 'Q1'"),
    ("search {w}/index --entity Durian --kb {w}/kb", "labelled 'Durian'"),
    ("search {w}/index --image {w}/bad.jpg", "Cannot read the image"),
    ("search {w}/index --image {w}/bomb.png", "Cannot read the image"),
    ("search {w}/index --image {w}/nowhere.jpg", "No such file"),
    ("search {w}/index --text apple --k 0", "at least 1"),
    ("search {w}/empty --text apple", "is not an index"),
    ("serve {w}/empty", "is not an index"),
    ("serve {w}/index --host 0.0.0.0", "pass --token"),
    ("serve {w}/index --port 99999", "choose another --port"),
    ("serve {w}/index --kb {w}/empty", "not a knowledge base"),
    ("serve {w}/index --model {w}/empty/none", "no model directory"),
    ("serve {w}/index --data {w}/empty", "is not a selection"),
    ("serve {w}/index --report {w}/empty", "There is no report"),
    ("tag {w}/model {w}/bad.jpg --kb {w}/kb", "Cannot read the image"),
    ("tag {w}/model {w}/bomb.png --kb {w}/kb", "Cannot read the image"),
    ("tag {w}/model {w}/photos/000.jpg --kb {w}/empty", "not a knowledge base"),
    ("tag {w}/model {w}/photos/000.jpg --kb {w}/kb --k 0", "at least 1"),
    ("tag {w}/model {w}/photos --kb {w}/kb --error-rate 0.1", "openmofi tag calibrate"),
    ("tag {w}/model {w}/empty --kb {w}/kb", "There is no image"),
    ("tag {w}/model {w}/photos --kb {w}/kb --out {t}/x.txt", "neither a .csv nor a .jsonl"),
    ("tag {w}/model {w}/photos --kb {w}/kb --calibration {w}/x", "There is no calibration"),
    ("tag calibrate {w}/model --data {w}/pairs --kb {w}/kb", "pairs"),
    ("tag calibrate some/hub-id --data {w}/photos/test.csv --kb {w}/kb", "is not a directory"),
]


@pytest.mark.parametrize(("line", "part"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_1(run, line, part):
    code, _, err = run(line)
    assert code == 1
    assert part in err
    assert err.startswith("openmofi: ")
    assert err.count("\n") == 1


def test_what_comes_next_can_be_pasted(run, world, tmp_path):
    place = tmp_path / "it's here; $HOME"
    code, out, _ = run("index {w}/emb.parquet --out", str(place))
    assert code == 0
    [line] = [line for line in out.splitlines() if line.startswith("next: ")]
    assert shlex.split(line.removeprefix("next: "))[:3] == ["openmofi", "search", str(place)]


def test_an_interrupted_verb_says_what_to_type(run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("openmofi.search.Index.build", interrupt)
    code, _, err = run("index {w}/emb.parquet --out", "a b")
    assert code == 130
    line = err.splitlines()[-1]
    assert line.startswith("next: openmofi index ")
    assert shlex.split(line)[-1] == "a b"


def test_no_address_becomes_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for verb in ("kb build {w}/fruit.csv", "embed {w}/model {w}/photos", "index {w}/emb.parquet"):
        assert run(f"{verb} --out s3://bucket/x")[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_two_images_share_is_asked_for(run, world, tmp_path):
    for name in "AB":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(fruit.photo("lime", ord(name)))
        assert run(f"embed {{w}}/model {{t}}/{name} --out {{t}}/{name}.parquet")[0] == 0
    assert run("index {t}/A.parquet --out {t}/i")[0] == 0
    assert run("index add {t}/i {t}/B.parquet --json")[0] == 0
    code, _, err = run("index delete {t}/i --id a.jpg")
    assert code == 1
    assert f"row 0 ({tmp_path}/A a.jpg), row 1 ({tmp_path}/B a.jpg)" in err
    code, out, _ = run("index delete {t}/i --row 1 --json")
    assert (code, json.loads(out)["deleted"]) == (0, 1)
    assert run("index delete {t}/i --id a.jpg")[0] == 0  # the other one is gone
    assert len(search.Index.open(tmp_path / "i")) == 0


def test_a_shell_learns_the_verbs(run):
    assert "index" in app.generate_completion(shell="bash")
    assert "--install-completion" in run("--help")[1]


def test_no_mistake_above_harmed_what_was_there(world, run):
    assert run("search {w}/index --text apple")[0] == 0
    assert run("kb query apple --kb {w}/kb")[0] == 0
    assert sorted(path.name for path in (world / "photos").iterdir())[-1] == "test.csv"
    assert len(list((world / "photos").glob("*.jpg"))) == 12


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "No space left on device ('x')"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "Permission denied ('out')"),
        (MemoryError(), "memory is used up"),
        (pa.ArrowInvalid("magic bytes not found"), "magic bytes not found"),
    ],
)
def test_what_the_system_refuses_is_one_sentence_too(run, monkeypatch, error, sentence):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("openmofi.search.Index.build", refuse)
    code, _, err = run("index {w}/emb.parquet --out {t}/i")
    assert (code, err.count("\n")) == (1, 1)
    assert sentence in err


def test_debug_shows_where_it_went_wrong(run, monkeypatch):
    monkeypatch.setenv("OPENMOFI_DEBUG", "1")
    with pytest.raises(OSError, match="noise"):
        run("inspect {w}/i2e --out {w}/noise.bin/x.html")


def test_a_bug_is_not_dressed_up_as_a_mistake(run, monkeypatch):
    monkeypatch.setattr("openmofi.search.Index.build", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("index {w}/emb.parquet --out {t}/i")


@pytest.mark.parametrize(
    "line",
    [
        "kb build {w}/fruit.csv --out {place}",
        "label {w}/pairs --kb {w}/kb --model {w}/model --out {place}",
        "inspect {w}/i2e --out {place}",
        "audit {w}/i2e/select/default --page {place}",
        "diff {w}/i2e {w}/i2e --out {place}",
        "diff {w}/i2e {w}/i2e --table {place}",
        "train {w}/recipe.yaml --data {w}/pairs --out {place}",
        "embed {w}/model {w}/photos --out {place}",
        "evaluate {w}/model --data a={w}/photos/test.csv --out {place}",
        "index {w}/emb.parquet --out {place}",
    ],
)
@pytest.mark.parametrize("place", ["/proc/locked/x", "{w}/noise.bin/x"])
def test_a_place_that_cannot_be_written_is_named(run, line, place):
    code, _, err = run(line.replace("{place}", place))
    assert (code, err.count("\n")) == (1, 1)
    assert "locked" in err or "noise.bin" in err


# ---- damaged data: the good rows come through, the others are counted -----------------------


@pytest.fixture
def damaged(tmp_path):
    """Good and bad samples in one tar, beside two tars that are none and one cut short."""
    folder = tmp_path / "in"
    folder.mkdir()
    whole = write_tar(folder / "damaged.tar", fruit.damaged_members())
    (folder / "garbage.tar").write_bytes(b"garbage" * 500)
    (folder / "void.tar").write_bytes(b"")
    (folder / "cut.tar").write_bytes(whole.read_bytes()[:3000])
    return folder


def test_label_keeps_every_good_row_and_counts_the_others(run, damaged):
    line = "label {t}/in --kb {w}/kb --model {w}/model --out {t}/i2e --background 4 --workers 1"
    code, out, _ = run(line)
    for part in ("corrupt_image 3", "image_too_large 2", "caption_too_long 1", "no_image 1"):
        assert part in out
    assert code == 3  # shards ended early
    for shard, reason in {"garbage": "not_a_tar", "void": "not_a_tar", "cut": "truncated"}.items():
        assert f"shard {shard} ended early: {reason}" in out
    totals = json.loads(run(line + " --json")[1])
    assert totals["rows"] == len(fruit.damaged_keys()) + 1
    assert totals["rows"] - sum(totals["errors"].values()) == NUM_GOOD


def test_select_and_inspect_follow_on_damaged_data(run, damaged, tmp_path):
    run("label {t}/in --kb {w}/kb --model {w}/model --out {t}/i2e --background 4 --workers 1")
    line = "select {t}/i2e --min-images 1 --order caption-match --duplicates keep"
    card = json.loads(run(line + " --json")[1])
    assert card["kept"] + sum(card["refused"].values()) == card["images"]
    assert card["kept"] == NUM_GOOD
    assert run("inspect {t}/i2e --out {t}/new/page.html")[0] == 0
    assert "corrupt_image" in (tmp_path / "new/page.html").read_text()


def test_embed_needs_no_caption_and_counts_what_it_cannot_read(run, damaged, tmp_path):
    code, out, _ = run("embed {w}/model {t}/in --out {t}/e.parquet")
    assert code == 3
    ids = pq.read_table(tmp_path / "e.parquet")["id"].to_pylist()
    assert set(ids) == fruit.damaged_keys() - set(fruit.BAD) - {"alone"}
    for part in ("corrupt_image 3", "image_too_large 2", "no_image 1", "early: not_a_tar"):
        assert part in out


def test_an_unreadable_image_does_not_take_the_others_along(run):
    line = "tag {w}/run/model {w}/photos/000.jpg {w}/bad.jpg {w}/photos/001.jpg --kb {w}/kb --json"
    code, out, err = run(line)
    assert code == 1
    assert [len(found["tags"]) for found in json.loads(out)] == [4, 4]
    assert err.count("\n") == 1
    assert "bad.jpg" in err


def test_evaluate_leaves_unreadable_images_out_and_says_so(run, world, tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(fruit.photo("red", i) if i else b"")
    rows = [f"{i}.jpg,{name}" for i, name in enumerate(("red", "red", "lime", "lime"))]
    (tmp_path / "test.csv").write_text("file,label\n" + "\n".join(rows))
    code, out, _ = run("evaluate {w}/model --data a={t}/test.csv --kb {w}/kb")
    assert code == 0
    assert "a: left out 1 images: corrupt_image 1" in out


def test_one_bad_shard_of_several_does_not_stop_embedding(run, tmp_path):
    (tmp_path / "in").mkdir()
    images = {"caption": ["apple"], "image": [jpeg()]}
    pq.write_table(pa.table(images), tmp_path / "in/a.parquet")
    (tmp_path / "in/b.parquet").write_bytes(b"PAR1")
    code, out, err = run("embed {w}/model {t}/in --out {t}/e.parquet")
    assert (code, "(1 vectors)" in out, "shard b failed: " in out) == (1, True, True)
    assert "1 of 2 shards failed" in err


# ---- what every verb owes ------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(run, verb):
    code, out, _ = run(f"{verb} --help")
    assert code == 0
    assert f"Example: openmofi {verb}" in out


def test_the_list_of_verbs_is_complete(run):
    listed = {verb.split()[0] for verb in VERBS}
    assert {name for name in app if not name.startswith("-")} == listed


JSON_LINES = [
    "kb build {w}/fruit.csv --out {t}/kb --json",
    "kb query apple --kb {w}/kb --json",
    "kb show red --kb {w}/kb --json",
    "kb stats --kb {w}/kb --json",
    "kb count {w}/captions.txt --kb {w}/kb-counted --json",
    "kb count {w}/captions.txt --kb {w}/kb-counted --priors {t}/priors --json",
    "kb fit {w}/mel.jsonl --kb {w}/kb --out {t}/w.json --json",
    "link apple --kb {w}/kb --all-candidates --json",
    "link apple --kb {w}/kb --context {w}/model --all-candidates --json",
    "evaluate linking --kb {w}/kb --data {w}/mel.jsonl --json",
    "label {w}/pairs --kb {w}/kb --model {w}/model --out {w}/i2e --background 16 --json",
    "status {w}/i2e --json",
    "select {w}/i2e --order caption-match --min-images 1 --json",
    "export {w}/i2e/select/default --out {t}/x --json",
    "train {w}/recipe.yaml --data {w}/pairs --out {w}/run --resume --json",
    "embed {w}/model {w}/photos --out {t}/e.parquet --json",
    "evaluate {w}/model --data a={w}/photos/test.csv --json",
    "evaluate attack {w}/model --data {w}/photos/test.csv --out {t}/attacked --json",
    "evaluate oven {w}/oven.jsonl --truth {w}/oven.jsonl --json",
    "evaluate compare {w}/scores b={w}/scores --classes b=9 --out {t}/c.html --json",
    "search {w}/index --text apple --json",
    "index {w}/emb.parquet --out {t}/i --json",
    "index export {w}/index --to parquet --out {t}/x.parquet --json",
    "inspect {w}/i2e --json",
    "audit {w}/i2e/select/default --json",
    "info --json",
    "tag {w}/model {w}/photos/000.jpg --kb {w}/kb --json",
    "tag calibrate {w}/model --data {w}/photos/test.csv --kb {w}/kb --out {t}/c --json",
]


def _no_constant(name: str):
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("line", JSON_LINES)
def test_json_output_is_json_and_nothing_else(run, line):
    code, out, _ = run(line)
    assert code == 0
    assert json.loads(out, parse_constant=_no_constant)


NEXT = [
    ("kb build {w}/fruit.csv --out {t}/kb", "openmofi kb query"),
    ("kb query apple --kb {w}/kb", "openmofi kb show red"),
    ("kb stats --kb {w}/kb", "openmofi link"),
    ("kb count {w}/photos --kb {w}/kb-counted", "openmofi link"),
    ("kb fit {w}/mel.jsonl --kb {w}/kb --out {t}/w.json", "--weights"),
    ("link apple --kb {w}/kb", "--all-candidates"),
    ("evaluate linking --kb {w}/kb --data {w}/mel.jsonl --out {t}", "openmofi link"),
    ("label {w}/pairs --kb {w}/kb --model {w}/model --out {w}/i2e --background 16", "select"),
    ("select {w}/i2e --order caption-match --min-images 1", "openmofi inspect"),
    ("inspect {w}/i2e", "openmofi train"),
    ("audit {w}/i2e/select/default --page {t}/check.html", "--answers answers.jsonl"),
    ("export {w}/i2e/select/default --out {t}/x", "webdataset"),
    ("evaluate {w}/model --data a={w}/photos/test.csv", "openmofi embed"),
    ("embed {w}/model {w}/photos --out {t}/e.parquet", "openmofi index"),
    ("index {w}/emb.parquet --out {t}/i", "openmofi search"),
    (
        "tag calibrate {w}/model --data {w}/photos/test.csv --kb {w}/kb --out {t}/c",
        "openmofi tag",
    ),
]


@pytest.mark.parametrize(("line", "follows"), NEXT)
def test_a_verb_says_what_to_type_next(run, line, follows):
    code, out, _ = run(line)
    assert code == 0
    assert "next: " in out
    assert follows in out.splitlines()[-1]


def test_an_index_is_changed_mapped_and_exported_by_its_verbs(run, world, tmp_path):
    assert run("embed {w}/model {w}/photos --out {t}/more.parquet")[0] == 0
    assert run("index {w}/emb.parquet --out {t}/i")[0] == 0
    before = len(search.Index.open(tmp_path / "i"))
    first = pq.read_table(world / "emb.parquet")["id"][0].as_py()
    for line, count in (
        ("index add {t}/i {t}/more.parquet", before + 12),
        ("index map {t}/i --threads 1", before + 12),
        (f"index delete {{t}}/i --id {first}", before + 11),
        ("index delete {t}/i --entity Lime", None),
        ("index compact {t}/i", None),
    ):
        assert run(line)[0] == 0
        index = search.Index.open(tmp_path / "i")
        assert count in (None, len(index))
    assert index.num_rows == len(index) < before + 11
    assert len(index.map_points()) == len(index)
    assert not len(index.rows_of("lime"))
    code, out, _ = run("index export {t}/i --to parquet --out {t}/out.parquet")
    assert (code, f"({len(index):,} vectors)" in out) == (0, True)
    assert len(pq.read_table(tmp_path / "out.parquet")) == len(index)


def test_a_search_on_the_command_line_mixes_and_filters(run):
    line = "search {w}/index --text apple^2 --image {w}/photos/000.jpg --not-like Lime --json"
    hits = json.loads(run(f"{line} --k 50")[1])
    only = json.loads(run(f"{line} --k 50 --entity red --not-entity Lime")[1])
    assert {entity for hit in only for entity in hit["entities"]} == {"red"}
    scores = {hit["row"]: hit["score"] for hit in hits}
    assert [hit["score"] for hit in only] == [scores[hit["row"]] for hit in only]
    least = sorted(scores.values())[len(scores) // 2]
    assert 0 < len(json.loads(run(f"{line} --k 50 --min-score {least}")[1])) < len(hits)


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_help_imports_nothing_heavy():
    code = """
import sys
from openmofi.cli import main
try: main(["--help"])
except SystemExit: pass
heavy = {"torch", "transformers", "pyarrow", "numpy", "PIL", "faiss"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
    assert _python(code).splitlines()[-1] == "heavy: []"


def test_the_installed_command_answers_a_mistake_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "openmofi", "select", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("openmofi: ")
    assert done.stderr.count("\n") == 1


def test_a_table_in_a_pipe_keeps_a_row_on_a_line(run, world):
    code, out, _ = run("search {w}/index --text apple --k 3")
    assert (code, len(out.splitlines())) == (0, 4)


@pytest.fixture(scope="module")
def calibrated(world, tmp_path_factory):
    """An index by which no text is found."""
    from orchard import write_calibration

    folder = tmp_path_factory.mktemp("calibrated")
    app(
        f"index {world}/emb.parquet --out {folder}/i".split(),
        exit_on_error=False,
        result_action="return_value",
    )
    write_calibration(folder / "i")
    return folder / "i"


def test_a_search_that_finds_nothing_says_so_and_shows_the_nearest(run, calibrated):
    code, out, err = run(f"search {calibrated} --text apple --k 3")
    assert code == 0
    assert out.splitlines()[0] == "nothing here looks like that; the nearest are:"
    assert len(out.splitlines()) == 5
    assert err.startswith("note: 100% of queries for absent things look as present as this one")
    code, out, _ = run(f"search {calibrated} --text apple --k 3 --json")
    assert code == 0
    for hit in json.loads(out):
        assert (hit["found"], hit["p_value"]) == (False, 1.0)


def test_a_rate_that_cannot_be_kept_leaves_it_open(run, calibrated):
    code, out, _ = run(f"search {calibrated} --text apple --absent-rate 0.001 --json")
    assert (code, {hit["found"] for hit in json.loads(out)}) == (0, {None})
    code, _, err = run(f"search {calibrated} --text apple --absent-rate 0.001")
    assert (
        err == "note: 40 entities are too few to tell at a rate of 0.001; expected 0.025 or more.\n"
    )


def test_a_changed_index_asks_for_another_calibration(run, calibrated, tmp_path):
    shutil.copytree(calibrated, tmp_path / "i")
    code, out, _ = run("index delete {t}/i --row 0")
    assert (code, out.splitlines()[-1]) == (0, f"next: openmofi index calibrate {tmp_path / 'i'}")
    code, out, err = run("search {t}/i --text apple")
    assert (code, "nothing here" in out) == (0, False)
    assert err.startswith("note: The index has changed by ")
