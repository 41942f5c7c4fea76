#!/bin/sh
# The main job on real data: teachers and 3-layer students for docs/results.md.
#
#   benchmarks/main_job.sh DATA OUTPUT [TASK ...]      (tasks: mrpc stsb snli sst2; all of them if none is named)
#
# DATA holds one folder a task with train.csv and validation.csv. Runs that are there already are left alone, so
# the script can be stopped and started again. Subsets are drawn by --seed 0.
set -eu
data=$1 output=$2
shift 2
[ $# -gt 0 ] || set -- mrpc stsb snli sst2

run() { # run NAME COMMAND ...
    name=$1
    shift
    [ -f "$output/$name/metrics.json" ] && return
    echo "== $name"
    "$@" --output "$output/$name" --seed 0 --overwrite
}

for task in "$@"; do
    case $task in
    mrpc) teacher_rows=3576 teacher_epochs=3 rows=1000 methods="finetune kd pkd gkd gkd_cls adkd" ;;
    stsb) teacher_rows=5749 teacher_epochs=2 rows=1000 methods="finetune kd pkd gkd gkd_cls adkd" ;;
    snli) teacher_rows=5000 teacher_epochs=2 rows=1500 methods="kd gkd adkd" ;;
    sst2) teacher_rows=6000 teacher_epochs=2 rows=2000 methods="kd gkd adkd" ;;
    *) echo "unknown task $task" >&2 && exit 2 ;;
    esac
    run "$task/teacher" gradistill finetune --model minilm-l6 --data "$data/$task" --task "$task" \
        --settings default --epochs "$teacher_epochs" --max-train-rows "$teacher_rows"
    for method in $methods; do
        run "$task/$method" gradistill distill --teacher "$output/$task/teacher" --data "$data/$task" \
            --task "$task" --method "$method" --student-layers 3 --settings default --epochs 2 --max-train-rows "$rows"
    done
done
