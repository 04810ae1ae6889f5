"""A trained encoder -> a directory that computes faster, checked against the original."""

from openmofi.compile.compile import CompileSummary, compile_model

__all__ = ["CompileSummary", "compile_model"]
