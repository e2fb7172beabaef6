#!/bin/bash
#SBATCH --array=0-15 --cpus-per-task=4 --mem=20G --time=12:00:00 --requeue
# An array without a submission command: each task does a share of the work.
#
#   sbatch array.sh --suite citeseq --mirror "$HOME/mirror"
#   panelbench report --suite citeseq                            # when all tasks are over
#
# Runs are done one at a time, with all cores of the task: its memory must hold the largest.
exec panelbench run --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --jobs 1 "$@"
