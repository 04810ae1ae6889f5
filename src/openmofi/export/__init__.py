"""A selection -> formats of other tools: WebDataset, Hugging Face datasets, DataComp."""

from openmofi.export.export import ExportSummary, export

__all__ = ["ExportSummary", "export"]
