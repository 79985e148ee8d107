"""Cases of the study: data, options, and the findings that are right, allowed or wrong.

The right answers follow from the construction of data, networks and options, never from the output
of the program.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import study_data as made

Options = dict[str, Any]
# the end of its name, its data, its options, and those of the source
Run = tuple[str, Callable[[], Any], Options, str]
HEALTHY = ("healthy",)


@dataclass(frozen=True)
class Case:
    """Describe a run and the right answers.

    Args:
        name: of its folder.
        ill: whether the run has a constructed fault.
        make: draws the data.
        options: of `vaestro train`.
        verdicts: the right ones; empty if the verdict is not judged.
        must: names of findings that the diagnosis must contain.
        may: names of findings that are right, or that depend on a threshold.
        never: names of notes that would be wrong. Warnings and errors are wrong unless they are in
            `must` or `may`.
        source: options of the source.
        stop: number of steps after which the run is interrupted.
        after: a function that changes the data file after training.
    """

    name: str
    ill: bool
    make: Callable[[], Any]
    options: Options
    verdicts: tuple[str, ...]
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    source: str = ""
    stop: int | None = None
    after: Callable[[Path], None] | None = field(default=None, repr=False)

    def file(self) -> tuple[str, bytes]:
        """Return the name and the content of the file of the data."""
        data = self.make()
        if isinstance(data, np.ndarray):
            held = io.BytesIO()
            np.save(held, data)
            return "data.npy", held.getvalue()
        if isinstance(data, list):
            return "data.txt", ("\n".join(data) + "\n").encode()
        rows = zip(*(np.asarray(v).tolist() for v in data.values()), strict=True)
        return "data.csv", (
            "\n".join(",".join(map(str, row)) for row in (list(data), *rows)) + "\n"
        ).encode()

    def key(self, content: bytes) -> str:
        """Return a hash of data and options, which identifies a finished run."""
        return hashlib.sha256(
            content + json.dumps([self.options, self.source, self.stop], sort_keys=True).encode()
        ).hexdigest()


MISS, NOISE, MISFIT = (
    "aggregate posterior misses the prior",
    "units that carry noise",
    "variance that does not fit",
)
NOTES = ("small rate", NOISE, "weight of the KL")
COLLAPSED, UNUSED = ("posterior collapse",), ("latent unused",)
RAW = ":standardise=none"
SIZES = (200, 1000, 5000, 20_000)
LINEAR: Options = {"network": "linear", "latent": 3, "batch": 64, "lr": 0.01}
# in closed form, so that every run reaches it
OPTIMAL: Options = {"likelihood": "gaussian:variance=optimal"}


def healthy(name: str, make: Callable[[], Any], options: Options, **more: Any) -> Case:
    return Case(name, False, make, options, **{"verdicts": HEALTHY, "never": NOTES, **more})


def ill(
    name: str,
    make: Callable[[], Any],
    options: Options,
    verdict: str | tuple[str, ...],
    must: tuple[str, ...],
    **more: Any,
) -> Case:
    return Case(
        name, True, make, options, (verdict,) if isinstance(verdict, str) else verdict, must, **more
    )


def draws() -> int:
    """Return the number of this repetition of the study, the same in all its processes. It seeds
    the data."""
    return int(os.environ.get("STUDY_SEED", "0"))


def draw(function: Callable[..., Any], n: int, seed: int = 0, **options: Any) -> Callable[[], Any]:
    return lambda: function(n, seed + 10_000 * draws(), **options)


def by_hand(
    n: int, units: int = 3, encoder: str = "", decoder: str = "", **options: Any
) -> Options:
    """Return options of a linear model with weights set by hand and a fixed variance, so nothing is
    trained."""
    parts = {"encoder": "study_parts:Encoder", "decoder": "study_parts:Decoder"}
    written = {
        k: v + (f":{o}" if o else "")
        for (k, v), o in zip(parts.items(), (encoder, decoder), strict=True)
    }
    fixed = {
        "latent": units,
        "likelihood": "gaussian:variance=0.25",
        "batch": max(8, n // 20),
        "epochs": 8,
    }
    return {**fixed, **written, **options}


def small(latent: int, length: int, width: int = 64, **options: Any) -> Options:
    return {
        "network": f"mlp:width={width}",
        "latent": latent,
        "steps": length,
        "batch": 64,
        "lr": 5e-3,
    } | options


# -- healthy ---------------------------------------------------------------------------------------


def healthy_by_hand() -> list[Case]:
    """The exact posterior of the exact model: bound and density agree, and the aggregate posterior
    is the prior."""
    cases = []
    for n in SIZES:
        data = draw(made.linear, n, n)
        cases.append(healthy(f"exact-{n}", data, by_hand(n), source=RAW))
        wide = draw(made.linear, n, n + 1, cells=20, factors=5, strength=16.0)
        five = "strength=16,used=5"
        cases.append(healthy(f"exact-wide-{n}", wide, by_hand(n, 5, five, five), source=RAW))
    cases.append(
        healthy(
            "exact-15-validation-rows",
            draw(made.linear, 300, 7),
            by_hand(300),
            source=RAW + ",valid=15,test=0",
        )
    )
    cases.append(
        healthy(
            "exact-6-validation-rows",
            draw(made.linear, 120, 8),
            by_hand(120),
            source=RAW + ",valid=6,test=0",
        )
    )
    for n in (1000, 5000):
        thin = by_hand(n, 3, "noise=0.01", likelihood="gaussian:variance=0.01")
        cases.append(
            healthy(
                f"exact-low-rank-{n}",
                draw(made.linear, n, n + 3, cells=20, noise=0.01),
                thin,
                source=RAW,
            )
        )
    off = {"must": ("units switched off",)}
    cases.append(
        healthy("exact-idle-units", draw(made.linear, 1000, 9), by_hand(1000, 6), source=RAW, **off)
    )
    for n in (1000, 5000):
        # Outliers dominate every mean, but the decoder uses the latent, and no weight was learned
        # from the data.
        tails = draw(made.heavy, n, n + 4)
        cases.append(healthy(f"exact-tails-{n}", tails, by_hand(n), source=RAW, may=(MISS, MISFIT)))
    small_rate = ("small rate but informative",)
    for n in (5000, 20_000):
        faint = draw(made.linear, n, 10, factors=1, strength=0.5)
        cases.append(
            healthy(
                f"exact-faint-{n}",
                faint,
                by_hand(n, 1, "strength=0.5,used=1", "strength=0.5,used=1"),
                source=RAW,
                verdicts=small_rate,
                must=("small rate",),
                never=NOTES[1:],
            )
        )
    return cases


def healthy_linear() -> list[Case]:
    """Trained probabilistic PCA: units whose eigenvalue is above the variance are active, the
    others inactive."""
    cases = []
    for n, steps in ((200, 1500), (1000, 2500), (5000, 3000), (20_000, 3000)):
        options = {**LINEAR, "steps": steps, "likelihood": "gaussian:variance=shared"}
        cases.append(
            healthy(
                f"pca-{n}",
                draw(made.linear, n, n + 2),
                options,
                source=RAW,
                may=("validation bound falls",) * (n == 200),
            )
        )
    more = {**LINEAR, "latent": 8, "steps": 3000}
    off = {"must": ("units switched off",), "source": RAW}
    cases.append(
        healthy(
            "pca-idle-units",
            draw(made.linear, 5000, 3),
            {**more, "likelihood": "gaussian:variance=0.5"},
            **off,
        )
    )
    cases.append(
        healthy(
            "pca-optimal-variance", draw(made.linear, 5000, 4), {**more, "latent": 3, **OPTIMAL}
        )
    )
    weighted = {**more, "latent": 2, "likelihood": "gaussian:variance=0.25", "beta": 2.0}
    cases.append(
        healthy(
            "pca-beta-2",
            draw(made.linear, 5000, 5, factors=2),
            weighted,
            source=RAW,
            must=("weight of the KL",),
            never=NOTES[:2],
        )
    )
    half = {**more, "latent": 3, "likelihood": "gaussian:variance=0.25", "beta": 0.5}
    cases.append(
        healthy(
            "pca-beta-0.5",
            draw(made.linear, 5000, 6),
            half,
            source=RAW,
            must=("weight of the KL",),
            never=NOTES[:2],
        )
    )
    return cases


def healthy_binary() -> list[Case]:
    cases = []
    ways: list[tuple[str, Options]] = [
        ("normal", {}),
        ("residual", {"network": "residual:width=64,blocks=1"}),
        ("mixture", {"prior": "mixture:components=10"}),
        ("vamp", {"prior": "vamp:inputs=20"}),
        ("iwae", {"objective": "iwae:k=5"}),
        ("warm-up", {"beta": "warmup:share=0.3"}),
        ("free-bits", {"free_bits": 0.1}),
        ("full-normal", {"posterior": "full-normal"}),
    ]
    for name, options in ways:
        cases.append(
            healthy(f"templates-{name}", draw(made.templates, 5000, 1), small(4, 3000, **options))
        )
    cases.append(healthy("templates-1000", draw(made.templates, 1000, 2), small(4, 2000, 32)))
    cases.append(healthy("templates-20000", draw(made.templates, 20_000, 3), small(4, 4000)))
    for n, width in ((2000, 32), (5000, 64), (20_000, 64)):
        cases.append(healthy(f"bars-{n}", draw(made.bars, n, n), small(8, 5000, width)))
    for n in (2000, 5000, 20_000):
        cases.append(healthy(f"binary-{n}", draw(made.binary, n, n), small(4, 3000)))
    cases.append(
        healthy(
            "binary-capacity",
            draw(made.binary, 5000, 4),
            small(4, 3000, capacity="to=6,share=0.3,gamma=20"),
            may=(NOISE,),
        )
    )
    # The rate is driven to 25 nats: the final bound is below the initial one, but the final loss is
    # not.
    pressed = small(4, 3000, capacity="to=25,share=0.5,gamma=100")
    cases.append(
        healthy(
            "binary-capacity-25",
            draw(made.binary, 5000, 7),
            pressed,
            may=(MISS, NOISE),
            never=NOTES[:1],
        )
    )
    return cases


def healthy_real() -> list[Case]:
    cases = []
    for n, steps, width in (
        (200, 2500, 16),
        (1000, 3000, 32),
        (5000, 4000, 64),
        (20_000, 4000, 64),
    ):
        few = ("validation bound falls",) if n == 200 else ()
        cases.append(
            healthy(
                f"curve-{n}", draw(made.curve, n, n), small(2, steps, width, **OPTIMAL), may=few
            )
        )
    for n, steps, width in ((2000, 2500, 32), (5000, 3000, 64)):
        cases.append(
            healthy(f"waves-{n}", draw(made.waves, n, n), small(4, steps, width, **OPTIMAL))
        )
    cases.append(
        healthy("waves-laplace", draw(made.waves, 5000, 3), small(4, 4000, likelihood="laplace"))
    )
    cases.append(
        healthy(
            "shares", draw(made.shares, 2000, 4), small(2, 3000, 32, **OPTIMAL), source=":kind=real"
        )
    )
    for n, steps, width in ((1000, 2000, 32), (4000, 3000, 64)):
        cases.append(
            healthy(
                f"photographs-{n}", draw(made.photographs, n, n), small(4, steps, width, **OPTIMAL)
            )
        )
    heavy = (MISS,)
    for n, steps in ((200, 2000), (1000, 4000), (5000, 5000), (20_000, 5000)):
        # Hidden units that saturate, so that a row with a value of 10,000 has a code like any
        # other.
        net: Options = {
            "network": f"mlp:width={16 if n == 200 else 64},activation=tanh",
            "lr": 1e-2,
            "batch": 64 if n == 200 else 128,
        }
        data, options = (
            draw(made.heavy, n, n),
            small(3, steps, likelihood="student-t:df=1.5", **net),
        )
        cases.append(
            healthy(
                f"heavy-{n}",
                data,
                options,
                source=RAW,
                may=heavy + ("validation bound falls",) * (n == 200),
            )
        )
    robust = {**LINEAR, "steps": 3000, "likelihood": "student-t:df=3"}
    cases.append(
        healthy("heavy-linear", draw(made.heavy, 5000, 11, df=3.0), robust, source=RAW, may=heavy)
    )
    # Under a Gaussian a few rows dominate every result except one: the run did not diverge.
    matter_of_degree = (
        "not converged",
        "overfitting",
        "validation bound falls",
        "log-variance at its limit",
        MISS,
        MISFIT,
    )
    for n in (1000, 5000):
        data, options = draw(made.heavy, n, n + 1, df=1.2), small(3, 2000, 32, lr=2e-3)
        cases.append(
            healthy(
                f"tails-{n}",
                data,
                options,
                verdicts=(),
                may=matter_of_degree + COLLAPSED + UNUSED,
                never=(),
            )
        )
    return cases


def healthy_others() -> list[Case]:
    cases = []
    for n, steps, width in ((1000, 2500, 16), (5000, 3000, 32), (20_000, 3500, 32)):
        cases.append(
            healthy(
                f"counts-{n}", draw(made.counts, n, n), small(2, steps, width), source=":kind=count"
            )
        )
    for n, steps, width in ((1000, 1500, 16), (5000, 2500, 32), (20_000, 2500, 32)):
        cases.append(healthy(f"table-{n}", draw(made.table, n, n), small(2, steps, width)))
    words: Options = {
        "latent": 4,
        "likelihood": "categorical",
        "network": "mlp:width=64",
        "batch": 32,
        "lr": 5e-3,
    }
    for n, steps in ((1000, 1500), (2000, 2000)):
        cases.append(
            healthy(
                f"sentences-{n}",
                draw(made.sentences, n, n),
                {**words, "steps": steps},
                source=":tokens=words",
            )
        )
    return cases


# -- ill -------------------------------------------------------------------------------------------

SHIFTED, LOUD, DEAF = "tests.ill_runs:Shifted", "tests.ill_runs:Loud", "tests.ill_runs:Deaf"


def collapsed() -> list[Case]:
    cut: list[Run] = [
        *((f"exact-{n}", draw(made.linear, n, 1), by_hand(n, 3, "used=0"), RAW) for n in SIZES),
        *(
            (f"shifted-{n}", draw(made.linear, n, 2), by_hand(n, 3, "used=0,shift=2"), RAW)
            for n in SIZES
        ),
        ("binary-5000", draw(made.binary, 5000, 3), small(4, 1500, encoder=SHIFTED), ""),
        ("curve-1000", draw(made.curve, 1000, 4), small(2, 1500, encoder=SHIFTED, **OPTIMAL), ""),
        ("counts-1000", draw(made.counts, 1000, 5), small(2, 2000, encoder=SHIFTED), ":kind=count"),
        (
            "photographs-400",
            draw(made.photographs, 400, 6),
            small(4, 1500, encoder=SHIFTED, likelihood="gaussian"),
            "",
        ),
        (
            "table-1000",
            draw(made.table, 1000, 7),
            small(2, 2000, encoder="study_parts:Encoder:used=0"),
            "",
        ),
    ]
    may = (MISS, MISFIT)  # a fixed variance does not fit if nothing is reconstructed
    cases = [
        ill(f"cut-{name}", data, options, "collapsed", COLLAPSED, source=source, may=may)
        for name, data, options, source in cut
    ]
    heavy: list[Run] = [
        ("binary-5000", draw(made.binary, 5000, 8), small(4, 3000, beta=100.0), ""),
        ("templates-1000", draw(made.templates, 1000, 9), small(4, 2000, beta=50.0), ""),
        (
            "linear-20000",
            draw(made.linear, 20_000, 10),
            {**LINEAR, "steps": 2500, "beta": 100.0, "likelihood": "gaussian:variance=0.25"},
            RAW,
        ),
        ("table-1000", draw(made.table, 1000, 11), small(2, 3000, 32, beta=200.0), ""),
    ]
    cases += [
        ill(
            f"beta-{name}",
            data,
            options,
            "collapsed",
            ("posterior collapse", "weight of the KL"),
            source=source,
            may=(MISFIT,),
        )
        for name, data, options, source in heavy
    ]
    wide = {**LINEAR, "steps": 2000, "likelihood": "gaussian:variance=40"}
    cases.append(
        ill(
            "variance-40",
            draw(made.linear, 5000, 12),
            wide,
            "collapsed",
            ("posterior collapse", MISFIT),
            source=RAW,
        )
    )
    texts = {"network": "gru:width=32", "latent": 8, "batch": 32, "steps": 1500, "lr": 0.01}
    said: Options = {"must": COLLAPSED, "source": ":tokens=words"}
    cases.append(
        ill(
            "beta-sentences",
            draw(made.sentences, 1000, 13),
            {**texts, "beta": 10.0},
            "collapsed",
            **said,
        )
    )
    return cases


def unused() -> list[Case]:
    may = (MISS, NOISE, MISFIT)
    deaf: list[Run] = [
        *(
            (f"exact-{n}", draw(made.linear, n, 14), by_hand(n, 3, "", "used=0"), RAW)
            for n in SIZES
        ),
        (
            "binary-5000",
            draw(made.binary, 5000, 16),
            small(4, 1500, encoder=LOUD, decoder=DEAF),
            "",
        ),
        ("bars-1000", draw(made.bars, 1000, 17), small(4, 1500, encoder=LOUD, decoder=DEAF), ""),
        (
            "curve-1000",
            draw(made.curve, 1000, 18),
            small(2, 1500, encoder=LOUD, decoder=DEAF, **OPTIMAL),
            "",
        ),
    ]
    return [
        ill(
            f"deaf-{name}",
            data,
            options,
            "latent unused by the decoder",
            UNUSED,
            source=source,
            may=may,
        )
        for name, data, options, source in deaf
    ]


def short() -> list[Case]:
    """At most a tenth of the necessary steps, or a learning rate too low for them: ten times as
    many steps gain 3 % of the bound or more."""
    may = (
        "partial collapse",
        MISFIT,
        MISS,
        *COLLAPSED,
        *UNUSED,
        "units switched off",
        "small rate",
    )
    makes: list[tuple[str, Callable[[], Any], Options, str, int | None]] = [
        ("binary-2000", draw(made.binary, 2000, 5), small(4, 150), "", None),
        ("bars-2000", draw(made.bars, 2000, 2), small(8, 250, 32), "", None),
        ("curve-2000", draw(made.curve, 2000, 2000), small(2, 150, **OPTIMAL), "", None),
        ("waves-2000", draw(made.waves, 2000, 1), small(4, 150, 32, **OPTIMAL), "", None),
        ("counts-2000", draw(made.counts, 2000, 1), small(2, 150, 32), ":kind=count", None),
        ("table-1000", draw(made.table, 1000, 1), small(2, 120, 16), "", None),
        (
            "photographs-1000",
            draw(made.photographs, 1000, 1000),
            small(4, 100, 32, **OPTIMAL),
            "",
            None,
        ),
        ("templates-1000", draw(made.templates, 1000, 2), small(4, 100, 32), "", None),
        ("slow-waves", draw(made.waves, 5000, 1), small(4, 1500, lr=5e-5, **OPTIMAL), "", None),
        ("slow-binary", draw(made.binary, 5000, 1), small(4, 1500, lr=1e-4), "", None),
        (
            "slow-linear",
            draw(made.linear, 5000, 1),
            {**LINEAR, "steps": 1000, "lr": 3e-4},
            RAW,
            None,
        ),
        ("stopped-bars", draw(made.bars, 5000, 5000), small(8, 5000), "", 600),
        ("stopped-curve", draw(made.curve, 5000, 5000), small(2, 4000, **OPTIMAL), "", 400),
        ("two-validations", draw(made.templates, 5000, 1), small(4, 120), "", None),
    ]
    return [
        ill(
            f"short-{name}",
            data,
            options,
            "not converged",
            ("not converged",),
            may=may,
            source=source,
            stop=stop,
        )
        for name, data, options, source, stop in makes
    ]


def diverged() -> list[Case]:
    may = ("steps skipped",)
    sgd: Options = {"optimizer": "sgd", "clip": 1e30}
    makes: list[Run] = [
        ("binary-1000", draw(made.binary, 1000, 20), small(4, 600, lr=1e8, **sgd), ""),
        ("curve-5000", draw(made.curve, 5000, 21), small(2, 600, lr=1e4, **sgd, **OPTIMAL), ""),
        ("counts-1000", draw(made.counts, 1000, 22), small(2, 600, lr=1e6, **sgd), ":kind=count"),
        (
            "linear-20000",
            draw(made.linear, 20_000, 23),
            {**LINEAR, "steps": 900, **sgd, "lr": 100.0},
            RAW,
        ),
    ]
    return [
        ill(f"diverged-{name}", data, options, "diverged", ("divergence",), source=source, may=may)
        for name, data, options, source in makes
    ]


def overfitted() -> list[Case]:
    """Few rows, many weights, many steps, and no selection of weights."""
    big = {"network": "mlp:width=256", "batch": 32, "latent": 16, "steps": 3000, "keep": "last"}
    must = ("overfitting",)
    may = (
        "validation bound falls",
        MISS,
        MISFIT,
        "log-variance at its limit",
        "units switched off",
        NOISE,
    )
    held = "valid=60,test=0"
    makes: list[tuple[str, Callable[[], Any], str]] = [
        ("binary-300", draw(made.binary, 300, 24, factors=12), f":{held}"),
        ("templates-200", draw(made.templates, 200, 25, classes=150, flips=0.2), f":{held}"),
        ("bars-200", draw(made.bars, 200, 26), f":{held}"),
        ("counts-200", draw(made.counts, 200, 27, factors=10), f":kind=count,{held}"),
        (
            "linear-200",
            draw(made.linear, 200, 28, cells=30, factors=15, noise=1.0),
            f"{RAW},{held}",
        ),
    ]
    cases = [
        ill(f"overfitted-{name}", data, big, "overfitted", must, source=source, may=may)
        for name, data, source in makes
    ]
    # The same with selected weights: the bound of the last weights is far lower, and the selected
    # ones may be overfitted or not.
    best, right = {**big, "keep": "best"}, ("healthy", "overfitted")
    fell = ("validation bound falls",)
    return cases + [
        ill(f"falls-{name}", data, best, right, fell, source=source, may=must + may)
        for name, data, source in makes
        if name in ("binary-300", "bars-200", "linear-200")
    ]


def partly_collapsed() -> list[Case]:
    """With a KL weight of beta and a fixed variance, the active directions of a linear model are
    exactly those with more than beta times this variance."""
    net = {**LINEAR, "steps": 3000, "likelihood": "gaussian:variance=0.25"}
    must, verdict = ("partial collapse", "weight of the KL"), "partly collapsed"
    may = (MISS, MISFIT, "small rate")
    cases = [
        # Variances along the factors: 16.25, 8.25 and 4.25; beta times the fixed one: 6, 6 and 10.
        ill(
            f"partial-linear-{n}",
            draw(made.linear, n, n, strength=16.0),
            {**net, "beta": beta},
            verdict,
            must,
            source=RAW,
            may=may,
        )
        for n, beta in ((1000, 24.0), (5000, 24.0), (20_000, 40.0))
    ]
    cases += [
        ill(
            f"partial-exact-{n}",
            draw(made.linear, n, n),
            by_hand(n, 3, "used=2", "used=2", beta=12.0),
            verdict,
            must,
            source=RAW,
            may=may,
        )
        for n in SIZES
    ]
    cases.append(
        ill(
            "partial-bars",
            draw(made.bars, 5000, 33),
            small(8, 4000, beta=3.0),
            verdict,
            must,
            may=may,
        )
    )
    return cases


def of_the_code() -> list[Case]:
    """Faults of the code of known size, set by hand in an exact linear model."""
    cases = []
    healthy_else = {"source": RAW}
    for n in SIZES:
        # KL of a unit: ln(1 / (1 - .9^2)) / 2 = .83 nats, for a direction of the noise that the
        # decoder does not read.
        cases.append(
            ill(
                f"noise-{n}",
                draw(made.linear, n, 40),
                by_hand(n, 5, "copy=0.9"),
                HEALTHY,
                (NOISE,),
                **healthy_else,
            )
        )
    for n in SIZES:
        # Every unit's aggregate posterior is N(2.5, 1): KL 3.1 nats each.
        shift = by_hand(n, 3, "shift=2.5", "shift=2.5")
        cases.append(
            ill(f"miss-{n}", draw(made.linear, n, 41), shift, HEALTHY, (MISS,), **healthy_else)
        )
    low = small(4, 4000, beta=1e-4)
    may = ("overfitting", "log-variance at its limit", "validation bound falls", "not converged")
    missed = ("weight of the KL", MISS)
    cases.append(
        ill(
            "miss-binary-beta",
            draw(made.binary, 5000, 42),
            low,
            ("healthy", "overfitted", "not converged"),
            missed,
            may=may,
        )
    )
    for n in SIZES:
        # Two of five units have a log-variance of -18 with a limit of 20: 8.5 nats each, which the
        # decoder does not read.
        limit = by_hand(n, 5, "copy=1,logvar=-18")
        must = ("log-variance at its limit",)
        cases.append(
            ill(
                f"limit-{n}",
                draw(made.linear, n, 43),
                limit,
                HEALTHY,
                must,
                may=(NOISE, MISS),
                **healthy_else,
            )
        )
    for n in SIZES:
        for variance, name in ((2.5, "large"), (0.025, "small")):
            options = by_hand(n, likelihood=f"gaussian:variance={variance:g}")
            cases.append(
                ill(
                    f"variance-{name}-{n}",
                    draw(made.linear, n, 44),
                    options,
                    HEALTHY,
                    (MISFIT,),
                    **healthy_else,
                )
            )
    return cases


def twins(make: Callable[[], Any], share: int) -> Callable[[], Any]:
    """Repeat every `share`-th row at the end of the data. Many rows are then in two splits."""

    def repeated() -> Any:
        data = make()
        if isinstance(data, np.ndarray):
            return np.concatenate([data, data[::share]])
        if isinstance(data, list):
            return data + data[::share]
        return {k: np.concatenate([v, v[::share]]) for k, v in data.items()}

    return repeated


def redrawn(file: Path) -> None:
    """Replace the data by the same number of rows from the same distribution."""
    np.save(file, made.linear(len(np.load(file)), 99))


def of_the_data() -> list[Case]:
    twin, changed, none = ("duplicates between splits",), ("data changed",), ("no validation",)
    cases = [
        *(
            ill(
                f"twins-linear-{n}",
                twins(draw(made.linear, n, 50, cells=20), 2),
                by_hand(n),
                HEALTHY,
                twin,
                source=RAW,
            )
            for n in SIZES
        ),
        ill("twins-bars", twins(draw(made.bars, 2000, 51), 2), small(8, 4000, 32), HEALTHY, twin),
        ill(
            "twins-waves",
            twins(draw(made.waves, 2000, 52), 2),
            small(4, 2500, 32, **OPTIMAL),
            HEALTHY,
            twin,
        ),
        ill("twins-table", twins(draw(made.table, 1000, 53), 2), small(2, 1500, 16), HEALTHY, twin),
        *(
            ill(
                f"changed-{n}",
                draw(made.linear, n, 54),
                by_hand(n),
                HEALTHY,
                changed,
                source=RAW,
                after=redrawn,
            )
            for n in SIZES
        ),
        *(
            ill(
                f"no-validation-{n}",
                draw(made.linear, n, 56),
                by_hand(n),
                HEALTHY,
                none,
                source=RAW + ",valid=0",
            )
            for n in SIZES
        ),
        ill(
            "no-validation-binary",
            draw(made.templates, 5000, 57),
            small(4, 3000),
            HEALTHY,
            none,
            source=":valid=0,test=0",
        ),
    ]
    noise = ("collapsed", "latent unused by the decoder")
    may = ("posterior collapse", "latent unused", NOISE, "validation bound falls")
    nothing: list[Run] = [
        ("coins-3000", draw(made.coins, 3000, 60), small(8, 3000, 128), ""),
        ("coins-1000", draw(made.coins, 1000, 61, cells=32), small(4, 2000), ""),
        ("white-5000", draw(made.white, 5000, 62), small(3, 3000), ""),
        (
            "counts-2000",
            draw(made.lone_counts, 2000, 63),
            small(3, 3000, likelihood="poisson"),
            ":kind=count",
        ),
    ]
    cases += [
        ill(
            f"nothing-{name}",
            data,
            options,
            noise,
            (),
            may=may,
            never=("small rate",),
            source=source,
        )
        for name, data, options, source in nothing
    ]
    return cases


def of_training() -> list[Case]:
    late: Options = {"must": ("schedule too long",), "may": ("not converged", "partial collapse")}
    skipped = ("steps skipped",)
    linear = {**LINEAR, "steps": 2000, "likelihood": "gaussian:variance=shared"}
    stumbling = {**linear, "encoder": "study_parts:Stumbling"}
    rising, either = {**linear, "beta": "warmup:share=1"}, ("healthy", "not converged")
    return [
        ill("late-linear", draw(made.linear, 1000, 70), rising, either, source=RAW, **late),
        ill(
            "late-templates",
            draw(made.templates, 5000, 71),
            small(4, 3000, beta="warmup:share=0.98"),
            either,
            **late,
        ),
        ill("skipped-linear", draw(made.linear, 1000, 72), stumbling, HEALTHY, skipped, source=RAW),
        ill(
            "skipped-linear-5000",
            draw(made.linear, 5000, 73),
            {**stumbling, "steps": 3000},
            HEALTHY,
            skipped,
            source=RAW,
        ),
    ]


CASES: tuple[Case, ...] = (
    *healthy_by_hand(),
    *healthy_linear(),
    *healthy_binary(),
    *healthy_real(),
    *healthy_others(),
    *collapsed(),
    *unused(),
    *short(),
    *diverged(),
    *overfitted(),
    *partly_collapsed(),
    *of_the_code(),
    *of_the_data(),
    *of_training(),
)
