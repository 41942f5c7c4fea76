#!/bin/sh
# The main job on real data: the teachers of docs/benchmarks.md, and the students that docs/results/audits.md shows.
#
#   benchmarks/main_job.sh DATA OUTPUT [TASK ...]      (tasks: mrpc stsb snli sst2 cola; the first four if none is named)
#
# DATA holds one folder a task with train.csv and validation.csv. Finished runs are left alone and an unfinished one
# goes on from its last checkpoint, so the script can be stopped and started again. Subsets are drawn by the seed.
# METHODS="kd adkd" are the students' methods, METHODS= makes teachers alone.
set -eu
data=$1 output=$2
shift 2
[ $# -gt 0 ] || set -- mrpc stsb snli sst2

run() { # run FOLDER COMMAND ...
    folder=$output/$1
    shift
    [ -f "$folder/metrics.json" ] && return
    echo "== $folder"
    "$@" --output "$folder" --settings default --set training.learning_rate=1e-4 --seed 0 \
        --set compute.trim_last_block=false # as when the figures were taken: a trimmed block draws less dropout
}

for task in "$@"; do
    case $task in # of the teacher: epochs, rows; of the students (2 epochs): rows, batch size
    mrpc) epochs=4 taught=100000 rows=2000 batch=16 ;;
    stsb) epochs=2 taught=100000 rows=2000 batch=16 ;;
    snli) epochs=2 taught=8000 rows=4000 batch=32 ;;
    cola) epochs=3 taught=100000 rows=2000 batch=16 ;;
    sst2) epochs=2 taught=10000 rows=4000 batch=16 ;;
    *) echo "unknown task $task" >&2 && exit 2 ;;
    esac
    run "$task/teacher" gradistill finetune --model minilm-l6 --data "$data/$task" --task "$task" \
        --epochs "$epochs" --max-train-rows "$taught"
    for method in ${METHODS-kd adkd}; do
        run "$task/$method" gradistill distill --teacher "$output/$task/teacher" --data "$data/$task" \
            --task "$task" --method "$method" --signals online --student-layers 3 --epochs 2 --max-train-rows "$rows" \
            --set training.batch_size="$batch"
    done
done
