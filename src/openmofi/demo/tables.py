"""The demo's results -> tables of labels and models, and the commands to type next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

METRICS = ("retrieval_map", "top1", "knn", "zero_shot")
LABEL_ROWS = {
    "caption_match": "every entity the caption names",
    "text_first": "text decides, image may refuse (MOFI's order)",
    "joint": "text and image decide together",
}
MODEL_ROWS = {
    "clip": "contrastive on raw captions (CLIP)",
    "contrastive": "contrastive on entity texts",
    "supervised": "supervised on entities",
    "multitask": "both (multi-task)",
}


def print_results(results: dict[str, Any], out: Path) -> None:
    """Prints the tables and the commands to type next."""
    from rich.console import Console

    console = Console()
    console.print(label_table(results))
    console.print(model_table(results))
    total = sum(results["seconds"].values())
    print(f"{total / 60:.1f} minutes in all. Everything is in {out}; open {out}/report.html")
    image_model, kb = f"{out}/runs/multitask/model", f"{out}/kb"
    print("next: look at it in a browser, then with images of your own:")
    print(f"  openmofi serve {out}")
    print(f"  openmofi tag {image_model} IMAGE --kb {kb} --index {out}/index --error-rate 0.05")
    print(f'  openmofi search {out}/index --text "maritime signal flag Golf" --k 5')
    print("  openmofi kb build YOUR.csv --out my-kb   (then label, select, train: see README)")


def label_table(results: dict[str, Any]):
    """Returns the precision and recall of the labels as a rich table."""
    from rich.table import Table

    table = Table(title="How right are the labels?", title_justify="left")
    table.add_column("labels from")
    for head in ("precision", "recall", "F1"):
        table.add_column(head, justify="right")
    for name, text in LABEL_ROWS.items():
        row = results["labels"][name]
        table.add_row(text, *(f"{row[metric]:.3f}" for metric in ("precision", "recall", "f1")))
    return table


def model_table(results: dict[str, Any]):
    """Returns the scores of the models as a rich table."""
    from rich.table import Table

    title = "What did the models learn? (photos never trained on)"
    table = Table(title=title, title_justify="left")
    table.add_column("trained with")
    for head in ("retrieval mAP", "top-1", "kNN", "zero-shot"):
        table.add_column(head, justify="right")
    for name, row in results["models"].items():
        table.add_row(MODEL_ROWS[name], *model_cells(name, row))
    return table


def model_cells(recipe: str, row: dict[str, float]) -> list[str]:
    """Returns a model's scores as text; without texts in training, there is no zero-shot score."""
    cells = [f"{row[metric]:.3f}" for metric in METRICS]
    return [*cells[:3], "-"] if recipe == "supervised" else cells
