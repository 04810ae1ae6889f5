"""How long the questions and a preview take, and how much memory, by the number of rows.

    python benchmarks/review_scale.py --rows 1e6 1e7 [--answers 50] [--folder FOLDER]

The labels are those of select_scale.py. For each number: a selection, questions until as many are
answered as asked for (every other one «not shown», the others «right»), a preview of them, and the
change applied; each in a process of its own. Prints a line of JSON per number.
"""

import argparse
import json
import tempfile
from pathlib import Path

from select_scale import ROWS_OF_SHARD, timed, write_world

_ASK = """
import sys, time
from openmofi.corrections.answers import add_answers, answers_path, new_answer
from openmofi.review.questions import open_questions
i2e, count = sys.argv[1], int(sys.argv[2])
questions = open_questions(i2e)
opened = time.process_time()
for number in range(count):
    [one] = questions.first(1)
    place = {"key": one.key, "shard": one.shard, "caption": one.caption, "name": one.name}
    kind, entity = ("right", one.candidates[0].id) if number % 2 else ("not-shown", "")
    answer = new_answer(kind, entity=entity, **place)
    add_answers(answers_path(i2e), [answer])
    questions.take(answer, file=one.file, row=one.row, start=one.start)
print((time.process_time() - opened) / count)
"""


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--answers", type=int, default=50)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2, help="processes that write the labels")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    for rows in map(int, options.rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_world(Path(folder), rows // ROWS_OF_SHARD, options.entities, options.workers)
            i2e = str(Path(folder) / "i2e")
            openmofi = ["-m", "openmofi"]
            found = {
                "select": timed([*openmofi, "select", i2e]),
                "questions": timed(["-c", _ASK, i2e, str(options.answers)]),
                "preview": timed([*openmofi, "review", "preview", i2e]),
                "apply": timed([*openmofi, "review", "apply", i2e]),
            }
        print(json.dumps({"rows": rows, "answers": options.answers, **found}), flush=True)


if __name__ == "__main__":
    main()
