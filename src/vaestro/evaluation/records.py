"""The result of an evaluation: estimates with their side, measure and standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from vaestro.files import Json
from vaestro.notebook import Card, Shown

if TYPE_CHECKING:
    from vaestro.evaluation.fidelity import Fidelity
    from vaestro.evaluation.resemblance import Resemblance

SIMULATED = "simulated data"


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate of log p(x) of each datum by one method.

    Args:
        method: elbo, iwae or ais.
        nats: (N,), float64.
        side: "lower", "upper" or "exact".
        measure: "counting" for probabilities, "lebesgue" for densities in the user's units, "mixed"
            for tables of both.
        k: number of draws per datum; of chains for ais.
        how: the method in words.
        cells: number of cells of a datum; the mean number of observed cells if some are missing.
        ess: effective number of draws of each datum (N,), 1 .. k; None for methods without it.
        seconds: time of the computation.
        given: names of the conditions of p(x).
        on: "data", or "simulated data" drawn from the model.
        details: further numbers by name, such as the number of temperatures.
        index: places of its data among the evaluated rows, (N,), increasing; None for the first N,
            and for simulated data.

    >>> estimate = Estimate(
    ...     "iwae", np.array([-90.0, -92.0]), "lower", "counting", 100, "IWAE with 100 draws", 784
    ... )
    >>> estimate.mean()
    (-91.0, 1.0)
    >>> estimate.sentence("2 test images")
    'log p(x) >= -91.00 +- 1.00 nats (IWAE with 100 draws, 2 test images)'
    """

    method: str
    nats: np.ndarray
    side: str
    measure: str
    k: int
    how: str
    cells: float
    ess: np.ndarray | None = None
    seconds: float = 0.0
    given: tuple[str, ...] = ()
    on: str = "data"
    details: Mapping[str, Json] = field(default_factory=dict)
    index: np.ndarray | None = None

    def of_rows(self, order: np.ndarray) -> Estimate:
        """Return the estimate sorted by place. Its data are the first of `order`, the places of the
        rows in the order of their evaluation (M,)."""
        if self.on == SIMULATED:
            return self
        mine = order[: len(self.nats)]
        by_place = np.argsort(mine)
        ess = None if self.ess is None else self.ess[by_place]
        return replace(self, nats=self.nats[by_place], ess=ess, index=mine[by_place])

    def mean(self) -> tuple[float, float]:
        """Return the mean over data and its standard error, in nats."""
        return mean_and_error(self.nats)

    @property
    def bits_per_dim(self) -> float | None:
        """Return -mean / (cells ln 2), for text data per token; None for densities."""
        return -self.mean()[0] / (self.cells * math.log(2)) if self.measure == "counting" else None

    @property
    def bits(self) -> str:
        """Return the bits per dimension or token in words; "" for densities."""
        bits = self.bits_per_dim
        return (
            ""
            if bits is None
            else f" = {bits:.4f} bits/{'token' if 'tokens' in self.details else 'dim'}"
        )

    def sentence(self, data: str) -> str:
        """Return the result in words, with its side, error, method and data."""
        mean, error = self.mean()
        of = f" | {', '.join(self.given)}" if self.given else ""
        sign = {"lower": ">=", "upper": "<=", "exact": "="}[self.side]
        partly = {"counting": "", "mixed": ", partly"}.get(self.measure, ",")
        density = f"{partly} a density in the units of the data" if partly else ""
        where = f"{len(self.nats):,} data drawn from the model" if self.on == SIMULATED else data
        return (
            f"log p(x{of}) {sign} {plus_minus((mean, error))} nats ({self.how}, {where}{density})"
        )

    def notes(self) -> list[str]:
        """Return sentences on the reliability of the number."""
        notes = []
        if self.ess is not None and self.k > 1:
            low, middle = np.quantile(self.ess, [0.05, 0.5])
            of = f"{self.k:,} {'chains' if self.method == 'ais' else 'draws'}"
            notes.append(
                f"effectively {middle:.1f} of {of} for the median datum, fewer than {low:.1f} "
                f"for 5% of the data"
            )
        if "rise" in self.details:
            rise = plus_minus((self.details["rise"], self.details.get("rise_stderr", math.nan)))
            notes.append(
                f"the bound rose by {rise} nats from {self.details['rise_from_k']:,} draws to "
                f"{self.k:,}"
            )
        if "sampled" in self.details and not math.isclose(
            self.details["sampled"], self.mean()[0], abs_tol=5e-3
        ):
            notes.append(
                f"with log q - log p at the draws instead of the closed-form KL: "
                f"{self.details['sampled']:.2f}"
            )
        if "tokens" in self.details:
            limit = {"lower": "at most ", "upper": "at least ", "exact": ""}[self.side]
            notes.append(
                f"perplexity {limit}{self.details['perplexity']:.2f} per token, over "
                f"{self.details['tokens']:,} tokens including the end of each text"
            )
        if "log_cells" in self.details and self.side == "lower" and self.on == "data":
            cells, mean = self.details["log_cells"], self.mean()[0]
            if self.measure == "counting":
                notes.append(
                    f"the density of the dequantised data is {mean - cells:.2f}; the volume of "
                    f"the cells adds {cells:.2f}"
                )
            else:
                notes.append(
                    f"as a probability of the values on their grid: {mean + cells:.2f}; the "
                    f"volume of the cells adds {cells:.2f}"
                )
        return notes


@dataclass(frozen=True, eq=False)
class Gap:
    """The decomposition of log p(x) - ELBO, in nats (Cremer, Li and Duvenaud 2018).

    Args:
        elbo: the ELBO with the encoder's q, (N,).
        optimised: the ELBO with the best q of the same family found for each datum, (N,).
        reference: the tightest lower bound on log p(x), of the first M <= N data, (M,); None if
            there is none.
        how: the method in words.
        reference_how: the bound that is the reference, in words.
        details: further numbers by name: "rise", the increase of the ELBO from the second to the
            last quarter of the optimisation; "kept", the number of data for which the encoder's q
            was the best.
        index: places of the N data among the evaluated rows, (N,), in the order of the arrays
            above; None for the first N.

    >>> gap = Gap(np.array([-92.0]), np.array([-91.0]), np.array([-90.5]), "", "IWAE")
    >>> gap.amortization()[0], gap.approximation()[0]
    (1.0, 0.5)
    """

    elbo: np.ndarray
    optimised: np.ndarray
    reference: np.ndarray | None
    how: str
    reference_how: str = ""
    details: Mapping[str, Json] = field(default_factory=dict)
    index: np.ndarray | None = None

    def amortization(self) -> tuple[float, float]:
        """Return a lower bound on ELBO[best q of the family] - ELBO[encoder's q], and its paired
        standard error, in nats."""
        return mean_and_error(self.optimised - self.elbo)

    def approximation(self) -> tuple[float, float] | None:
        """Return the reference minus the ELBO of the optimised q, and its paired standard error, in
        nats; None without a reference.

        This is a lower bound on the approximation gap only if the optimised q is the best of its
        family.
        """
        return (
            None
            if self.reference is None
            else mean_and_error(self.reference - self.optimised[: len(self.reference)])
        )

    def sentence(self, data: str) -> str:
        """Return the gaps in words, with their errors and data."""
        gaps = f"amortization gap at least {plus_minus(self.amortization())}"
        approximation = self.approximation()
        gaps += (
            " nats"
            if approximation is None
            else f", approximation gap at least {plus_minus(approximation)} nats if that q is "
            f"the best"
        )
        return (
            f"ELBO {self.elbo.mean():.2f}, with q optimised for each datum "
            f"{self.optimised.mean():.2f}: {gaps} ({data})"
        )

    def notes(self) -> list[str]:
        """Return sentences on how the gaps were measured."""
        against = "the approximation gap is unknown: no tighter bound was evaluated"
        if self.reference is not None:
            fewer = (
                f" on {len(self.reference):,} of them"
                if len(self.reference) < len(self.elbo)
                else ""
            )
            against = f"the approximation gap is relative to {self.reference_how}{fewer}"
        kept = self.details.get("kept", 0)
        return [
            against,
            self.how + (f"; for {kept:,} data the encoder's q was the best" if kept else ""),
        ]

    def line(self) -> dict[str, Json]:
        """Return the entry in evaluation.json."""
        approximation = self.approximation()
        return {
            "n": len(self.elbo),
            "elbo": float(self.elbo.mean()),
            "optimised": float(self.optimised.mean()),
            "amortization": _mean_line(self.amortization()),
            "approximation": None if approximation is None else _mean_line(approximation),
            "reference": self.reference_how or None,
            "reference_n": None if self.reference is None else len(self.reference),
            **self.details,
        }


@dataclass(frozen=True, eq=False)
class Information:
    """The decomposition of the rate under the aggregate posterior of N data, in nats.

    rate = mutual information + total correlation + sum of unit-wise KL (Hoffman and Johnson 2016;
    Chen et al. 2018).

    Args:
        n: number of data in the aggregate posterior.
        rate: mean KL(q(z | x) || p(z)) of these data.
        mutual_information: index-code mutual information and its standard error. It is at most
            ln n, and at most the true mutual information.
        marginal_kl: KL(q(z) || p(z)) and its standard error; None if the prior depends on
            conditions.
        total_correlation: KL(q(z) || prod_j q(z_j)) and its standard error; None for families or
            priors that do not factorise.
        unit_kl: KL(q(z_j) || p(z_j)) of each unit, (*Z); None as for total_correlation.
        unit_kl_sum: sum of unit_kl and its standard error; None as for total_correlation.
        how: the method in words.
        unit_kl_lower, unit_kl_lower_sum: lower bounds on unit_kl and unit_kl_sum, from the q of the
            other data only.

    >>> information = Information(100, 4.0, (3.5, 0.1), (0.5, 0.1), None, None)
    >>> information.interval(), round(information.ceiling, 2)
    ((3.5, 4.0), 4.61)
    """

    n: int
    rate: float
    mutual_information: tuple[float, float]
    marginal_kl: tuple[float, float] | None
    total_correlation: tuple[float, float] | None
    unit_kl: np.ndarray | None
    unit_kl_sum: tuple[float, float] | None = None
    how: str = ""
    unit_kl_lower: np.ndarray | None = None
    unit_kl_lower_sum: tuple[float, float] | None = None

    @property
    def ceiling(self) -> float:
        """Return ln n, the largest possible estimate of the mutual information from n data."""
        return math.log(self.n)

    def interval(self) -> tuple[float, float] | None:
        """Return (estimate, rate), an interval that contains the mutual information; None if the
        prior depends on conditions."""
        return None if self.marginal_kl is None else (self.mutual_information[0], self.rate)

    def sentence(self, data: str) -> str:
        """Return the decomposition of the rate in words, with errors and data."""
        mutual = f"mutual information {plus_minus(self.mutual_information)}"
        at_most = f"at most ln {self.n:,} = {self.ceiling:.2f}"
        if self.marginal_kl is None:
            return (
                f"{mutual} nats of codes with data and conditions ({at_most}). The rate of "
                f"{self.rate:.2f} is not an upper bound on it, because the prior depends on the "
                f"conditions ({self.how}; {data})"
            )
        parts = f"KL of the aggregate posterior to the prior {plus_minus(self.marginal_kl)}"
        if self.total_correlation is not None and self.unit_kl_sum is not None:
            parts = (
                f"total correlation {plus_minus(self.total_correlation)} + unit-wise KL "
                f"{plus_minus(self.unit_kl_sum)}"
            )
        where = "the true value is between this and the rate, up to sampling error"
        return (
            f"rate {self.rate:.2f} = {mutual} ({at_most}; {where}) + {parts} nats ({self.how}; "
            f"{data})"
        )

    def line(self) -> dict[str, Json]:
        """Return the entry in evaluation.json."""
        parts = {
            "marginal_kl": self.marginal_kl,
            "total_correlation": self.total_correlation,
            "unit_kl_sum": self.unit_kl_sum,
            "unit_kl_lower_sum": self.unit_kl_lower_sum,
        }
        return {
            "n": self.n,
            "rate": self.rate,
            "mutual_information": _mean_line(self.mutual_information),
            "mutual_information_interval": self.interval(),
            "mutual_information_ceiling": self.ceiling,
            **{name: None if value is None else _mean_line(value) for name, value in parts.items()},
            "unit_kl": None if self.unit_kl is None else self.unit_kl.tolist(),
            "how": self.how,
        }


@dataclass(frozen=True, eq=False)
class Independent:
    """The log-likelihood of independent cells, with the likelihood of the evaluated model.

    Args:
        nats: of each datum, (N,).
        gain: the bound of the evaluated model minus `nats`, (N,); None without a bound.

    >>> Independent(np.array([-200.0, -210.0]), np.array([100.0, 104.0])).sentence()
    'independent cells: log p(x) = -205.00 +- 5.00 nats; the model gains 102.00 +- 2.00 nats'
    """

    nats: np.ndarray
    gain: np.ndarray | None = None

    def sentence(self) -> str:
        """Return the number and the gain in words."""
        alone = f"independent cells: log p(x) = {plus_minus(mean_and_error(self.nats))} nats"
        if self.gain is None:
            return alone
        mean, error = mean_and_error(self.gain)
        if mean < 2 * error:
            return f"{alone}; the model is not better ({plus_minus((mean, error))} nats)"
        return f"{alone}; the model gains {plus_minus((mean, error))} nats"

    def line(self) -> dict[str, Json]:
        """Return the entry in evaluation.json."""
        gain = None if self.gain is None else _mean_line(mean_and_error(self.gain))
        return {**_mean_line(mean_and_error(self.nats)), "gain": gain}


@dataclass(frozen=True)
class PresenceScore:
    """Hold means of the log-probability of which cells exist, given z and by the frequencies of the
    training split alone, with standard errors, in nats.

    Args:
        what: the variable and what it is given.
        given_z, without_z: mean and standard error.
        shares: the share of empty cells in the data and in samples, by column.

    >>> score = PresenceScore("length | z", (-2.0, 0.1), (-4.0, 0.1), {"a": (0.3, 0.29)})
    >>> print(*score.sentences(), sep="\\n")
    log p(length | z) = -2.00 +- 0.10 nats, not part of the bound (by frequency: -4.00 +- 0.10)
        empty cells in data and samples: a 30.0 and 29.0 %
    """

    what: str
    given_z: tuple[float, float]
    without_z: tuple[float, float]
    shares: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def sentences(self, most: int = 8) -> list[str]:
        """Return the numbers in words, with the shares of the columns that have most of them."""
        first = (
            f"log p({self.what}) = {plus_minus(self.given_z)} nats, not part of the bound (by "
            f"frequency: {plus_minus(self.without_z)})"
        )
        shares = sorted(self.shares.items(), key=lambda item: -max(item[1]))
        words = [f"{name} {100 * a:.1f} and {100 * b:.1f} %" for name, (a, b) in shares[:most]]
        if len(shares) > most:
            words.append(f"and {len(shares) - most:,} more columns")
        lines = [f"    empty cells in data and samples: {', '.join(words)}"] if words else []
        return [first, *lines]

    def line(self) -> dict[str, Json]:
        """Return the numbers for JSON."""
        columns = {n: {"data": a, "samples": b} for n, (a, b) in self.shares.items()}
        means = {"given_z": _mean_line(self.given_z), "without_z": _mean_line(self.without_z)}
        return means | ({"columns": columns} if columns else {})


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Shown):
    """The result of one evaluation.

    Args:
        estimates: estimates of log p(x).
        rate, distortion: means over data, in nats; ELBO = -(rate + distortion).
        gap, information, independent: results of the methods of these names, or None.
        lengths, absences: log p(length | z) of series, log p(which cells are empty | z); or None.
        warnings: sentences on numbers that need care.
        index: places of the evaluated data among all rows, (N,), increasing; None for all rows.
        seed: seed of the draws, and of the choice of the rows.
        fidelity: PSNR and SSIM of reconstructions; None if they were not measured.
        samples: drawn rows against held-out rows; None if the method samples was not requested.

    >>> estimate = Estimate("elbo", np.array([-90.0]), "lower", "counting", 1, "ELBO", 784)
    >>> Evaluation((estimate,), rate=20.0, distortion=70.0)["elbo"].nats
    array([-90.])
    """

    estimates: tuple[Estimate, ...]
    rate: float
    distortion: float
    gap: Gap | None = None
    information: Information | None = None
    lengths: PresenceScore | None = None
    absences: PresenceScore | None = None
    independent: Independent | None = None
    warnings: tuple[str, ...] = ()
    index: np.ndarray | None = None
    seed: int = 0
    fidelity: Fidelity | None = None
    samples: Resemblance | None = None

    def of_rows(self, order: np.ndarray, seed: int) -> Evaluation:
        """Return the evaluation with every estimate sorted by place. `order` contains the places of
        the rows in the order of their evaluation, (N,)."""
        return replace(
            self,
            estimates=tuple(e.of_rows(order) for e in self.estimates),
            gap=None if self.gap is None else replace(self.gap, index=order[: len(self.gap.elbo)]),
            index=np.sort(order),
            seed=seed,
        )

    def __getitem__(self, method: str) -> Estimate:
        """Return the lower bound or exact value of a method on the data.

        Raises:
            KeyError: there is none.
        """
        for estimate in self.estimates:
            if estimate.method == method and estimate.side != "upper" and estimate.on == "data":
                return estimate
        raise KeyError(method)

    def card(self) -> Card:
        """Return the estimates in words, and the warnings."""
        sentences = [e.sentence(f"{len(e.nats):,} data") for e in self.estimates]
        return Card("Evaluation", [*sentences, *self.warnings])

    def simulated_gaps(self) -> dict[str, tuple[float, float]]:
        """Return an upper bound on the gap of each method's lower bound on data drawn from the
        model, and its paired standard error, in nats."""
        simulated = [e for e in self.estimates if e.on == SIMULATED]
        upper = [e.nats for e in simulated if e.side == "upper"]
        return {
            e.method: mean_and_error(upper[0] - e.nats)
            for e in simulated
            if upper and e.side == "lower"
        }


def plus_minus(value: tuple[float, float]) -> str:
    """Return a mean and its standard error in words; without the error if it is NaN.

    >>> plus_minus((-95.1, 0.2)), plus_minus((-95.1, math.nan))
    ('-95.10 +- 0.20', '-95.10')
    """
    mean, error = value
    return f"{mean:.2f}" + ("" if math.isnan(error) else f" +- {error:.2f}")


def _mean_line(value: tuple[float, float]) -> dict[str, float | None]:
    return {"mean": value[0], "stderr": None if math.isnan(value[1]) else value[1]}


def mean_and_error(x: np.ndarray) -> tuple[float, float]:
    """Return the mean of x (N,) and its standard error; the error of one number is NaN.

    >>> mean_and_error(np.array([1.0, 3.0]))
    (2.0, 1.0)
    """
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
