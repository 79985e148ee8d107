"""Measure memory and time of reading data from disk.

    python bench/memory.py decoding [--images 5000] [--size 64] [--rounds 1]
    python bench/memory.py training [--small 500] [--large 5000] [--steps 300] [--rounds 10]
                                    [--binarise dynamic]
    python bench/memory.py cold [--megabytes 1000] [--steps 8] [--rounds 10]
    python bench/memory.py start [--megabytes 2000] [--rounds 3]
    python bench/memory.py starved [--megabytes 2000]

decoding: images per second of `read_images` over a folder of photographs, processor usage, and
increase of anonymous memory; then a second call, which reads the result from the cache. The
photographs are 500x375 JPEG of quality 90, cropped at random from samples of scikit-learn and
scikit-image. They were just written, so the disk is not a bottleneck.

training: peak anonymous memory and rows per second of training on arrays of 64x64 colour images.
--small and --large are their sizes in MB; each runs in its own process. Then one process trains on
both alternately, in blocks of 32 steps after a warm-up of 32, and prints the ratio of their speeds.
Other jobs on the machine affect both equally.

cold: the same training on an array whose pages are dropped from memory before every block, as
happens when data are larger than memory. It alternates with training on the same rows in memory.

start: seconds until `load` returns, for a new file and for a file that was read before, and seconds
from then to the first training step. Each is compared with a plain read of the file. The data are
64x64 colour images, as bytes and as float32 with noise. Each is measured with all pages of the file
in memory, and with none.

starved: seconds, and bytes read from disk, when `load` reads a new file of 64x64 colour images
while its pages are dropped from memory every half second. This simulates data larger than memory.
"""

from __future__ import annotations

import argparse
import gc
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaestro.data.images import read_images


def anonymous() -> float:
    """Return this process's anonymous memory in MB, which excludes memory-mapped files."""
    line = next(
        x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon")
    )
    return int(line.split()[1]) / 1024


def machine() -> float:
    """Return the busy seconds of all processors so far, for this process and for others."""
    user, nice, system, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def photographs(folder: Path, count: int) -> None:
    """Write photographs into ten class folders."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    samples = [
        *load_sample_images().images,
        data.astronaut(),
        data.coffee(),
        data.rocket(),
        data.stereo_motorcycle()[0],
    ]
    rng = np.random.default_rng(0)
    draws = [
        (rng.integers(len(samples)), rng.random(), rng.random(), rng.integers(2))
        for _ in range(count)
    ]

    def write(i: int) -> None:
        which, down, across, mirrored = draws[i]
        sample = samples[which]
        top, left = int(down * (sample.shape[0] - 374)), int(across * (sample.shape[1] - 499))
        picture = sample[top : top + 375, left : left + 500]
        Image.fromarray(picture[:, ::-1] if mirrored else picture).save(
            folder / str(i % 10) / f"{i:06}.jpg", quality=90
        )

    for name in range(10):
        (folder / str(name)).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))


def decoding(options: argparse.Namespace) -> None:
    processors = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photographs"
        photographs(folder, options.images)
        files = [p.stat().st_size for p in folder.rglob("*.jpg")]
        each = sum(files) / len(files) / 1024
        print(
            f"{len(files):,} photographs of 500x375, {each:.0f} KB each, size={options.size}, "
            f"{processors} processors"
        )
        for round in range(options.rounds):
            os.environ["VAESTRO_CACHE"] = str(Path(place) / f"cache{round}")
            before, peak = anonymous(), 0.0

            def watch(what: str, done: int, total: int) -> None:
                nonlocal peak
                peak = max(peak, anonymous())

            wall, cpu, used = time.perf_counter(), time.process_time(), machine()
            read_images(folder, {"size": options.size}, watch)
            wall, cpu, used = (
                time.perf_counter() - wall,
                time.process_time() - cpu,
                machine() - used,
            )
            again = time.perf_counter()
            read_images(folder, {"size": options.size})
            again = time.perf_counter() - again
            own, others = cpu / wall / processors, max(0.0, used - cpu) / wall / processors
            print(
                f"{len(files) / wall:,.0f} images/s, {wall:.2f} s, processors {own:.0%} busy "
                f"with it and {others:.0%} with others' work, "
                f"anonymous memory +{peak - before:.0f} MB; from the cache {again:.3f} s"
            )


def write_images(path: Path, megabytes: int) -> None:
    """Write an array of 64x64 colour images."""
    rows = megabytes * 10**6 // 12288
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, 64, 64, 3))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 2048):
        levels = rng.integers(0, 200, (len(array[start : start + 2048]), 8, 8, 3), dtype=np.uint8)
        array[start : start + 2048] = levels.repeat(8, 1).repeat(8, 2) + rng.integers(
            0, 50, (64, 64, 3), dtype=np.uint8
        )
    array.flush()


def training(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.environ["VAESTRO_CACHE"] = str(Path(place) / "cache")
        paths = [Path(place) / f"{megabytes}.npy" for megabytes in (options.small, options.large)]
        for path, megabytes in zip(paths, (options.small, options.large), strict=True):
            write_images(path, megabytes)
            arguments = [
                "--steps",
                str(options.steps),
                "--path",
                str(path),
                "--binarise",
                options.binarise,
            ]
            subprocess.run([sys.executable, __file__, "once", *arguments], check=True)
        if options.rounds:
            alternating(paths, options.rounds, options.binarise)


def cold(options: argparse.Namespace) -> None:
    import vaestro as vs

    with tempfile.TemporaryDirectory() as place:
        os.environ["VAESTRO_CACHE"] = str(Path(place) / "cache")
        path = Path(place) / "x.npy"
        write_images(path, options.megabytes)
        os.sync()  # only what is on the disk can be dropped
        data = vs.load(str(path))
        data = replace(data, valid=data.valid.take(0))
        mapped = data.train.values
        pages: object = mapped
        while isinstance(pages, np.ndarray):
            pages = pages.base
        assert isinstance(mapped, np.ndarray) and isinstance(pages, mmap.mmap)
        in_memory = replace(data, train=replace(data.train, values=np.array(mapped)))
        runs = [started(d, 10**6) for d in (in_memory, data)]
        seconds = np.empty((options.rounds + 1, 2))
        for round in range(options.rounds + 1):
            for i in (0, 1):
                pages.madvise(mmap.MADV_DONTNEED)
                drop(path)
                start = time.perf_counter()
                for _ in range(options.steps):
                    next(runs[i])
                seconds[round, i] = time.perf_counter() - start
    ratios = seconds[1:, 0] / seconds[1:, 1]
    print(
        f"{options.megabytes:,} MB, {options.rounds} rounds of {options.steps} steps in turns; "
        f"speed from the disk / from memory: "
        f"median {np.median(ratios):.3f}, quartiles {np.quantile(ratios, 0.25):.3f} and "
        f"{np.quantile(ratios, 0.75):.3f}"
    )


def drop(path: Path) -> None:
    """Drop the pages of a file, or of all files below a folder, from memory. Mapped pages
    remain."""
    for each in [path] if path.is_file() else filter(Path.is_file, path.rglob("*")):
        with each.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start(options: argparse.Namespace) -> None:
    import vaestro as vs

    with tempfile.TemporaryDirectory() as place:
        folder, path = Path(place), Path(place) / "x.npy"
        os.environ["VAESTRO_CACHE"] = str(folder / "cache")
        write_images(folder / "small.npy", 20)
        started(folder / "small.npy", 8)  # not measured: the first run includes start-up

        def read() -> None:
            buffer = bytearray(2**24)
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

        for kind, likelihood in (("bytes", "discretized-logistic"), ("float32", "gaussian")):
            write_images(path, options.megabytes if kind == "bytes" else options.megabytes // 4)
            if kind == "float32":
                array = np.load(path)
                np.save(
                    path,
                    array.astype(np.float32)
                    + np.random.default_rng(0).random(array.shape, np.float32),
                )
                del array
            works: tuple[Callable[[], Any], ...] = (
                read,
                partial(vs.load, str(path)),
                partial(vs.load, str(path)),
                partial(started, path, 8, likelihood),
            )
            for cold in (True, False):
                seconds = np.empty((options.rounds, len(works)))
                for round in range(options.rounds):
                    shutil.rmtree(folder / "cache", ignore_errors=True)
                    for i, work in enumerate(works):
                        gc.collect()
                        if cold:
                            os.sync()  # only what is on the disk can be dropped
                            drop(folder)
                        begun = time.perf_counter()
                        work()
                        seconds[round, i] = time.perf_counter() - begun
                first, again = np.median(seconds[:, 1:3] / seconds[:, :1], 0)
                times = [f"{t:.2f} s" for t in np.median(seconds, 0)]
                where = "on the disk" if cold else "in memory"
                print(
                    f"{path.stat().st_size / 1e6:,.0f} MB of {kind} {where}: a plain read "
                    f"{times[0]}; load {times[1]} ({first:.2f} reads), "
                    f"again {times[2]} ({again:.3f} reads); again, and to the first step "
                    f"{times[3]}",
                    flush=True,
                )


def starved(options: argparse.Namespace) -> None:
    import vaestro as vs

    def came() -> int:
        line = next(
            x for x in Path("/proc/self/io").read_text().splitlines() if x.startswith("read_bytes")
        )
        return int(line.split()[1])

    with tempfile.TemporaryDirectory() as place:
        path, loaded = Path(place) / "x.npy", threading.Event()
        os.environ["VAESTRO_CACHE"] = str(Path(place) / "cache")
        write_images(path, options.megabytes)
        open_memmap = np.memmap.__new__
        mapped: list[mmap.mmap] = []

        def opened(*args: Any, **named: Any) -> Any:
            array: Any = open_memmap(*args, **named)
            mapped.append(array._mmap)
            return array

        def starve() -> None:
            while not loaded.wait(0.5):
                for pages in mapped:
                    pages.madvise(mmap.MADV_DONTNEED)  # mapped pages cannot be dropped
                drop(path)

        np.memmap.__new__ = staticmethod(opened)  # type: ignore[method-assign,assignment]
        os.sync()
        drop(path)
        thread = threading.Thread(target=starve)
        thread.start()
        begun, before = time.perf_counter(), came()
        vs.load(str(path))
        seconds, read = time.perf_counter() - begun, came() - before
        loaded.set()
        thread.join()
        size = path.stat().st_size
        print(
            f"{size / 1e6:,.0f} MB: load {seconds:.1f} s, {read / 1e6:,.0f} MB from the disk "
            f"({read / size:.2f} times the file)"
        )


def started(
    source: Any, steps: int, likelihood: str = "discretized-logistic", binarise: str = "none"
) -> Iterator[Any]:
    """Start training on an array, which is read first if it is a path."""
    import vaestro as vs

    if binarise != "none":
        source, likelihood = f"{source}:binarise={binarise}", "bernoulli"
    data = vs.load(str(source)) if isinstance(source, (str, Path)) else source
    model = vs.build(data.space, latent=16, network="mlp:width=64", likelihood=likelihood)
    run: Iterator[Any] = vs.training(
        model, vs.Objective(), data, steps=steps, batch=128, device="cpu", compile="off"
    )
    next(run)
    return run


def alternating(paths: Sequence[Path], rounds: int, binarise: str, block: int = 32) -> None:
    """Print the ratio of training speeds on two arrays, measured in alternating blocks of steps."""
    runs = [started(path, block * (rounds + 1) + 1, binarise=binarise) for path in paths]
    seconds = np.empty((rounds + 1, 2))
    for round in range(rounds + 1):
        for i in (0, 1) if round % 2 else (1, 0):
            start = time.perf_counter()
            for _ in range(block):
                next(runs[i])
            seconds[round, i] = time.perf_counter() - start
    ratios = seconds[1:, 0] / seconds[1:, 1]
    print(
        f"in turns, {rounds} rounds of {block} steps: "
        f"{block * 128 / np.median(seconds[1:, 0]):,.0f} and "
        f"{block * 128 / np.median(seconds[1:, 1]):,.0f} images/s; speed on the larger / on the "
        f"smaller: "
        f"median {np.median(ratios):.3f}, quartiles {np.quantile(ratios, 0.25):.3f} and "
        f"{np.quantile(ratios, 0.75):.3f}"
    )


def once(options: argparse.Namespace) -> None:
    import vaestro  # noqa: F401  the import is not measured

    before, peak, start = anonymous(), 0.0, time.perf_counter()
    run = started(options.path, options.steps, binarise=options.binarise)
    loaded, peak = time.perf_counter() - start, anonymous()
    start = time.perf_counter()
    for _ in range(options.steps - 1):
        next(run)
        peak = max(peak, anonymous())
    speed = 128 * (options.steps - 1) / (time.perf_counter() - start)
    size = Path(options.path).stat().st_size / 1e6
    print(
        f"{size:,.0f} MB on the disk: anonymous memory +{peak - before:.0f} MB, {speed:,.0f} "
        f"images/s, first step after {loaded:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)

    def command(run: Callable[[argparse.Namespace], None], **defaults: int | str) -> None:
        added = commands.add_parser(run.__name__)
        for name, value in defaults.items():
            added.add_argument(f"--{name}", type=type(value), default=value)
        added.set_defaults(run=run)

    command(decoding, images=5000, size=64, rounds=1)
    command(training, small=500, large=5000, steps=300, rounds=10, binarise="none")
    command(cold, megabytes=1000, steps=8, rounds=10)
    command(start, megabytes=2000, rounds=3)
    command(starved, megabytes=2000)
    command(once, path="", steps=300, binarise="none")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
