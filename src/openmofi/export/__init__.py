"""A selection -> what other tools read: WebDataset, Hugging Face datasets, DataComp."""

from openmofi.export.export import ExportSummary, export

__all__ = ["ExportSummary", "export"]
