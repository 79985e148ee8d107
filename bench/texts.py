"""Train a text VAE on Python's documentation topics in five ways; print a Markdown row for each.

    python bench/texts.py                          all ways, seeds 0, 1 and 2
    python bench/texts.py --ways plain --seeds 0   one way
    python bench/texts.py --width 64               smaller networks; aggressive updates take minutes
    python bench/texts.py --shown                  also reconstructions, interpolations and samples

The corpus is `pydoc_data.topics`, split into sentences without duplicates. Encoder and decoder are
gated recurrent units. The language model is the same decoder without the latent, and its log p(x)
is exact. NLL is -IWAE with 100 draws, an upper bound on the true NLL. KL, mutual information and
active units are of the test split. Weights are selected by the validation bound. The last column is
the bound minus the exact value of the language model with the same seed, if "language model" is the
first of the ways.
"""

from __future__ import annotations

import argparse
import platform
import pydoc_data.topics
import re
from pathlib import Path
from typing import Any

import numpy as np

import vaestro as vs
from vaestro import latents
from vaestro.tokens import Texts

WAYS: dict[str, dict[str, Any]] = {
    "language model": {"likelihood": "autoregressive:latent=false", "latent": 1},
    "plain": {},
    "annealed": {"beta": "warmup:share=0.5"},
    "free bits": {"beta": "warmup:share=0.5", "free_bits": 0.25},
    "aggressive": {"beta": "warmup:share=0.5", "aggressive": True},
}
SHARED: dict[str, Any] = {"latent": 16, "batch": 32, "lr": 2e-3}
SOURCE = "text=text,split=split,tokens=words,length=64"


def corpus(path: Path) -> Path:
    """Write the distinct sentences of the topics as .jsonl with a split."""
    sentences: dict[str, None] = {}
    for topic in pydoc_data.topics.topics.values():
        for paragraph in topic.split("\n\n"):
            for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z])", " ".join(paragraph.split())):
                if len(re.findall(r"[a-z]{2,}", sentence)) >= 4:
                    sentences[sentence] = None
    lines = list(sentences)
    order = np.random.default_rng(0).permutation(len(lines))
    size = len(lines) // 10
    split = np.full(len(lines), "train", object)
    split[order[:size]], split[order[size : 2 * size]] = "test", "valid"
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            json.dumps({"text": t, "split": s}) + "\n" for t, s in zip(lines, split, strict=True)
        )
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--shown", action="store_true")
    asked = parser.parse_args()
    file = corpus(Path("runs/texts/topics.jsonl"))
    data = vs.load(f"{file}:{SOURCE}")
    print(f"Python {platform.python_version()}: {'; '.join(data.notes)}", flush=True)
    columns = (
        "way | seed | NLL, nats per sentence | perplexity | KL | mutual information | active "
        "units | epochs | minutes"
    )
    print(f"| {columns} | above the language model of the same seed (paired) |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    language_models: dict[int, np.ndarray] = {}
    for way in asked.ways:
        for seed in asked.seeds:
            folder = Path(f"runs/texts/{way.replace(' ', '-')}-{asked.width}-{seed}")
            if not (folder / "config.yaml").exists():
                network = f"gru:width={asked.width},dropout=0.4"
                vs.train(
                    f"{file}:{SOURCE}",
                    run=folder,
                    epochs=asked.epochs,
                    seed=seed,
                    network=network,
                    **{**SHARED, **WAYS[way]},
                )
            run = vs.Run(folder) if vs.Run(folder).finished else vs.resume(folder)
            rows, model = run.data().test, run.model()
            found = vs.evaluate(model, rows, k=asked.k, methods="elbo,iwae,information")
            run.save_evaluation(found, rows, str(file))
            valid = [line for line in run.metrics() if line["split"] == "valid"]
            best = max(valid, key=lambda line: line["bound"])
            value, error = found["iwae"].mean()
            information = (
                found.information.mutual_information[0] if found.information else float("nan")
            )
            active = int((latents.encode(model, rows)["mean"].var(0) > 0.01).sum())
            perplexity, minutes = found["iwae"].details["perplexity"], valid[-1]["seconds"] / 60
            cells = [
                way,
                seed,
                f"{-value:.2f} +- {error:.2f}",
                f"{perplexity:.2f}",
                f"{found.rate:.2f}",
                f"{information:.2f}",
                active,
            ]
            cells += [f"{best['epoch']:.0f} of {valid[-1]['epoch']:.0f}", f"{minutes:.1f}"]
            nats = found["iwae"].nats
            above = nats - language_models[seed] if seed in language_models else None
            cells.append(
                ""
                if above is None
                else f"{above.mean():.2f} +- {above.std(ddof=1) / len(above) ** 0.5:.2f}"
            )
            if way == "language model":
                language_models[seed] = nats
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            if asked.shown and seed == asked.seeds[0] and way != "language model":
                show(run)


def lines(texts: latents.UserData) -> list[str]:
    """Return the texts of data, or those that a model decoded."""
    assert isinstance(texts, Texts)
    return list(texts.lines)


def show(run: vs.Run) -> None:
    """Print sentences of a run."""
    model, rows = run.model(), run.data().test
    beam = vs.densities.Decoding(beam=5)
    decoded = lines(latents.reconstruct(model, rows.take(6), decoding=beam))
    for own, made in zip(lines(rows.take(6).outward()), decoded, strict=True):
        print(f"    data            {own}\n    reconstruction  {made}")
    for line in lines(latents.interpolate(model, rows, 0, 1, steps=5, decoding=beam)):
        print(f"    between         {line}")
    samples = lines(latents.sample(model, 200))
    for line in samples[:6]:
        print(f"    sample          {line}")
    known = set(lines(run.data().train.outward()))
    print(
        f"    {sum(line in known for line in samples)} of 200 samples are sentences of the "
        f"training split"
    )


if __name__ == "__main__":
    main()
