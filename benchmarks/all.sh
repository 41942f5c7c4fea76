#!/usr/bin/env bash
# The tables of docs/benchmarks.md from the tasks' folders alone, but those that compare methods (methods.py and
# pretraining.py train many students: their commands stand below their tables):
#
#     benchmarks/all.sh DATA OUTPUT        (make bench DATA=… OUTPUT=…)
#
# DATA holds sst2, mrpc and snli with train.csv and validation.csv. Teachers are fine-tuned once; what stands in
# OUTPUT is not done again. About two hours on two cores; nothing else should run beside it.
set -euo pipefail
data=$1 output=$2
here=$(dirname "$0")
METHODS= "$here/main_job.sh" "$data" "$output" sst2 mrpc snli
python "$here/step_cost.py" --fresh --precisions float32
python "$here/step_variants.py"
python "$here/profile_step.py"
python "$here/profile_step.py" --precision bf16
python "$here/kernels.py"
python "$here/method_costs.py"
python "$here/growth.py"
python "$here/attribution.py" "$output/sst2/teacher" "$data/sst2" --task sst2
python "$here/whole_run.py" "$output/sst2/teacher" "$data/sst2" "$output/whole_run" --task sst2
python "$here/amortised.py" "$output/mrpc/teacher" "$data/mrpc" "$output/amortised" --task mrpc
python "$here/amortised.py" "$output/snli/teacher" "$data/snli" "$output/amortised" --task snli
python "$here/audit_cost.py" "$output/snli/teacher" "$output/snli/teacher" "$data/snli" --task snli --split train
