"""Calls scGIST, in its own environment."""

from __future__ import annotations

import os
from typing import Any


def select(given: dict[str, Any]) -> dict[str, Any]:
    """Train the network.

    Parameters
    ----------
    given
        ``X`` (log-normalised, cells x genes), ``codes`` of classes from 0 without gaps, size ``k``
        of the panel, ``seed``, and the parameters.

    Returns
    -------
    ``weights``: sizes of the genes' weights; ``loss`` by epoch.
    """
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras
    import numpy as np
    import tensorflow as tf
    from scgist import scGIST

    # Sums in another order would be others: one thread, whatever the run may use.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(given["seed"] % 2**31)
    tf.config.experimental.enable_op_determinism()

    X = given["X"] if isinstance(given["X"], np.ndarray) else given["X"].toarray()
    n_genes, codes = X.shape[1], given["codes"]
    model = scGIST()
    model.create_model(
        n_features=n_genes,
        n_classes=int(codes.max()) + 1,
        panel_size=given["k"],
        alpha=given["alpha"],
        strict=given["strict"],
    )
    model.compile_model()
    history = model.train_model(
        X=X,
        y=codes,
        verbose=0,
        epochs=given["epochs"],
        validation_split=given["validation"],
    )
    # All weights, not those of the panel alone.
    model.panel_size, model.strict = n_genes, True
    chosen, weights = model.get_markers_indices(return_weights=True)
    sizes = np.zeros(n_genes)
    sizes[chosen] = weights
    return {"weights": sizes, "loss": [float(value) for value in history.history["loss"]]}
