"""The reader of the official ground truth: what it reads, and that a file cannot make it act."""

import os
import pickle
import re
import struct

import numpy as np
import pytest

from openmofi.errors import InputError
from openmofi.evaluate.ground_truth import read_ground_truth
from openmofi.evaluate.plain_pickle import plain_values


def _content(**changes):
    truth = {
        "bbx": [1.5, 2.0, 30.0, 40.25],
        "easy": np.array([0, 3]),
        "hard": np.array([2], dtype=np.uint16),
        "junk": np.array([], dtype=np.float64),
    }
    first = {"imlist": [f"image_{i}" for i in range(5)], "qimlist": ["query_0"]}
    return {**first, "gnd": [{**truth, **changes}]}


def _read(folder, content, protocol=4):
    path = folder / "gnd.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return read_ground_truth(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_reads_the_same(tmp_path, protocol):
    truth = _read(tmp_path, _content(), protocol)
    (query,) = truth.queries
    assert truth.gallery[4] == "image_4"
    assert (query.name, query.box) == ("query_0", (1.5, 2.0, 30.0, 40.25))
    assert [query.easy.tolist(), query.hard.tolist(), query.junk.tolist()] == [[0, 3], [2], []]


@pytest.mark.parametrize("easy", [[0, 3], [np.int64(0), np.int64(3)], np.array([[0], [3]], ">i4")])
def test_rows_may_be_lists_or_arrays_of_any_whole_numbers(tmp_path, easy):
    assert _read(tmp_path, _content(easy=easy)).queries[0].easy.tolist() == [0, 3]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_keep_their_values_and_shape(order, protocol):
    array = np.asarray(np.random.default_rng(0).standard_normal((3, 4)), order=order)
    np.testing.assert_array_equal(plain_values(pickle.dumps(array, protocol)).values, array)


def test_numpy_1_and_python_2_wrote_the_same(tmp_path):
    new = pickle.dumps(_content(), 0)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    # Python 2 wrote an array's bytes as a string, here 200 and 3 as two of them.
    raw = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
    raw += b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    raw += b"I00\nS'\\xc8\\x03'\ntb."
    assert plain_values(raw).values.tolist() == [200, 3]
    assert _read(tmp_path, old).queries[0].easy.tolist() == [0, 3]


class _Calls:
    """Is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _attacks(marker):
    command = f"touch {marker}"
    yield pickle.dumps(_Calls(os.system, command), 0)
    yield pickle.dumps(_Calls(os.system, command), 4)
    yield pickle.dumps(_Calls(eval, f"open({str(marker)!r}, 'w')"), 2)
    yield pickle.dumps(_Calls(getattr, _Calls(__import__, "os"), "system"), 4)
    yield pickle.dumps(_Calls(np.load, str(marker), None, True), 4)
    yield pickle.dumps(_Calls(np.memmap, str(marker), "u1", "w+", 0, (1,)), 4)
    yield pickle.dumps(np.array([_Calls(os.system, command)], dtype=object), 4)
    yield b"cnumpy\nndarray.tofile\n(S'%s'\ntR." % str(marker).encode()
    yield b"(S'%s'\nios\nsystem\n." % command.encode()
    yield b"\x80\x02cos\nsystem\n(S'%s'\nt\x81." % command.encode()
    named = b"\x80\x04\x8c\x02os\x8c\x06system\x93"
    yield named + b"\x8c" + bytes([len(command)]) + command.encode() + b"\x85R."


def test_no_attack_runs_anything(tmp_path):
    marker = tmp_path / "ran"
    for attack in _attacks(marker):
        with pytest.raises(InputError, match=r"is not a ground truth: it .*\.$"):
            _read(tmp_path, attack)
        assert not marker.exists()


def test_the_forbidden_name_is_said(tmp_path):
    with pytest.raises(InputError, match=r"it names (posix|nt)\.system, but only values"):
        _read(tmp_path, pickle.dumps(_Calls(os.system, "true")))


def test_known_names_cannot_be_turned_into_others():
    """BUILD sets what a known name stands for; the next reader must not see it."""
    poison = b"cnumpy\ndtype\n(N}S'function'\nS'x'\nstb."
    plain_values(poison)
    assert plain_values(pickle.dumps(np.arange(3), 0)).values.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"not a pickle",
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",  # remembers as number 4,294,967,295
        b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"x.",  # a string of a petabyte
        b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
        b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",  # lists in lists
        b"\x80\x02\x82\x01.",
        b"Ppersistent\n.",
        pickle.dumps(_content(), 4)[:-40],
    ],
)
def test_damaged_and_boundless_files_are_refused(tmp_path, damaged):
    with pytest.raises(InputError, match="is not a ground truth: it"):
        _read(tmp_path, damaged)


def test_arrays_of_objects_and_of_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="array of 'O8'"):
        plain_values(pickle.dumps(np.array([None]), 2))
    grown = pickle.dumps(np.zeros(3, "u1"), 2).replace(b"K\x03\x85", b"K\x09\x85")
    with pytest.raises(InputError, match="shape does not fit"):
        plain_values(grown)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it lacks the list imlist"),
        ({**_content(), "qimlist": ["a", "b"]}, "it names 2 queries but has answers to 1"),
        ({**_content(), "qimlist": ["../../secret"]}, "is not an image below the folder"),
        ({**_content(), "imlist": [5]}, "is not an image below the folder"),
        ({**_content(), "gnd": [{"easy": []}]}, "lacks one of bbx, easy, hard, junk"),
        (_content(easy=[5]), "easy of 'query_0' names rows outside the 5 images"),
        (_content(hard=[-1]), "hard of 'query_0' names rows outside"),
        (_content(junk=[0.5]), "junk of 'query_0' names rows outside"),
        (_content(junk=np.array([np.nan])), "junk of 'query_0' names rows outside"),
        (_content(easy=[10**400]), "a number beyond all rows"),
        (_content(easy=["0"]), "easy of 'query_0' is not a list of numbers"),
        (_content(easy=None), "easy of 'query_0' is not a list of numbers"),
        (_content(bbx=[1, 2, 3]), "is not a box of four numbers"),
    ],
)
def test_a_truth_that_does_not_hold_together_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=re.escape(message)):
        _read(tmp_path, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no ground truth at .*gnd_x\.pkl"):
        read_ground_truth(tmp_path / "gnd_x.pkl")


def test_the_attacks_are_real(tmp_path):
    pickle.loads(next(_attacks(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()
