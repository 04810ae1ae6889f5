import numba

from openmofi.kb import compiled as module


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
    notice = module._Notice()
    for terminal in (False, True, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        notice.on_start(None)
    assert capsys.readouterr().err == ""
    notice.said = False
    notice.on_start(None)
    assert "compiling, once" in capsys.readouterr().err
