"""Compare training on shards that are decoded on access with training on decoded data.

    python bench/streams.py [--gigabytes 5] [--side 64] [--form jpeg|png|npy] [--rounds 8]
                            [--network conv]
    python bench/streams.py --loader

--loader prints the rows per second of decoding alone, without a model.

Shards of 250 MB are written to a temporary folder. They contain colour images of noise over smooth
shapes, which compress no better than photographs. One process trains on the stream and on a decoded
part of its rows alternately, in blocks of 40 steps, so other jobs on the machine affect both
equally. Another process trains on the stream alone; its anonymous memory is measured at every step.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from memory import anonymous
from PIL import Image

from vaestro.data.streams import Stream

SHARD = 250e6  # bytes


def cells(side: int, form: str, count: int) -> list[bytes]:
    """Return encoded images."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        image = np.clip(
            np.asarray(coarse, np.int16) + rng.normal(0, 8, (side, side, 3)), 0, 255
        ).astype(np.uint8)
        out = io.BytesIO()
        if form == "npy":
            np.save(out, image)
        else:
            Image.fromarray(image).save(out, form.upper(), quality=90)
        made.append(out.getvalue())
    return made


def make(folder: Path, gigabytes: float, side: int, form: str) -> int:
    """Write shards, and return their number of rows. The images are repeated, which does not affect
    the measurements."""
    images, rows, total = cells(side, form, 4000), 0, 0.0
    suffix = {"jpeg": "jpg"}.get(form, form)
    shard = 0
    while total < gigabytes * 1e9:
        with tarfile.open(folder / f"part-{shard:05d}.tar", "w") as archive:
            size = 0
            while size < SHARD and total + size < gigabytes * 1e9:
                content = images[(rows * 2654435761) % len(images)]
                info = tarfile.TarInfo(f"{rows:08d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
                size += 512 + -(-len(content) // 512) * 512
                rows += 1
            total += size
        shard += 1
    return rows


def training(source: str, data: Any, network: str) -> Any:
    """Return training steps on some data."""
    import vaestro as vs

    model = vs.build(data.space, latent=32, network=network, likelihood="gaussian")
    return vs.training(model, vs.Objective(), data, steps=10**6, batch=64, compile="off")


def memory(source: str, seconds: float, network: str) -> None:
    """Train for some seconds, and print the peak anonymous memory in the first and in the last
    third of them, in MB."""
    import vaestro as vs

    steps = training(source, vs.load(source), network)
    next(steps)
    start, early, most = time.perf_counter(), 0.0, 0.0
    for _ in steps:
        passed = (time.perf_counter() - start) / seconds
        if passed > 1:
            break
        if passed < 1 / 3:
            early = max(early, anonymous())
        elif passed > 2 / 3:
            most = max(most, anonymous())
    print(f"{early:.0f} {most:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--form", choices=("jpeg", "png", "npy"), default="jpeg")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--network", default="conv")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--loader", action="store_true")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory:
        memory(asked.memory, asked.seconds, asked.network)
        return
    folder = Path(tempfile.mkdtemp(prefix="vaestro-streams-"))
    os.environ["VAESTRO_CACHE"] = str(folder / "cache")
    try:
        import vaestro as vs

        (folder / "shards").mkdir()
        rows = make(folder / "shards", asked.gigabytes, asked.side, asked.form)
        source = str(folder / "shards")
        start = time.perf_counter()
        data = vs.load(source)
        first = time.perf_counter() - start
        start = time.perf_counter()
        vs.load(source)
        again = time.perf_counter() - start
        size = sum(f.stat().st_size for f in (folder / "shards").iterdir()) / 1e9
        count = len(list((folder / "shards").iterdir()))
        print(
            f"{size:.2f} GB in {count} shards, {rows:,} images of {asked.side}x{asked.side} as "
            f"{asked.form}"
        )
        print(f"first start {first:.1f} s, second {again:.2f} s", flush=True)
        stream = data.train.values
        assert isinstance(stream, Stream)
        if asked.loader:
            from vaestro.randomness import Windows

            order, start, done = Windows(stream.sizes, stream.buffer, 64, 0), time.perf_counter(), 0
            for window in order.over(0, 6 * stream.buffer):
                stream.expect([(window, window.rows)])
                stream[window.rows]
                done += len(window.rows)
            print(
                f"{done / (time.perf_counter() - start):,.0f} rows a second with "
                f"{stream.source.workers} threads"
            )
            return
        # The decoded data: as many rows as are used for training here, stored as bytes.
        packed = replace(data, train=data.train.spread(20_000))
        runs = {
            "stream": training(source, data, asked.network),
            "decoded": training(source, packed, asked.network),
        }
        for run in runs.values():
            for _ in range(30):
                next(run)
        ratios, waited = [], 0.0
        speeds: dict[str, list[float]] = {"stream": [], "decoded": []}
        for _ in range(asked.rounds):
            took = {}
            for name, run in runs.items():
                start = time.perf_counter()
                before = stream.waited
                for _ in range(40):
                    next(run)
                took[name] = time.perf_counter() - start
                waited += stream.waited - before
                speeds[name].append(40 * 64 / took[name])
            ratios.append(took["decoded"] / took["stream"])
        print(
            f"images a second: stream {np.median(speeds['stream']):,.0f}, decoded "
            f"{np.median(speeds['decoded']):,.0f}; ratio "
            f"{np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, {asked.rounds} "
            f"rounds); waited {waited:.2f} s",
            flush=True,
        )
        command = [
            sys.executable,
            __file__,
            "--memory",
            source,
            "--seconds",
            str(asked.seconds),
            "--network",
            asked.network,
        ]
        early, most = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.split()
        print(
            f"anonymous memory: {early} MB at most in the first third of {asked.seconds:g} s, "
            f"{most} MB in the last"
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
