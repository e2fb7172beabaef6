"""The environment of scgist: all that it imports, in versions that were tried together.

The build of TensorFlow without GPUs stands for the one that it declares.
"""

from __future__ import annotations

from panelbench.method import Environment

ENVIRONMENT = Environment(
    (
        "absl-py==2.5.1",
        "anndata==0.12.19",
        "array-api-compat==1.16.0",
        "astunparse==1.6.3",
        "cloudpickle==3.1.3",
        "contourpy==1.3.3",
        "cycler==0.12.1",
        "donfig==0.8.1.post1",
        "flatbuffers==25.12.19",
        "fonttools==4.68.0",
        "gast==0.7.0",
        "google-crc32c==1.9.0",
        "google-pasta==0.2.0",
        "h5py==3.14.0",
        "joblib==1.6.0",
        "keras==3.15.1",
        "kiwisolver==1.5.1",
        "legacy-api-wrap==1.5",
        "markdown-it-py==4.3.0",
        "matplotlib==3.11.2",
        "mdurl==0.1.2",
        "ml-dtypes==0.6.0",
        "namex==0.1.0",
        "narwhals==2.29.0",
        "natsort==8.4.0",
        "numcodecs==0.16.6",
        "numpy==2.4.6",
        "opt-einsum==3.4.0",
        "optree==0.20.0",
        "packaging==26.4",
        "pandas==2.3.3",
        "pillow==13.0.0",
        "protobuf==7.36.2",
        "pygments==2.21.0",
        "pyparsing==3.3.3",
        "python-dateutil==4.0.0",
        "pytz==2026.6",
        "pyyaml==6.0.4",
        "rich==15.0.0",
        "scgist==2.0.1",
        "scikit-learn==1.9.1",
        "scipy==1.17.1",
        "scverse-misc==0.0.3",
        "seaborn==0.13.2",
        "session-info2==0.4.1",
        "six==1.17.0",
        "tensorflow-cpu==2.21.0",
        "termcolor==3.3.0",
        "threadpoolctl==3.8.0",
        "typing-extensions==4.16.0",
        "tzdata==2026.6",
        "wrapt==2.5.2",
        "zarr==3.1.6",
    )
)
