"""Submit the shards of a suite from Python (`pip install panelbench[cluster]`)."""

from __future__ import annotations

import argparse

import panelbench


def main() -> None:
    """Submit the shards, wait for them, write the report."""
    import submitit

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="demo")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--cluster", help="slurm or local; found out if not given")
    options = parser.parse_args()
    executor = submitit.AutoExecutor(folder="submitit_logs", cluster=options.cluster)
    executor.update_parameters(timeout_min=240, cpus_per_task=2, mem_gb=8)
    with executor.batch():
        jobs = [
            executor.submit(panelbench.run, options.suite, shard=(index, options.shards))
            for index in range(options.shards)
        ]
    for job in jobs:
        job.result()
    print(panelbench.run(options.suite, stages=["report"]))


if __name__ == "__main__":
    main()
