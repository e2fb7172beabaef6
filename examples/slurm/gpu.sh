#!/bin/bash
#SBATCH --array=0-3 --gres=gpu:1 --cpus-per-task=4 --mem=20G --time=12:00:00 --requeue
# Only methods that use a GPU, one run at a time on each GPU; the others need no such node.
#
#   sbatch gpu.sh --suite citeseq --method yoto --method persist
#   sbatch array.sh --suite citeseq       # afterwards; what is done is passed over
#
# Slurm says which GPUs the task has in $CUDA_VISIBLE_DEVICES; `cuda` is the first of them.
# `panelbench submit` asks for a GPU where a method requires one, or --need yoto.gpus=1 says so.
exec panelbench select --device cuda --jobs 1 \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
