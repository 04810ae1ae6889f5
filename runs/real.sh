#!/usr/bin/env bash
# Real weights, real names, real photos: every figure of docs/real.md, from packages and photos.
#
#   runs/real.sh OUT DATA [name-suggestion-index.tgz]
#
# DATA holds real/caltech101/images/CLASS/*.jpg, real/devices/devices.csv with images/, and grocery/
# with images.csv (GroceryStoreDataset, MIT). Needs the extra real (pip install 'openmofi[real]') and
# WordNet (apt install wordnet-base); npm fetches the brands, unless their package is given. Two lanes,
# a core each. Interrupted? The same command goes on.
set -euo pipefail

OUT=${1:?usage: runs/real.sh OUT DATA [BRANDS.tgz]}
DATA=${2:?usage: runs/real.sh OUT DATA [BRANDS.tgz]}
BRANDS=${3:-}
REPO=$(cd "$(dirname "$0")/.." && pwd)
export PATH="$REPO/.venv/bin:$PATH"
# Results depend on the number of threads; the reported ones are of one.
export OMP_NUM_THREADS=1
mkdir -p "$OUT"

# Encoders, as Hugging Face directories; brands, as a catalogue.
[ -d "$OUT/encoders/minilm" ] || python "$REPO/examples/package_encoders.py" "$OUT/encoders"

[ -f "$OUT/brands.csv" ] || {
  [ -n "$BRANDS" ] || BRANDS="$OUT/$(npm pack --silent --pack-destination "$OUT" name-suggestion-index)"
  python "$REPO/examples/name_suggestion_index.py" "$BRANDS" "$OUT/brands.csv"
}

words_and_labels() {
  # Two encoders made one, on titles of devices.
  [ -f "$OUT/devices/pair.json" ] || openmofi pair "$OUT/encoders/lite0" "$OUT/encoders/minilm" \
    --data "$DATA/real/devices/devices.csv" --out "$OUT/devices" --json
  # Labels and retrieval on Caltech-101, three seeds.
  python "$REPO/benchmarks/real_world.py" caltech101 --photos "$DATA/real/caltech101/images" \
    --encoders "$OUT/encoders" --out "$OUT/labels"
  # Labels of devices among brands and words, three seeds.
  python "$REPO/benchmarks/real_world.py" devices --photos "$DATA/real/devices/devices.csv" \
    --encoders "$OUT/encoders" --brands "$OUT/brands.csv" --out "$OUT/labels"
}

vectors_and_encoders() {
  # What adapt makes of an encoder's vectors, beside every closed form.
  for name in grocery real/caltech101/images real/devices/devices.csv; do
    file="$OUT/$(echo "${name#real/}" | cut -d/ -f1).parquet"
    [ -f "$file" ] || openmofi embed "$OUT/encoders/lite0" "$DATA/$name" --out "$file"
  done
  [ -f "$OUT/adapt.jsonl" ] || {
    python "$REPO/benchmarks/adapt_real.py" --grocery "$OUT/grocery.parquet" \
      --caltech "$OUT/caltech101.parquet" --devices "$OUT/devices.parquet" \
      --shared "$DATA/.." > "$OUT/adapt.jsonl.part"
    mv "$OUT/adapt.jsonl.part" "$OUT/adapt.jsonl"
  }
  # The encoder itself fine-tuned: shop photos, three seeds, and categories of devices.
  python "$REPO/benchmarks/fine_tuning.py" grocery --photos "$DATA/grocery" \
    --encoders "$OUT/encoders" --out "$OUT/tuned" --ways "as it is" adapt fine-tuned
  python "$REPO/benchmarks/fine_tuning.py" devices --photos "$DATA/real/devices" \
    --encoders "$OUT/encoders" --out "$OUT/tuned" --seeds 0 --ways "as it is" adapt fine-tuned
}

{ time words_and_labels; } > "$OUT/words_and_labels.log" 2>&1 &
words=$!
{ time vectors_and_encoders; } > "$OUT/vectors_and_encoders.log" 2>&1 &
vectors=$!
failed=0
wait "$words" || { failed=1; tail -5 "$OUT/words_and_labels.log"; }
wait "$vectors" || { failed=1; tail -5 "$OUT/vectors_and_encoders.log"; }
exit "$failed"
