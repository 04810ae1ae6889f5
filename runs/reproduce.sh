#!/usr/bin/env bash
# The paper's comparison of recipes, on what needs no download: see docs/paper.md.
#
#   runs/reproduce.sh OUT [SHOP] [FLAGS]
#
# SHOP   real shop photos with images.csv and entities.csv (GroceryStoreDataset, MIT)
# FLAGS  real flags, xx.png by ISO code (HatScripts/circle-flags, MIT)
# Interrupted? The same command goes on. Three seeds, 57 small models of the demo's world and 18 of
# shop photos: docs/paper.md says how long it took.
set -euo pipefail

OUT=${1:?usage: runs/reproduce.sh OUT [SHOP] [FLAGS]}
SHOP=${2:-}
FLAGS=${3:-}
REPO=$(cd "$(dirname "$0")/.." && pwd)
export PATH="$REPO/.venv/bin:$PATH"
# Results depend on the number of threads; the reported ones are of one.
export OMP_NUM_THREADS=1

python "$REPO/benchmarks/reproduction.py" demo --out "$OUT"
if [ -n "$SHOP" ]; then
  python "$REPO/benchmarks/reproduction.py" shop --out "$OUT" --shop "$SHOP"
fi
python "$REPO/benchmarks/reproduction_tables.py" --out "$OUT" ${FLAGS:+--flags "$FLAGS"}
