import io
import os

import pytest
from PIL import Image

import fruit
from conftest import jpeg, write_tar
from openmofi.embed import find_places
from openmofi.errors import InputError
from openmofi.evaluate import layouts
from openmofi.files.hidden import is_hidden
from openmofi.images.decode import decode_image, refuse
from openmofi.images.formats import is_image, unread_reason
from openmofi.pairs import find_shards, read_shard
from openmofi.tag.files import find_images

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
UNREAD = {"heic": "needs_extra_heif", "HEIF": "needs_extra_heif"} | dict.fromkeys(
    ["jxl", "svg", "dng", "NEF", "cr2", "eps", "psb"], "unsupported_image"
)
HIDDEN = ("._a.jpg", ".a.jpg", ".b/a.jpg", "d/.b/c/a.jpg", "__MACOSX/a.jpg", "d/__MACOSX/._a.jpg")
SHOWN = ("a.jpg", "d.e/a.jpg", "_MACOSX/a.jpg", "__MACOSX.d/a.jpg", "a..jpg")


def _saved(kind):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg())).save(buffer, kind)
    return buffer.getvalue()


def _errors(path):
    found = find_shards(path)
    tables = [read_shard(found.root, shard).table for shard in found.shards]
    return {row["key"]: row["error"] for table in tables for row in table.to_pylist()}


def _write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["AVIF", "TIFF", "PPM", "JPEG2000", "TGA", "QOI", "ICO"])
def test_whatever_pillow_reads_is_input(tmp_path, kind):
    suffix = {"JPEG2000": "jp2", "TIFF": "tif"}.get(kind, kind.lower())
    files = {f"a.{suffix}": _saved(kind), "a.txt": b"apple"}
    assert _errors(_write(tmp_path / "folder", files)) == {f"a.{suffix}": ""}
    assert _errors(write_tar(tmp_path / "a.tar", files)) == {"a": ""}
    assert find_images([tmp_path / "folder"]) == [tmp_path / "folder" / f"a.{suffix}"]


@pytest.mark.parametrize("suffix", UNREAD)
def test_an_image_of_another_kind_is_counted_with_a_reason(tmp_path, suffix):
    files = {"a.jpg": jpeg(), "a.txt": b"apple", f"b.{suffix}": b"x", "b.txt": b"apple"}
    reason = UNREAD[suffix]
    assert _errors(_write(tmp_path / "folder", files)) == {"a.jpg": "", f"b.{suffix}": reason}
    assert _errors(write_tar(tmp_path / "a.tar", files)) == {"a": "", "b": reason}
    (tmp_path / "folder/captions.csv").write_text(f"file,caption\na.jpg,a\nb.{suffix},b\n")
    assert _errors(tmp_path / "folder") == {"a.jpg": "", f"b.{suffix}": reason}
    assert find_places(tmp_path / "folder").refused == {reason: 1}


def test_a_readable_image_of_a_key_counts_before_another(tmp_path):
    members = {"a.dng": b"x", "a.tif": b"y", "a.jpg": jpeg(), "a.txt": b"apple"}
    found = find_shards(write_tar(tmp_path / "a.tar", members))
    [row] = read_shard(found.root, found.shards[0]).table.to_pylist()
    assert (row["error"], row["size"]) == ("", len(jpeg()))


def test_the_extra_for_heic_is_named(monkeypatch):
    with pytest.raises(OSError, match=r"openmofi\[heif\]") as caught:
        decode_image(HEIC)
    assert refuse(caught.value).reason == "needs_extra_heif"


def test_films_and_measurements_are_no_images():
    assert [name for name in ("a.mpg", "a.h5", "a.grib", "a.txt", "jpg") if is_image(name)] == []
    assert unread_reason("a.jpg") == unread_reason("a.txt") == ""


def test_postscript_is_not_given_to_another_program():
    with pytest.raises(OSError, match="cannot identify"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


@pytest.mark.parametrize("names", [HIDDEN, SHOWN])
def test_a_name_with_a_dot_before_it_is_hidden(names):
    assert {is_hidden(name) for name in names} == {names is HIDDEN}


def test_hidden_files_are_no_input_anywhere(tmp_path):
    hidden = dict.fromkeys(HIDDEN, jpeg())
    beside = {name.replace(".jpg", ".txt"): b"apple" for name in HIDDEN}
    files = {"d/b.jpg": jpeg(), "d/b.txt": b"apple"} | hidden | beside
    folder = _write(tmp_path / "folder", files)
    assert _errors(folder) == {"d/b.jpg": ""}
    assert find_images([folder]) == [folder / "d/b.jpg"]
    assert _errors(write_tar(tmp_path / "a.tar", files)) == {"d/b": ""}


@pytest.mark.parametrize("suffix", ["tar", "parquet", "arrow"])
def test_hidden_shards_are_no_input(tmp_path, suffix):
    hidden = dict.fromkeys([f"._a.{suffix}", f".d/a.{suffix}", f"__MACOSX/a.{suffix}"], b"x")
    folder = _write(tmp_path, hidden | {f"a.{suffix}": b"", "metadata.csv": b""})
    assert [shard.path for shard in find_shards(folder).shards] == [f"a.{suffix}"]


def test_a_folder_below_a_hidden_one_is_input(tmp_path, monkeypatch):
    folder = _write(tmp_path / ".data", {"p/a.jpg": jpeg(), "p/a.txt": b"apple"})
    monkeypatch.chdir(folder)
    for path in (folder / "p", folder, "p", "."):
        assert [key.rpartition("/")[2] for key in _errors(path)] == ["a.jpg"]
    assert find_images([folder]) == [folder / "p/a.jpg"]


def test_a_hidden_shard_that_is_named_has_a_name_that_is_not(tmp_path):
    path = write_tar(tmp_path / "._0.tar", {"a.jpg": jpeg(), "a.txt": b"apple"})
    assert [shard.name for shard in find_shards(path).shards] == ["_0"]
    assert _errors(path) == {"a": ""}
    os.rename(path, tmp_path / ".tar")
    with pytest.raises(InputError, match="holds no image-caption pairs"):
        find_shards(tmp_path / ".tar")


def test_hidden_files_of_a_benchmark_are_none(tmp_path):
    members = {f"{n}.jpg": fruit.photo("red", n) for n in range(2)}
    labels = {f"{n}.cls": b"%d" % n for n in range(2)} | {"._0.cls": b"x", "__MACOSX/9.cls": b"7"}
    (tmp_path / "w/test").mkdir(parents=True)
    write_tar(tmp_path / "w/test/0.tar", members | labels)
    (tmp_path / "w/test/._0.tar").write_bytes(b"x")
    (tmp_path / "w/classnames.txt").write_text("red\nlime\n")
    assert len(layouts.open_labelled(tmp_path / "w").labels) == 2
