#!/bin/bash
#SBATCH --array=0-15 --cpus-per-task=4 --mem=20G --time=12:00:00 --requeue
# Inside a container: an image in which panelbench is installed, for example from
#
#   Bootstrap: docker
#   From: python:3.11-slim
#   %post
#       pip install panelbench
#
#   IMAGE="$HOME/panelbench.sif" sbatch apptainer.sh --suite citeseq
#
# The working folder and the cache are seen inside; --nv lets it see the GPUs of the job.
set -euo pipefail
cache=${PANELBENCH_CACHE:-$HOME/.cache/panelbench}
mkdir -p "$cache"
exec apptainer exec --nv --bind "$PWD" --bind "$cache" --pwd "$PWD" \
    --env PANELBENCH_CACHE="$cache" "${IMAGE:?names the image}" \
    panelbench run --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --jobs 1 "$@"
