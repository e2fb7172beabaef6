#!/bin/bash
#SBATCH --array=0-15 --cpus-per-task=4 --mem=16G --time=4:00:00
panelbench run --suite citeseq --shard "$SLURM_ARRAY_TASK_ID/16" --mirror "$HOME/mirror"
