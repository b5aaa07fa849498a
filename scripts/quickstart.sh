#!/usr/bin/env bash
# From a fresh checkout to a trained DeiT: a small convnet learns the digits in the package, a small DeiT
# learns them from it, is validated, and predicts. Run again, it goes on where it stopped, or only validates and predicts.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

out=outputs/quickstart
begun=$SECONDS
step() {
    echo
    echo "== $*"
    "$@"
}
step python train.py -c configs/regnety_digits_cpu.yaml --ckpt_save_dir "$out/teacher" --resume auto
step python train.py -c configs/deit_digits_cpu.yaml --ckpt_save_dir "$out/student" --resume auto \
    --teacher_ckpt_path "$out/teacher/best.ckpt"
trained=$((SECONDS - begun))
for model in teacher student; do
    step python validate.py --dataset digits --ckpt_path "$out/$model/best_ema.ckpt" --output "$out/$model.json"
done
step python scripts/make_demo.py "$out/digits"
step python predict.py --ckpt_path "$out/student/best_ema.ckpt" "$out"/digits/3/*7.png --top_k 3 --attention "$out/attention"
echo
python - "$out" "$trained" <<'PY'
import json, sys
out, seconds = sys.argv[1:]
teacher, student = (json.load(open(f"{out}/{name}.json"))["acc1"] for name in ("teacher", "student"))
print(f"done: trained in {seconds} s; of 360 held-out digits the teacher knows {teacher:.1f} %, the student {student:.1f} %")
print(f"the run on one page: {out}/student/report.html; curves.png beside it, attention maps in {out}/attention")
PY
