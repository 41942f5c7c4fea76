#!/bin/sh
# The main job on real data: teachers and 3-layer students for docs/results.md.
#
#   benchmarks/main_job.sh DATA OUTPUT [TASK ...]      (tasks: mrpc stsb snli sst2 cola; the first four if none is named)
#
# DATA holds one folder a task with train.csv and validation.csv. Finished runs are left alone and an unfinished one
# goes on from its last checkpoint, so the script can be stopped and started again. Subsets are drawn by the seed.
# METHODS="kd adkd" names fewer students, METHODS= none.
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
    mrpc) epochs=4 taught=100000 rows=2000 batch=16 methods="finetune kd kd_still pkd gkd gkd_cls adkd adkd_heavy" ;;
    stsb) epochs=2 taught=100000 rows=2000 batch=16 methods="finetune kd kd_still pkd gkd gkd_cls adkd adkd_heavy" ;;
    snli) epochs=2 taught=8000 rows=4000 batch=32 methods="kd gkd adkd adkd_heavy" ;;
    cola) epochs=3 taught=100000 rows=2000 batch=16 methods="kd adkd" ;;
    sst2) epochs=2 taught=10000 rows=4000 batch=16 methods="kd gkd adkd adkd_heavy" ;;
    *) echo "unknown task $task" >&2 && exit 2 ;;
    esac
    methods=${METHODS-$methods}
    run "$task/teacher" gradistill finetune --model minilm-l6 --data "$data/$task" --task "$task" \
        --epochs "$epochs" --max-train-rows "$taught"
    for name in $methods; do
        case $name in
        kd_still) # KD with what Gradient KD brings beside its objective
            method=kd changes="--set student.embeddings=frozen --set student.dropout=none" ;;
        adkd_heavy) # ten times the default weight
            method=adkd changes="--set objectives.attribution_map.weight=10" ;;
        *) method=$name changes="" ;;
        esac
        run "$task/$name" gradistill distill --teacher "$output/$task/teacher" --data "$data/$task" \
            --task "$task" --method "$method" --signals online --student-layers 3 --epochs 2 --max-train-rows "$rows" \
            --set training.batch_size="$batch" $changes
    done
done
