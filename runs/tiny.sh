#!/usr/bin/env bash
# The whole story, verb by verb, on photos that the package draws itself. Read it from the top.
#
#   runs/tiny.sh OUT          the full world: 98 entities, 7,840 photos to learn from
#   runs/tiny.sh OUT small    20 entities, 240 photos: shows that all runs, learns next to nothing
#
# Interrupted? The same command goes on: what is finished is kept or done again in seconds.
# `openmofi demo` is this story with all four recipes, and it checks the labels against the truth.
set -euo pipefail

OUT=${1:?usage: runs/tiny.sh OUT [small|full]}
SIZE=${2:-full}
case $SIZE in
  full) STEPS=${STEPS:-700} BATCH=128 BACKGROUND=512 MIN_IMAGES=5 RULE="--false-label-rate 0.03" ;;
  small) STEPS=${STEPS:-200} BATCH=32 BACKGROUND=64 MIN_IMAGES=1 RULE="--threshold 0.01" ;;
  *) echo "the world is small or full, not $SIZE" >&2; exit 1 ;;
esac
REPO=$(cd "$(dirname "$0")/.." && pwd)
export PATH="$REPO/.venv/bin:$PATH"
# More threads than cores make a small network many times slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}

# ---- 0. A world -------------------------------------------------------------------------------
# Photos in img2dataset's shards, a dump in Wikidata's format, a catalogue as a user would write it,
# and truth.parquet, which no stage below may read before `evaluate`.
if [ ! -f "$OUT/truth.parquet" ]; then
  python -c "
import sys; from pathlib import Path; from openmofi.demo.world import draw_world
print(draw_world(Path(sys.argv[1]), size=sys.argv[2], seed=0))" "$OUT" "$SIZE"
fi

# ---- 1. Who may be meant? ---------------------------------------------------------------------
# A dump and a catalogue go into one knowledge base: names overlap across them, and that is the
# point. India is a country and the signal flag for the letter I.
openmofi kb build "$OUT/dump.json.gz" "$OUT/signals.csv" --out "$OUT/kb"
openmofi kb query India --kb "$OUT/kb"

# ---- 2. What may a caption mean? --------------------------------------------------------------
# From text alone the country wins; the image will have its say in 4. `label` links all
# captions by itself; this line only lets you look.
openmofi link "India flag on a mast" --kb "$OUT/kb" --all-candidates

# ---- 3. An encoder that can look at images --------------------------------------------------
# With your own photos you would take a published one, such as openai/clip-vit-base-patch32. The
# story must run offline, so it trains one on the raw captions, wrong ones included.
[ -f "$OUT/runs/clip/model/README.md" ] ||
openmofi train "$REPO/recipes/clip.yaml" --data "$OUT/shards" --out "$OUT/runs/clip" --resume \
  --set steps="$STEPS" --set batch_size="$BATCH"

# ---- 4. Look at every image -----------------------------------------------------------------
# Each candidate of each caption is scored against the image. Nothing is decided yet, and every
# term of the score is kept: this is the slow stage, so it should not need repeating.
openmofi label "$OUT/shards" --kb "$OUT/kb" --model "$OUT/runs/clip/model" --out "$OUT/i2e" \
  --background "$BACKGROUND"

# ---- 5. Decide --------------------------------------------------------------------------------
# Seconds. The threshold follows from the share of wrong labels you accept (the small world is too
# small to estimate that, so there it is set by hand, and low). The second selection is in MOFI's
# order, for comparison; both lie side by side.
openmofi select "$OUT/i2e" --name joint --order joint $RULE --min-images "$MIN_IMAGES"
openmofi select "$OUT/i2e" --name text-first --order text-first $RULE --min-images "$MIN_IMAGES"
# Look before you train: what was kept, what was refused, and why.
openmofi inspect "$OUT/i2e" --name joint --out "$OUT/labels.html"

# ---- 6. Learn from the labels -----------------------------------------------------------------
# The same photos, fewer of them, and the same number of steps as in 3: the entities make the
# difference.
[ -f "$OUT/runs/multitask/model/entity_head/ids.json" ] ||
openmofi train "$REPO/recipes/multitask.yaml" --data "$OUT/i2e/select/joint" \
  --out "$OUT/runs/multitask" --resume --set steps="$STEPS" --set batch_size="$BATCH"

# ---- 7. Measure -------------------------------------------------------------------------------
# On the photos of test/, which nobody has trained on, against truth.parquet.
openmofi evaluate "$OUT/runs/clip/model" --data demo="$OUT" --kb "$OUT/kb" \
  --out "$OUT/runs/clip"
openmofi evaluate "$OUT/runs/multitask/model" --data demo="$OUT" --kb "$OUT/kb" \
  --out "$OUT/runs/multitask"

# ---- 8. Use -----------------------------------------------------------------------------------
# Embedding the selection, not the shards, carries its entities along, so that the index can be
# asked for one of them.
openmofi embed "$OUT/runs/multitask/model" "$OUT/i2e/select/joint" --out "$OUT/photos.parquet"
openmofi index "$OUT/photos.parquet" --out "$OUT/index"
openmofi search "$OUT/index" --text "maritime signal flag Golf" --k 5

# A photo from test/, as a file of its own.
KEY=$(tar --list --file "$OUT/test/000000.tar" | grep '\.jpg$' | sed -n 1p)
tar --extract --file "$OUT/test/000000.tar" --directory "$OUT" "$KEY"
openmofi search "$OUT/index" --image "$OUT/$KEY" --k 5
openmofi tag "$OUT/runs/multitask/model" "$OUT/$KEY" --kb "$OUT/kb" --k 3

echo "Everything lies in $OUT; open $OUT/labels.html"
