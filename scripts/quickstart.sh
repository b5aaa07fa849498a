#!/usr/bin/env bash
# From a fresh checkout to predictions: converts weights in the official format, validates them on the digits that come
# with scikit-learn, predicts and draws attention maps. The weights are random, so the accuracy is chance.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

demo=outputs/quickstart
step() {
    echo
    echo "== $*"
    "$@"
}
step python scripts/make_demo.py "$demo"
step python convert_pt2ms.py --input "$demo/deit_tiny_random.pth" --output "$demo/deit_tiny.ckpt" --verify
step python validate.py -c configs/deit_t_cpu.yaml --data_dir "$demo/digits" --ckpt_path "$demo/deit_tiny.ckpt" \
    --output "$demo/results.json"
step python predict.py --ckpt_path "$demo/deit_tiny.ckpt" "$demo"/digits/val/3/*7.png --top_k 3 --attention "$demo/attention"
echo
echo "done: results in $demo/results.json, attention maps in $demo/attention"
