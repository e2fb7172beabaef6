"""The environment of spapros: all that it imports, in versions that were tried together.

With NumPy 2.4 its selection stops at a function that is gone. What it declares for its
documentation and releases, and NCCL for GPUs, is left out.
"""

from __future__ import annotations

from panelbench.method import Environment

ENVIRONMENT = Environment(
    (
        "anndata==0.12.19",
        "array-api-compat==1.16.0",
        "cloudpickle==3.1.3",
        "contourpy==1.3.3",
        "cycler==0.12.1",
        "donfig==0.8.1.post1",
        "fonttools==4.68.0",
        "formulaic==1.2.2",
        "google-crc32c==1.9.0",
        "h5py==3.16.0",
        "igraph==1.0.0",
        "interface-meta==2.0.1",
        "joblib==1.6.0",
        "kiwisolver==1.5.1",
        "legacy-api-wrap==1.5",
        "leidenalg==0.12.0",
        "llvmlite==0.50.0",
        "markdown-it-py==4.3.0",
        "matplotlib==3.11.2",
        "mdurl==0.1.2",
        "narwhals==2.29.0",
        "natsort==8.4.0",
        "networkx==3.6.1",
        "numba==0.68.1",
        "numcodecs==0.16.6",
        "numpy==2.3.5",
        "packaging==26.4",
        "pandas==2.3.3",
        "patsy==1.0.3",
        "pillow==13.0.0",
        "pygments==2.21.0",
        "pynndescent==0.7.0",
        "pyparsing==3.3.3",
        "python-dateutil==4.0.0",
        "pytz==2026.6",
        "pyyaml==6.0.4",
        "rich==15.0.0",
        "scanpy==1.11.5",
        "scikit-learn==1.9.1",
        "scipy==1.17.1",
        "scverse-misc==0.0.3",
        "seaborn==0.13.2",
        "session-info2==0.4.1",
        "spapros==0.1.6",
        "statsmodels==0.15.0",
        "texttable==1.7.2",
        "threadpoolctl==3.8.0",
        "tqdm==4.70.1",
        "typing-extensions==4.16.0",
        "tzdata==2026.6",
        "umap-learn==0.5.12",
        "upsetplot==0.9.0",
        "venndata==0.1.0",
        "wrapt==2.5.2",
        "xgboost==3.2.0",
        "zarr==3.1.6",
    )
)
