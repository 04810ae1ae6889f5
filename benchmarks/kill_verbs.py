"""kill -9 at random moments of the verbs that go on: is anything lost, doubled or different?

    python benchmarks/kill_verbs.py [--kills 20] [--seed 0] [--only embed,reinforce,...]

Draws small data: 40 tars of 20 images, an untrained encoder, 20,000 vectors. Runs each command once
without a kill. Then starts it again and again and kills its processes at a moment drawn from the
time that the rest of it takes, until it has been killed as often as asked, and lets it finish; if
it finishes sooner, it is compared and begun anew. Prints JSON for each command:
  kills          how often it was killed while it ran
  finished       how often it came to its end and was compared
  rows_lost      rows of the unbroken run that are missing in a finished one
  rows_doubled   rows that a finished one has more often
  equal_bytes    whether all finished ones have the bytes of the unbroken one
  half_written   kills after which something under a final name could not be read
  seconds        of the unbroken run
What is written every minute is written ten times a second here, and shards of `reinforce` have 20
images, so that small data have something to go on with. A command begins in a process that has
imported everything, so that kills hit its work.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TARS, PER_TAR, VECTORS, DIM = 40, 20, 20_000, 64
RECIPE = "loss: {supervised: 0, text: [caption]}\nmodel: {image_size: 32}\n"
FORK = multiprocessing.get_context("forkserver")
IMPORTED = ["torch", "transformers", "faiss", "openmofi.cli", "openmofi.embed"]
IMPORTED += ["openmofi.train.reinforce", "openmofi.search"]


def run(line: list[str]) -> None:
    """Runs a command line in a session of its own."""
    from openmofi.cli import main
    from openmofi.search import stored_chunks
    from openmofi.train import shard_reinforcer

    os.setsid()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    stored_chunks._KEEP_EVERY_SECONDS = 0.1
    shard_reinforcer._LEAST = 20
    main(line)


@dataclass(frozen=True)
class Verb:
    """A command, and what is told of its output."""

    line: list[str]
    out: Path
    rows: Callable[[Path], Counter]
    """The rows of an output, and how often each is there."""
    digests: Callable[[Path], dict[str, str]]
    """What must be equal."""
    before: Path | None = None
    """What the output is begun from."""

    def begin(self) -> None:
        beside = self.out.parent.glob(f".{self.out.name}.*")
        for path in (self.out, self.out.with_name(f"{self.out.name}.shards"), *beside):
            shutil.rmtree(path, ignore_errors=True)
        if self.out.is_file():
            self.out.unlink()
        if self.before is not None:
            shutil.copytree(self.before, self.out)

    def start(self) -> multiprocessing.process.BaseProcess:
        process = FORK.Process(target=run, args=(self.line,))
        process.start()
        return process

    def finish(self) -> None:
        process = self.start()
        process.join()
        assert process.exitcode == 0, process.exitcode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # several threads link a graph in any order
    FORK.set_forkserver_preload(IMPORTED)
    rng, found = random.Random(arguments.seed), {}
    with tempfile.TemporaryDirectory() as temporary:
        verbs = draw(Path(temporary))
        wanted = arguments.only.split(",") if arguments.only else list(verbs)
        for name in wanted:
            found[name] = kill(verbs[name], arguments.kills, rng)
            print(json.dumps({name: found[name]}), file=sys.stderr)
    print(json.dumps(found, indent=2))


# ---- the data -----------------------------------------------------------------------------------


def draw(folder: Path) -> dict[str, Verb]:
    rng = np.random.default_rng(0)
    write_tars(folder / "tars", rng)
    write_model(folder / "model")
    (folder / "recipe.yaml").write_text(RECIPE)
    for name in ("first", "more"):
        write_vectors(folder / f"{name}.parquet", rng, name)
    model, tars = str(folder / "model"), str(folder / "tars")
    recipe = ["--recipe", str(folder / "recipe.yaml"), "--device", "cpu"]
    made = {}
    for name, line in {
        "reinforce": ["reinforce", model, "--data", tars, *recipe, "--workers", "1"],
        "embed": ["embed", model, tars, "--workers", "1"],
    }.items():
        out = folder / name
        made[name] = Verb([*line, "--out", str(out)], out, rows_of_job, digests_of_job)
    file = folder / "embed.parquet"
    line = ["embed", model, tars, "--workers", "1", "--out", str(file)]
    made["embed file"] = Verb(line, file, rows_of_file, digests_of_file)
    for kind in ("flat", "ivf", "hnsw"):
        out = folder / kind
        line = ["index", str(folder / "first.parquet"), "--out", str(out), "--kind", kind]
        made[f"index {kind}"] = Verb(line, out, rows_of_index, digests_of_index)
    made["index add"] = added(folder)
    return made


def added(folder: Path) -> Verb:
    """Vectors that are added to lists, which so many make one part with."""
    begun, out = folder / "begun", folder / "added"
    line = ["index", str(folder / "first.parquet"), "--out", str(begun), "--kind", "ivf"]
    subprocess.run([sys.executable, "-m", "openmofi", *line], check=True, stdout=sys.stderr)
    line = ["index", "add", str(out), str(folder / "more.parquet")]
    return Verb(line, out, rows_of_index, digests_of_index, before=begun)


def write_tars(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    for number in range(TARS):
        with tarfile.open(folder / f"{number:02d}.tar", "w") as tar:
            for image in range(PER_TAR):
                buffer = io.BytesIO()
                noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise).save(buffer, "JPEG")
                name = f"{number * PER_TAR + image:04d}"
                for suffix, data in (("jpg", buffer.getvalue()), ("txt", f"n {name}".encode())):
                    member = tarfile.TarInfo(f"{name}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def write_model(folder: Path) -> None:
    import torch

    from openmofi.model import MofiModel, save_model
    from openmofi.model.presets import build_network
    from openmofi.model.tokenizer import special_tokens, train_tokenizer
    from openmofi.model.transform import Transform

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["n 0123456789"], vocab_size=300, context_length=20)
    network = build_network("nano", special_tokens(tokenizer), image_size=32)
    network.train()(input_ids=torch.ones(8, 4).long(), pixel_values=torch.randn(8, 3, 32, 32))
    save_model(MofiModel(network, tokenizer, Transform(32)), folder, card="# drawn\n")


def write_vectors(path: Path, rng: np.random.Generator, name: str) -> None:
    vectors = rng.standard_normal((VECTORS, DIM)).astype(np.float16)
    rows = pa.table(
        {
            "id": [f"{name}-{row}" for row in range(VECTORS)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        }
    )
    pq.write_table(rows.replace_schema_metadata({"openmofi.model": "drawn"}), path)


# ---- what is told of an output ------------------------------------------------------------------


def rows_of_job(out: Path) -> Counter:
    from openmofi.shards import commits

    rows = Counter()
    for commit in commits(out):
        digest = hashlib.sha256((out / commit.file).read_bytes()).hexdigest()
        if digest != commit.sha256:
            raise OSError(f"{commit.file} is half-written")
        rows.update(f"{commit.shard} {row}" for row in range(table_of(out / commit.file).num_rows))
    return rows


def table_of(file: Path) -> pa.Table:
    if file.suffix == ".arrow":
        with pa.memory_map(str(file)) as opened:
            return pa.ipc.open_file(opened).read_all()
    return pq.read_table(file)


def digests_of_job(out: Path) -> dict[str, str]:
    from openmofi.shards import commits

    return {commit.shard: f"{commit.status} {commit.sha256}" for commit in commits(out)}


def rows_of_file(out: Path) -> Counter:
    return Counter(pq.read_table(out)["id"].to_pylist())


def digests_of_file(out: Path) -> dict[str, str]:
    return {"": hashlib.sha256(out.read_bytes()).hexdigest()}


def rows_of_index(out: Path) -> Counter:
    from openmofi.search import Index

    index = Index.open(out)
    assert len(index) in (VECTORS, 2 * VECTORS)
    parts = json.loads((out / "meta.json").read_text())["parts"]
    files = [out / part / "rows.parquet" for part in parts]
    return Counter(id_ for file in files for id_ in pq.read_table(file)["id"].to_pylist())


def digests_of_index(out: Path) -> dict[str, str]:
    found = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("meta.json", ".lock")
    }
    meta = json.loads((out / "meta.json").read_text())
    return found | {name: str(value) for name, value in meta.items() if name != "id"}


# ---- kill and compare ---------------------------------------------------------------------------


def kill(verb: Verb, kills: int, rng: random.Random) -> dict[str, object]:
    verb.begin()
    verb.finish()  # once, for what is compiled or imported on first use
    verb.begin()
    began = time.monotonic()
    verb.finish()
    seconds = time.monotonic() - began
    whole = verb.rows(verb.out), verb.digests(verb.out)
    found = {"kills": 0, "finished": 0, "rows_lost": 0, "rows_doubled": 0, "half_written": 0}
    found |= {"equal_bytes": True, "seconds": round(seconds, 1)}
    verb.begin()
    while found["kills"] < kills:
        if killed_within(verb, rng.uniform(0.0, 1.0) * seconds):
            found["kills"] += 1
            found["half_written"] += not sound(verb)
        else:
            compare(verb, whole, found)
            verb.begin()
    verb.finish()
    compare(verb, whole, found)
    return found


def killed_within(verb: Verb, seconds: float) -> bool:
    """Starts the command and kills it after some time; returns whether it was still running."""
    process = verb.start()
    process.join(seconds)
    if process.exitcode is not None:
        assert process.exitcode == 0
        return False
    with suppress(ProcessLookupError):  # it has no group of its own yet
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def sound(verb: Verb) -> bool:
    """Returns whether what is there under a final name can be read."""
    try:
        is_begun = verb.out / "_done" if verb.rows is rows_of_job else verb.out
        if is_begun.exists():
            verb.rows(verb.out)
        return True
    except Exception as error:
        print(f"{verb.out}: {error}", file=sys.stderr)
        return False


def compare(verb: Verb, whole: tuple[Counter, dict[str, str]], found: dict) -> None:
    rows, digests = verb.rows(verb.out), verb.digests(verb.out)
    found["finished"] += 1
    found["rows_lost"] += (whole[0] - rows).total()
    found["rows_doubled"] += (rows - whole[0]).total()
    found["equal_bytes"] = bool(found["equal_bytes"] and digests == whole[1])


if __name__ == "__main__":
    main()
