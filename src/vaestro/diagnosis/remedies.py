"""Suggest command lines, derived from the run's configuration, that the program accepts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import final

from vaestro.data.source_options import as_source, parse_source
from vaestro.files import Json
from vaestro.likelihoods.counts import LATENT, library_condition
from vaestro.options import names
from vaestro.parts import TABLE, Part, find
from vaestro.signatures import options_of
from vaestro.text import Spec, as_number, parse
from vaestro.trust import named_code

HIGH_LR = 0.03  # for AdamW
SMALLER = 0.5  # maximum size of a smaller network, as a share of the weights
SCALED = ("gaussian", "laplace", "logistic", "student-t", "table")  # likelihoods that learn a scale
RESCUE = "residual"  # replaces a user-defined network that may be at fault
# Options that are valid for every model, objective and data set.
ALWAYS = {"lr", "steps", "patience", "beta"}
# Returns the number of weights of a run with these options; raises ValueError if invalid.
Trial = Callable[[Mapping[str, Json]], int]
# options that come from the run named by --init
TAKEN_OVER = frozenset(names("model")) - {"prior"}


@final
class Remedies:
    """Build command lines for a run. An invalid command is "".

    Args:
        path: the run's folder.
        config: its resolved options.
        trial: checks a run with other options; without it every command is assumed valid.
        weights: number of weights of the run's model.
        trust: whether the run was opened with `trust`; commands that repeat it then need --trust.

    >>> Remedies("runs/mine", {"lr": 0.01}).with_beta(1.0)
    'vaestro train --config runs/mine/config.yaml --beta 1 --run runs/mine-beta1'
    """

    def __init__(
        self,
        path: str,
        config: Mapping[str, Json],
        trial: Trial | None = None,
        weights: int | None = None,
        trust: bool = False,
    ) -> None:
        self.path, self.config, self._trial, self._own_weights = (
            path.rstrip("/") or ".",
            config,
            trial,
            weights,
        )
        self._trust = ["--trust"] if trust and named_code(config) else []
        self._tried: dict[str, int | None] = {}

    def part(self, kind: str) -> Part[object] | None:
        """Return a part of the run with its options; None if it is user-defined or unknown."""
        if self.name(kind) not in TABLE[kind]:
            return None
        try:
            return find(kind, str(self.config[kind]))
        except ValueError:
            return None

    def name(self, option: str) -> str:
        """Return the name of the part that an option of the run names; "" without one."""
        value = self.config.get(option)
        try:
            return parse(value).name if isinstance(value, str) else ""
        except ValueError:
            return ""

    def _own(self, option: str) -> bool:
        """Return whether a network is user-defined (module:Class)."""
        return self.name(option) not in ("", *TABLE["network"])

    def _weights(self, changes: Mapping[str, Json]) -> int | None:
        """Return the number of weights with changed options; None if they are invalid."""
        key = repr(sorted(changes.items()))
        if key not in self._tried:
            assert self._trial is not None
            try:
                self._tried[key] = self._trial(
                    {**self.config, **{k.replace("-", "_"): v for k, v in changes.items()}}
                )
            except ValueError:
                self._tried[key] = None
        return self._tried[key]

    def _possible(self, changes: dict[str, Json]) -> bool:
        return (
            self._trial is None or not changes.keys() - ALWAYS or self._weights(changes) is not None
        )

    def again(self, name: str, source: str = "", /, **changes: Json) -> str:
        """Train a new run with changed options or another source; "" if --init forbids it."""
        if self.config.get("init") and TAKEN_OVER & changes.keys():
            return ""
        if not source and changes.keys() - ALWAYS and self.config.get("compile") == "on":
            changes["compile"] = "auto"  # another model or objective may not compile
        if not source and not self._possible(changes):
            return ""
        options = [
            word
            for key, value in changes.items()
            for word in (
                (f"--{key}",)
                if value is True
                else (f"--{key}", f"{value:g}" if isinstance(value, float) else str(value))
            )
        ]
        given = [source] if source else []
        return shlex.join(
            [
                "vaestro",
                "train",
                *given,
                "--config",
                f"{self.path}/config.yaml",
                *self._trust,
                *options,
                "--run",
                self._fresh(name),
            ]
        )

    def _fresh(self, name: str) -> str:
        """Return a folder name that does not exist."""
        base = path = f"{self.path}-{name}"
        number = 2
        while Path(path).exists():
            path, number = f"{base}-{number}", number + 1
        return path

    def resume(self) -> str:
        """Resume a stopped run."""
        return shlex.join(["vaestro", "train", "--resume", self.path])

    def diagnose(self) -> str:
        """Diagnose the run with its weights and data."""
        return shlex.join(["vaestro", "diagnose", self.path])

    def slower(self, factor: int) -> str:
        """Train with a lower learning rate; with the default if the current one is far too high."""
        lr = self.config.get("lr")
        return (
            self.again("slower", lr=0.002 if lr > HIGH_LR else lr / factor)
            if isinstance(lr, float)
            else ""
        )

    def faster_data(self) -> str:
        """Decode all data once into the cache."""
        name, options = parse_source(str(self.config.get("source")))
        kept = {k: v for k, v in options.items() if k not in ("buffer", "streaming")}
        return self.again("packed", as_source(name, {**kept, "streaming": False}))

    def longer(self, done: int) -> str:
        """Train twice as long; resume the run if it stopped early."""
        planned = int(self.config.get("steps") or 0)
        return (
            self.resume() if done < planned else self.again("longer", steps=2 * max(done, planned))
        )

    def patient(self) -> str:
        """Stop when the validation loss no longer falls, and keep the best weights."""
        best = {"keep": "best"} if self.config.get("keep") == "last" else {}
        if self.config.get("patience"):
            return self.again("best", **best) if best else ""
        return self.again("patient", patience=5, **best)

    def with_beta(self, beta: float) -> str:
        """Train with another weight of the KL."""
        return self.again(f"beta{beta:g}", beta=beta)

    def warm_up(self) -> str:
        """Warm up the KL weight over half of the run, or halve the rate of a run with warm-up."""
        if self.name("beta") == "warmup":
            return self.slower(2)
        return self.again("warm", beta="warmup:share=0.5")

    @property
    def cures(self) -> list[tuple[str, str]]:
        """Return untried remedies for a decoder that may ignore z: (description, command)."""
        config, posterior = self.config, self.part("posterior")
        ways: list[tuple[str, str]] = []
        if self.name("beta") not in ("warmup", "sigmoid", "cyclical"):
            ways.append(
                (
                    "a weight of the KL that rises from 0",
                    self.again("warm", beta="warmup:share=0.5"),
                )
            )
        if not config.get("free_bits") and not config.get("capacity"):
            ways.append(("free bits", self.again("freebits", **{"free-bits": 0.25})))
        if not config.get("aggressive"):
            ways.append(
                ("aggressive updates of the encoder", self.again("aggressive", aggressive=True))
            )
        if config.get("posterior") is None or (
            posterior is not None
            and posterior.name == "normal"
            and not posterior.options.get("min_rate")
        ):
            options = dict(posterior.options) if posterior else {}
            least = str(Spec("normal", options | {"min_rate": 0.1}))
            ways.append(("a posterior with a minimum rate", self.again("minrate", posterior=least)))
        return [(words, command) for words, command in ways if command]

    def informed(self) -> str:
        """Return the first untried remedy for a decoder that may ignore z."""
        return self.cures[0][1] if self.cures else ""

    def shorter_schedule(self, beta: float) -> str:
        """Reach the final KL weight early."""
        to = 1.0 if abs(beta - 1) < 0.2 else beta
        return self.again(
            "warm", beta=f"warmup:to={to:g},share=0.1" if to != 1 else "warmup:share=0.1"
        )

    def for_collapse(self, beta: float) -> str:
        """Suggest a fix for an encoder that ignores its input.

        Likely causes: a KL weight above 1, a user-defined encoder, a fixed variance that is too
        large, or no warm-up.
        """
        if beta > 1:
            return self.with_beta(1.0)
        causes = (
            lambda: self.again("encoder", encoder=RESCUE) if self._own("encoder") else "",
            lambda: self.learned_variance() if self.fixed_variance is not None else "",
            lambda: (
                self.informed() if self.name("likelihood") == "autoregressive" else self.warm_up()
            ),
        )
        return next((command for cause in causes if (command := cause())), "")

    def for_decoder(self, beta: float) -> str:
        """Suggest a fix for a decoder that ignores z.

        Likely causes: a user-defined decoder, a KL weight below 1, or no warm-up.
        """
        replaced = (
            self.again("decoder", decoder=RESCUE)
            if self._own("decoder") or self._own("network")
            else ""
        )
        return replaced or (self.with_beta(1.0) if beta < 1 else self.warm_up())

    @property
    def fixed_variance(self) -> str | None:
        """Return the fixed variance of a Gaussian likelihood as a string; None for others."""
        part = self.part("likelihood")
        if part is None or part.name != "gaussian":
            return None
        variance = str(part.options.get("variance", ""))
        return None if as_number(variance) is None else variance

    @property
    def learns_scale(self) -> bool:
        """Return whether the likelihood scale is trained with the ELBO."""
        part = self.part("likelihood")
        fixed = part is None or any(
            as_number(part.options.get(option)) is not None for option in ("variance", "scale")
        )
        return (
            part is not None
            and part.name in SCALED
            and not fixed
            and self.name("objective") in ("", "elbo")
        )

    @property
    def library(self) -> str | None:
        """Return the condition that a count likelihood uses as library size; None without one."""
        part = self.part("likelihood")
        name = None if part is None else part.options.get("library")
        return None if name in (None, LATENT) else library_condition(str(name))

    def learned_variance(self) -> str:
        """Fit the variance of a Gaussian likelihood: in closed form, or by gradient."""
        part = self.part("likelihood")
        if part is None or part.name != "gaussian" or part.options.get("variance") == "optimal":
            return ""
        ways = ("optimal", "auto") if self.name("objective") in ("", "elbo") else ("auto",)
        for how in ways:
            if how != part.options.get("variance", "auto"):
                others = {k: v for k, v in part.options.items() if k not in ("variance", "version")}
                fitted = Spec("gaussian", {"variance": how, **others})
                command = self.again(how, likelihood=str(fitted))
                if command:
                    return command
        return ""

    def more_draws(self) -> str:
        """Draw more than one z per row in each step."""
        part = self.part("objective")
        return (
            self.again("k4", objective="elbo:k=4")
            if part is not None and part.name == "elbo" and part.options.get("k", 1) == 1
            else ""
        )

    def smaller(self) -> str:
        """Train a smaller network with more weight decay, or with weight decay only."""
        decay = (
            {"optimizer": "adamw:weight_decay=0.3"}
            if self.name("optimizer") in ("", "adamw")
            else {}
        )
        for spec in self._narrower():
            changes = {"network": spec, **decay}
            if self._trial is None or self._own_weights is None:
                return self.again("smaller", **changes)
            weights = self._weights(changes)
            if weights is not None and weights <= SMALLER * self._own_weights:
                return self.again("smaller", **changes)
        return (
            self.again("decay", **decay)
            if decay and self.config.get("optimizer") != decay["optimizer"]
            else ""
        )

    def _narrower(self) -> Iterator[str]:
        """Yield the run's network with 1/2, 1/4 and 1/8 of its width."""
        part = self.part("network")
        if part is None or self.config.get("encoder") or self.config.get("decoder"):
            return
        known = options_of(part.constructor)
        width = part.options.get("width", known["width"].default if "width" in known else None)
        for factor in (2, 4, 8):
            if isinstance(width, int) and width // factor >= 1:
                yield str(Spec(part.name, {**part.options, "width": width // factor}))

    def fitted_prior(self) -> str:
        """Fit a prior to the codes with frozen encoder and decoder."""
        fixed = {"prior": "mixture", "freeze": ["posterior", "likelihood"]}
        if (
            self.name("prior") not in ("", "normal")
            or self.config.get("condition")
            or not self._possible(fixed)
        ):
            return ""
        return shlex.join(
            [
                "vaestro",
                "fit-prior",
                self.path,
                "--prior",
                "mixture",
                "--run",
                self._fresh("mixture"),
            ]
        )

    def fewer_units(self, units: int) -> str:
        """Train with fewer latent units."""
        return self.again(f"latent{units}", latent=units)
