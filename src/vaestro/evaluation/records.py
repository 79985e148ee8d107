"""What an evaluation returns: estimates with their side, measure and error, and never a bare
number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

SIMULATED = "simulated data"


@dataclass(frozen=True, eq=False)
class Estimate:
    """Hold an estimate of log p(x) for each datum.

    Args:
        method: elbo, iwae or ais.
        nats: (N,), float64.
        side: "lower", "upper" or "exact".
        measure: "counting" for probabilities, "lebesgue" for densities in the user's units, "mixed"
            for tables of both.
        k: draws for each datum; chains for ais.
        how: the method in words.
        cells: cells of one datum, or the mean number of those that were observed.
        ess: effective number of draws of each datum (N,), 1 .. k; None where it has no meaning.
        seconds: what it took.
        given: what p(x) is conditioned on.
        on: "data", or "simulated data" drawn from the model itself.
        details: what else is worth quoting, such as the number of temperatures, by name.
        index: places of its data among the rows that were evaluated, (N,), rising; None for the
            first N, and for simulated data.
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
    details: Mapping[str, Any] = field(default_factory=dict)
    index: np.ndarray | None = None

    def of_rows(self, order: np.ndarray) -> Estimate:
        """Return it sorted by place, if its data are the first of `order`, the places of rows (M,)
        in the order of their evaluation."""
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
        """Return -mean / (cells ln 2) for probabilities, of texts for each token; None for
        densities, which have no such number."""
        return -self.mean()[0] / (self.cells * math.log(2)) if self.measure == "counting" else None

    @property
    def bits(self) -> str:
        """Say the bits for each dimension or token; nothing for densities."""
        bits = self.bits_per_dim
        return (
            ""
            if bits is None
            else f" = {bits:.4f} bits/{'token' if 'tokens' in self.details else 'dim'}"
        )

    def sentence(self, data: str) -> str:
        """Say the result with its side, error, method and data."""
        mean, error = self.mean()
        of = f" | {', '.join(self.given)}" if self.given else ""
        sign = {"lower": ">=", "upper": "<=", "exact": "="}[self.side]
        partly = {"counting": "", "mixed": ", partly"}.get(self.measure, ",")
        density = f"{partly} a density in the data's own units" if partly else ""
        where = f"{len(self.nats):,} data drawn from the model" if self.on == SIMULATED else data
        return (
            f"log p(x{of}) {sign} {plus_minus((mean, error))} nats ({self.how}, {where}{density})"
        )

    def notes(self) -> list[str]:
        """Say what a reader of the number should know beside it, a sentence each."""
        notes = []
        if self.ess is not None and self.k > 1:
            low, middle = np.quantile(self.ess, [0.05, 0.5])
            of = f"{self.k:,} {'chains' if self.method == 'ais' else 'draws'}"
            notes.append(
                f"effectively {middle:.1f} of {of} for half of the data, fewer than {low:.1f} "
                f"for one in 20"
            )
        if "rise" in self.details:
            rise = plus_minus((self.details["rise"], self.details.get("rise_stderr", math.nan)))
            notes.append(
                f"it rose by {rise} nats from {self.details['rise_from_k']:,} draws to {self.k:,}"
            )
        if "sampled" in self.details and not math.isclose(
            self.details["sampled"], self.mean()[0], abs_tol=5e-3
        ):
            notes.append(
                f"with log q - log p at the draws in place of the rate in closed form: "
                f"{self.details['sampled']:.2f}"
            )
        if "tokens" in self.details:
            turned = {"lower": "at most ", "upper": "at least ", "exact": ""}[self.side]
            count = self.details["tokens"]
            notes.append(
                f"perplexity {turned}{self.details['perplexity']:.2f} for each of {count:,} "
                f"tokens, the ends of texts among them"
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
    """Hold what lies between log p(x) and the ELBO, taken apart (Cremer, Li and Duvenaud 2018), in
    nats for each datum.

    Args:
        elbo: the ELBO with the encoder's q, (N,).
        optimised: the ELBO with the best q of the same family found for each datum, (N,).
        reference: the tightest lower bound on log p(x) there is, of the first M <= N of them, (M,);
            None where there is none.
        how: in words.
        reference_how: which bound the reference is.
        details: what else is worth quoting: by how much the search still rose from its second to
            its last quarter ("rise"), and for how many data the encoder's q was kept because the
            one found was no better ("kept").
        index: places of the N data among the rows that were evaluated, (N,), in the order of the
            arrays above; None for the first N.
    """

    elbo: np.ndarray
    optimised: np.ndarray
    reference: np.ndarray | None
    how: str
    reference_how: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    index: np.ndarray | None = None

    def amortization(self) -> tuple[float, float]:
        """Return what the encoder loses against the best q of its family, at least, and its
        standard error (paired), in nats."""
        return mean_and_error(self.optimised - self.elbo)

    def approximation(self) -> tuple[float, float] | None:
        """Return the reference less the ELBO with the best q found, and its standard error
        (paired), in nats; None without a reference.

        The family loses at least that, if the q found is its best: what the search has missed would
            have to be taken off.
        """
        return (
            None
            if self.reference is None
            else mean_and_error(self.reference - self.optimised[: len(self.reference)])
        )

    def sentence(self, data: str) -> str:
        """Say the gaps with their errors, what they rest on, and on which data."""
        gaps = f"amortization gap at least {plus_minus(self.amortization())}"
        approximation = self.approximation()
        gaps += (
            " nats"
            if approximation is None
            else f", approximation gap at least {plus_minus(approximation)} nats if that q is "
            f"the best"
        )
        return (
            f"ELBO {self.elbo.mean():.2f}, with the best q found for each datum "
            f"{self.optimised.mean():.2f}: {gaps} ({data})"
        )

    def notes(self) -> list[str]:
        """Say what the gaps rest on."""
        against = "no tighter bound tells the approximation gap"
        if self.reference is not None:
            fewer = (
                f" on {len(self.reference):,} of them"
                if len(self.reference) < len(self.elbo)
                else ""
            )
            against = f"the approximation gap is against {self.reference_how}{fewer}"
        kept = self.details.get("kept", 0)
        return [
            against,
            self.how + (f"; for {kept:,} data the encoder's q stayed the best" if kept else ""),
        ]

    def line(self) -> dict[str, Any]:
        """Return what evaluation.json holds."""
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
    """Hold what the codes of N data say of them (Hoffman and Johnson 2016; Chen et al. 2018), in
    nats.

    rate = mutual information + total correlation + sum of unit-wise KL, each under the aggregate
    posterior of the N data.

    Args:
        n: data whose codes make up the aggregate posterior.
        rate: mean KL(q(z | x) || p(z)) of these data.
        mutual_information: index-code mutual information and its standard error: never above ln n,
            and at most the true one.
        marginal_kl: KL(q(z) || p(z)) and its standard error; None where the prior differs by the
            datum.
        total_correlation: KL(q(z) || prod_j q(z_j)) and its standard error; None for families or
            priors that do not factorise.
        unit_kl: KL(q(z_j) || p(z_j)) of each unit, (*Z); None likewise.
        unit_kl_sum: their sum and its standard error; None likewise.
        how: in words.
        unit_kl_lower, unit_kl_lower_sum: lower bounds on unit_kl and unit_kl_sum, which leave each
            datum's own q out.
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
        """Return ln n, which no estimate of the mutual information from n data can exceed."""
        return math.log(self.n)

    def interval(self) -> tuple[float, float] | None:
        """Return between what the mutual information lies: its estimate and the rate; None where
        the prior differs by the datum."""
        return None if self.marginal_kl is None else (self.mutual_information[0], self.rate)

    def sentence(self, data: str) -> str:
        """Say what the rate is made of, with errors, and on which data."""
        held = f"mutual information {plus_minus(self.mutual_information)}"
        at_most = f"at most ln {self.n:,} = {self.ceiling:.2f}"
        if self.marginal_kl is None:
            return (
                f"{held} nats of codes with data and conditions ({at_most}); the rate, "
                f"{self.rate:.2f}, neither bounds it nor "
                f"is taken apart: the prior depends on the conditions ({self.how}; {data})"
            )
        parts = f"KL of the aggregate posterior to the prior {plus_minus(self.marginal_kl)}"
        if self.total_correlation is not None and self.unit_kl_sum is not None:
            parts = (
                f"total correlation {plus_minus(self.total_correlation)} + unit-wise KL "
                f"{plus_minus(self.unit_kl_sum)}"
            )
        where = "the true one lies between this and the rate, but for sampling error"
        return (
            f"rate {self.rate:.2f} = {held} ({at_most}; {where}) + {parts} nats ({self.how}; "
            f"{data})"
        )

    def line(self) -> dict[str, Any]:
        """Return what evaluation.json holds."""
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
class Evaluation:
    """Hold the estimates of one evaluation, with the rate and distortion of the ELBO, and what else
    was asked for.

    Args:
        estimates: of log p(x).
        rate, distortion: means over data, in nats; ELBO = -(rate + distortion).
        gap, information: where they were asked for.
        warnings: what a reader of the numbers must know, a sentence each.
        index: places of the evaluated data among the rows that were given, (N,), rising; None for
            all of them.
        seed: of the draws, and of which rows were drawn.
    """

    estimates: tuple[Estimate, ...]
    rate: float
    distortion: float
    gap: Gap | None = None
    information: Information | None = None
    warnings: tuple[str, ...] = ()
    index: np.ndarray | None = None
    seed: int = 0

    def of_rows(self, order: np.ndarray, seed: int) -> Evaluation:
        """Return it with every estimate sorted by place. `order` holds the places of the rows,
        (N,), in the order of their evaluation."""
        return replace(
            self,
            estimates=tuple(e.of_rows(order) for e in self.estimates),
            gap=None if self.gap is None else replace(self.gap, index=order[: len(self.gap.elbo)]),
            index=np.sort(order),
            seed=seed,
        )

    def __getitem__(self, method: str) -> Estimate:
        """Return the lower bound, or exact value, by a method on the data.

        Raises:
            KeyError: there is none.
        """
        for estimate in self.estimates:
            if estimate.method == method and estimate.side != "upper" and estimate.on == "data":
                return estimate
        raise KeyError(method)

    def simulated_gaps(self) -> dict[str, tuple[float, float]]:
        """Return how far log p(x) of data drawn from the model can lie above each method's lower
        bound, and the standard error (paired)."""
        simulated = [e for e in self.estimates if e.on == SIMULATED]
        upper = [e.nats for e in simulated if e.side == "upper"]
        return {
            e.method: mean_and_error(upper[0] - e.nats)
            for e in simulated
            if upper and e.side == "lower"
        }


def plus_minus(value: tuple[float, float]) -> str:
    """Write a mean and its standard error, if there is one: -95.10 +- 0.20."""
    mean, error = value
    return f"{mean:.2f}" + ("" if math.isnan(error) else f" +- {error:.2f}")


def _mean_line(value: tuple[float, float]) -> dict[str, float | None]:
    mean, error = value
    return {"mean": mean, "stderr": None if math.isnan(error) else error}


def mean_and_error(x: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error; NaN for an error from one number."""
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
