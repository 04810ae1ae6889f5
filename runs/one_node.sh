#!/usr/bin/env bash
# From a crawl to a trained and measured ViT-B/16 on one machine with several GPUs.
#
#   runs/one_node.sh SHARDS DUMP OUT [GPUS]
#
# SHARDS  img2dataset's output: 00000.tar, 00000.parquet, ...
# DUMP    Wikidata's latest-all.json.gz, or a catalogue (CSV)
# Interrupted? The same command goes on: every verb keeps what is finished.
# Hours: not measured. docs/scale.md has the formula; metrics.jsonl says images_per_second.
set -euo pipefail

SHARDS=${1:?usage: runs/one_node.sh SHARDS DUMP OUT [GPUS]}
DUMP=${2:?usage: runs/one_node.sh SHARDS DUMP OUT [GPUS]}
OUT=${3:?usage: runs/one_node.sh SHARDS DUMP OUT [GPUS]}
GPUS=${4:-8}
SCORER=${SCORER:-openai/clip-vit-base-patch32}
REPO=$(cd "$(dirname "$0")/.." && pwd)
export PATH="$REPO/.venv/bin:$PATH"

# ---- 1. Names, then labels: one process per GPU ------------------------------------------------
[ -d "$OUT/kb" ] || openmofi kb build "$DUMP" --out "$OUT/kb"
openmofi label "$SHARDS" --kb "$OUT/kb" --model "$SCORER" --out "$OUT/i2e" --workers "$GPUS"
openmofi select "$OUT/i2e" --name default --false-label-rate 0.02 --min-images 5
openmofi inspect "$OUT/i2e" --name default --out "$OUT/labels.html"

# ---- 2. Train: one process per GPU, 2% of the images held out ----------------------------------
# 4,096 images a step in parts of 256 for each GPU; the losses compare all of them.
torchrun --standalone --nproc-per-node "$GPUS" -m openmofi train "$REPO/recipes/mofi_b16.yaml" \
  --data "$OUT/i2e/select/default" --out "$OUT/run" --resume \
  --set batch_size=4096 --set micro_batch_size=256 --set steps=100000 \
  --set head.num_sampled=65536 --set evaluation.holdout=0.02

# ---- 3. Use ------------------------------------------------------------------------------------
openmofi embed "$OUT/run/model" "$OUT/i2e/select/default" --out "$OUT/photos.parquet"
openmofi index "$OUT/photos.parquet" --out "$OUT/index"
openmofi search "$OUT/index" --text "a lighthouse in a storm" --k 5
