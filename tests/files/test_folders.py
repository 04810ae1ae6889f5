"""Files and folders that appear whole or not at all."""

import pytest

from openmofi.files.folders import new_folder, replace_file


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.npy"
    path.write_text("old")
    with replace_file(path) as partial:
        assert (partial.suffix, partial.name[0]) == (".npy", ".")
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def _write_half(path, error):
    with replace_file(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error):
        _write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_gets_its_name_has_reached_the_disk_before(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("openmofi.files.folders.sync", lambda path: synced.append(path.name))
    with replace_file(tmp_path / "a") as partial:
        partial.write_text("x")
    assert synced == [partial.name, tmp_path.name]
    synced.clear()
    with new_folder(tmp_path / "b") as folder:
        (folder / "c").mkdir()
        (folder / "c/d").write_text("x")
        (folder / "e").symlink_to("nowhere")
    assert synced == [folder.name, "d", "c", tmp_path.name]
