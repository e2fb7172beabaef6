#!/bin/bash
#SBATCH --array=0-7 --cpus-per-task=4 --mem=20G --time=12:00:00 --requeue
# The cache on the disk of the node: prepared data are copied there once for each task, and read
# from there. Records are written into the shared results folder, one small file for each run.
#
#   panelbench preprocess --suite citeseq --cache "$HOME/panelbench-cache"        # once
#   SHARED_CACHE="$HOME/panelbench-cache" sbatch staging.sh --suite citeseq
#
# Scratch files of methods lie in $SLURM_TMPDIR by themselves, where the cluster sets it.
set -euo pipefail
here=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/panelbench-$SLURM_JOB_ID
trap 'rm -rf "$here"' EXIT
mkdir -p "$here"
cp -r "${SHARED_CACHE:?names the cache to copy}/." "$here"
# A signal of the scheduler goes on to the command, which ends in order.
panelbench run --cache "$here" --jobs 1 \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@" &
trap 'kill -TERM $!; wait $!' TERM
wait $!
