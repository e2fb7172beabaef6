"""MarkerMap's relaxed top-k and its training, against the forms that one would write first.

    python tests/perf/markermap_speed.py topk        # seconds and memory by genes and k
    python tests/perf/markermap_speed.py training    # one epoch, 500 genes, k = 50
    python tests/perf/markermap_speed.py training --genes 4000 --hidden 256
    python tests/perf/markermap_speed.py training --device cuda

`topk`: forward and backward pass, against the same loop of recorded operations. Memory is what
the forward pass keeps for the backward pass. `training`: one epoch of 6,030 synthetic cells in
batches of 64, the split of CITE-seq, against a plain loop of the same steps: a DataLoader,
recorded top-k, logits of every cell, masked cells, Adam as it comes. Times are processor seconds of
one thread (a shared machine disturbs them less than the clock's), the best of several rounds in
which both forms take turns. On a GPU they are seconds by the clock, with the device waited for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from panelbench.methods import markermap
from panelbench.methods.markermap.data import Cells
from panelbench.methods.markermap.params import Variant, settings
from panelbench.methods.markermap.subset import relaxed_topk
from panelbench.methods.markermap.training import Steps, build
from torch import nn

from panelbench.method import Target, Task, frozen_mapping

N_CELLS, N_CLASSES = 6_892, 13


def textbook(keys: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """Relaxed top-k by recorded operations."""
    mask = torch.zeros_like(keys)
    tiny = torch.tensor(1e-40, device=keys.device)
    for _ in range(k):
        p = torch.softmax(keys / tau, dim=-1)
        mask = mask + p
        left = 1 - p
        keys = keys + torch.log(torch.where(left < tiny, tiny, left))
    return mask


def seconds(device: str) -> float:
    """Processor seconds of this process; on a GPU the clock, when all its work is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(forms: dict[str, Callable[[], Any]], n_rounds: int, device: str) -> dict[str, float]:
    """Best seconds of each."""
    best = dict.fromkeys(forms, float("inf"))
    for _ in range(n_rounds):
        for name, form in forms.items():
            start = seconds(device)
            form()
            best[name] = min(best[name], seconds(device) - start)
    return best


def kept_bytes(function: Callable[[], Any]) -> int:
    """Bytes that a forward pass keeps for its backward pass, shared memory counted once."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(storages.values())


def topk(args: argparse.Namespace) -> None:
    print("| genes | k | tau | forward, ms | textbook | backward, ms | textbook | MB | textbook |")
    print("|" + "---|" * 9)
    for d, k in ((500, 50), (4_000, 50), (10_000, 50), (10_000, 250)):
        for tau in (3.0, 0.1):
            keys, upstream = (
                torch.randn(d, generator=torch.Generator().manual_seed(seed)).to(args.device)
                for seed in (0, 1)
            )
            times: dict[str, dict[str, float]] = {"forward": {}, "backward": {}}
            for _ in range(args.rounds):
                for name, form in (("ours", relaxed_topk), ("textbook", textbook)):
                    leaf = keys.clone().requires_grad_()
                    start = seconds(args.device)
                    mask = form(leaf, k, tau)
                    middle = seconds(args.device)
                    mask.backward(upstream)
                    end = seconds(args.device)
                    for part, took in (("forward", middle - start), ("backward", end - middle)):
                        before = times[part].get(name, float("inf"))
                        times[part][name] = min(before, took)
            memory = [
                kept_bytes(partial(form, keys.clone().requires_grad_(), k, tau)) / 1e6
                for form in (relaxed_topk, textbook)
            ]
            f, b = times["forward"], times["backward"]
            print(
                f"| {d:,} | {k} | {tau} | {1e3 * f['ours']:.2f} | {1e3 * f['textbook']:.2f} "
                f"| {1e3 * b['ours']:.2f} | {1e3 * b['textbook']:.2f} "
                f"| {memory[0]:.1f} | {memory[1]:.1f} |",
                flush=True,
            )


def block(n_in: int, n_out: int, norm: bool = True) -> nn.Sequential:
    layers = [nn.Linear(n_in, n_out), *([nn.BatchNorm1d(n_out)] if norm else []), nn.LeakyReLU()]
    return nn.Sequential(*layers)


class Plain(nn.Module):
    """MarkerMap as one would write it down."""

    def __init__(self, d: int, hidden: int, k: int, tradeoff: float) -> None:
        super().__init__()
        self.k, self.tradeoff = k, tradeoff
        self.logit_net = nn.Sequential(
            block(d, hidden), nn.Dropout(0.5), block(hidden, hidden), nn.LeakyReLU(),
            nn.Linear(hidden, d),
        )  # fmt: skip
        self.encoder = nn.Sequential(
            block(d, hidden), block(hidden, hidden), block(hidden, hidden, norm=False)
        )
        self.mean, self.log_variance = nn.Linear(hidden, 16), nn.Linear(hidden, 16)
        self.decoder = nn.Sequential(block(16, hidden), nn.Linear(hidden, d))
        self.spread = nn.Sequential(block(16, hidden), nn.Linear(hidden, d))
        self.classifier = nn.Sequential(block(16, hidden), nn.Linear(hidden, N_CLASSES))
        self.register_buffer("logits", torch.zeros(1, d))

    def loss(self, x: torch.Tensor, y: torch.Tensor, tau: float) -> torch.Tensor:
        self.logits = 0.95 * self.logits.detach() + 0.05 * self.logit_net(x).mean(0, keepdim=True)
        noise = -torch.log(-torch.log(torch.rand_like(self.logits) + 1e-40))
        hidden = self.encoder(x * textbook(self.logits + noise, self.k, tau))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        loss = x.new_zeros(())
        if self.tradeoff < 1:
            logs = torch.log_softmax(self.classifier(mean), dim=1)
            loss = loss + (1 - self.tradeoff) * nn.functional.nll_loss(logs, y)
        if self.tradeoff > 0:
            drawn = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            normal = torch.distributions.Normal(
                self.decoder(drawn), torch.exp(0.5 * self.spread(drawn)), validate_args=False
            )
            divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
            found = (-normal.log_prob(x).sum() + 0.1 * divergence) / len(x)
            loss = loss + self.tradeoff * found
        return loss


def training(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_CELLS, args.genes)).astype(np.float32)
    codes = rng.integers(N_CLASSES, size=N_CELLS)
    names = tuple(map(str, range(N_CLASSES)))
    print("| method | epoch, s | plain loop, s | ratio | 500 steps and 34 epochs, s |")
    print("|---|---|---|---|---|")
    variants: tuple[tuple[Variant, float], ...] = (
        ("markermap", 0.0), ("markermap-joint", 0.5), ("markermap-unsup", 1.0),
    )  # fmt: skip
    for id, tradeoff in variants:
        target = Target("type", "classification", codes.astype(np.int64), names)
        task = Task(
            X,
            np.array([f"g{i}" for i in range(args.genes)]),
            frozen_mapping({} if tradeoff == 1 else {"type": target}),
            k=args.k,
            seed=0,
            device=args.device,
            validation=np.arange(N_CELLS) % 8 == 0,
        )
        params = markermap.JointParams if id == "markermap-joint" else markermap.MarkerMapParams
        given = settings(id, params(hidden=args.hidden), args.genes)
        cells = Cells.of(task, labelled=tradeoff < 1)
        noise = torch.Generator(args.device).manual_seed(0)
        ours = Steps(build(task, given), cells, given, 1e-3, np.random.default_rng(0), noise)

        rows = torch.from_numpy(cells.training)
        dataset = torch.utils.data.TensorDataset(
            torch.from_numpy(X)[rows], torch.from_numpy(codes)[rows]
        )
        loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)
        plain = Plain(args.genes, given.hidden, args.k, tradeoff).to(args.device)
        optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)

        def plain_epoch(
            plain: Any = plain, loader: Any = loader, optimizer: Any = optimizer
        ) -> None:
            for x, y in loader:
                optimizer.zero_grad()
                plain.loss(x.to(args.device), y.to(args.device), 1.0).backward()
                optimizer.step()

        forms = {"ours": lambda ours=ours: ours.epoch(21), "plain": plain_epoch}  # type: ignore[misc]
        best = take_turns(forms, args.rounds, args.device)
        epochs = 34 + 500 / len(loader)
        print(
            f"| {id} | {best['ours']:.3f} | {best['plain']:.3f} "
            f"| {best['plain'] / best['ours']:.1f} | {epochs * best['ours']:.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("topk", "training"))
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    topk(args) if args.what == "topk" else training(args)


if __name__ == "__main__":
    main()
