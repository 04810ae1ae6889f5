import numba

from openmofi.arrays import compiled as module


def test_functions_are_compiled_without_a_place_for_the_cache(monkeypatch):
    def njit(*, cache: bool = False, nogil: bool):
        if cache:
            raise RuntimeError("cannot cache function 'twice': no locator available")
        return numba.njit(nogil=nogil)

    monkeypatch.setattr(module, "njit", njit)

    @module.compiled
    def twice(number):
        return 2 * number

    assert twice(21) == 42
    assert twice.signatures


def test_compiling_is_said_once_and_only_on_a_terminal(monkeypatch, capsys):
    for terminal, lines in ((False, 0), (True, 1)):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        notice = module._Notice()
        notice.on_start(None)
        notice.on_start(None)
        assert capsys.readouterr().err.count("compiling, once") == lines
