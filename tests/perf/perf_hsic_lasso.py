"""Block HSIC Lasso: ours against pyHSICLasso.

python tests/perf/perf_hsic_lasso.py --cells 5000 --genes 2000 --k 64
"""

from backends import main

if __name__ == "__main__":
    main({"hsic-lasso": "panelbench.methods.hsic_lasso:select"})
