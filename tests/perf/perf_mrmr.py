"""mRMR: ours against mrmr-selection.

python tests/perf/perf_mrmr.py --cells 5000 --genes 5000 --k 64
"""

from backends import main

if __name__ == "__main__":
    module = "panelbench.methods.mrmr"
    main({"mrmr-f": f"{module}:select_by_f", "mrmr-rf": f"{module}:select_by_forest"})
