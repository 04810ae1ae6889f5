"""What `killed_rivals.py` does to pairs, as Data-Juicer wants it: an operator in its own file."""

import sys
from pathlib import Path

from data_juicer.ops.base_op import OPERATORS, Mapper

sys.path.insert(0, str(Path(__file__).parent))

from killed_rivals import LinkAndDecode


@OPERATORS.register_module("link_and_decode_mapper")
class LinkAndDecodeMapper(Mapper):
    _batched_op = True

    def __init__(self, folder: str = "", *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.folder, self.work = Path(folder), None

    def process_batched(self, samples):
        if (
            self.work is None
        ):  # here and not above: the operator is sent to the process that uses it
            self.work = LinkAndDecode(self.folder)
        candidates, widths = self.work(samples["text"], samples.pop("jpg"))
        return samples | {"candidates": candidates, "width": widths}
