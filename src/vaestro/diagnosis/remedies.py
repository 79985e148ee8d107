"""Command lines that mend what was found, changed from the run's own configuration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, final

from vaestro.data.readers import as_source, parse_source

HIGH_LR = 0.03  # for AdamW
TAKEN_OVER = frozenset({"latent", "likelihood", "posterior", "network", "encoder", "decoder"})  # from the run that --init names


def _own(spec: Any) -> bool:
    """Tell whether a part is a user's own, module:Class."""
    rest = str(spec or "").partition(":")[2]
    return bool(rest) and "=" not in rest.split(":")[0]


@final
class Remedies:
    """Make command lines for a run.

    Args:
        path: the run's folder.
        config: its options, resolved.
    """

    def __init__(self, path: str, config: Mapping[str, Any]) -> None:
        self.path, self.config = path.rstrip("/") or ".", config

    def again(self, name: str, source: str = "", /, **changes: Any) -> str:
        """Train anew with some options changed, or on another source, into a folder of its own; empty where --init forbids the change."""
        if self.config.get("init") and TAKEN_OVER & changes.keys():
            return ""
        options = [
            word
            for key, value in changes.items()
            for word in ((f"--{key}",) if value is True else (f"--{key}", f"{value:g}" if isinstance(value, float) else str(value)))
        ]
        given = [source] if source else []
        return shlex.join(["vaestro", "train", *given, "--config", f"{self.path}/config.yaml", *options, "--run", f"{self.path}-{name}"])

    def resume(self) -> str:
        """Go on with a run that was stopped."""
        return shlex.join(["vaestro", "train", "--resume", self.path])

    def slower(self, factor: int) -> str:
        """Train with a lower learning rate; from far too high a one, with the default."""
        lr = self.config.get("lr")
        return self.again("slower", lr=0.002 if lr > HIGH_LR else lr / factor) if isinstance(lr, float) else ""

    def faster_data(self) -> str:
        """Decode all once, into the cache, where there is room for it."""
        name, options = parse_source(str(self.config.get("source")))
        kept = {k: v for k, v in options.items() if k not in ("buffer", "streaming")}
        return self.again("packed", as_source(name, {**kept, "streaming": False}))

    def longer(self, done: int) -> str:
        """Train twice as long; or to the end, where the run stopped before."""
        planned = int(self.config.get("steps") or 0)
        return self.resume() if done < planned else self.again("longer", steps=2 * max(done, planned))

    def patient(self) -> str:
        """Stop when the validation bound no longer rises."""
        return "" if self.config.get("patience") else self.again("patient", patience=5)

    def with_beta(self, beta: float) -> str:
        """Train with another weight of the KL."""
        return self.again(f"beta{beta:g}", beta=beta)

    def warm_up(self) -> str:
        """Raise the weight of the KL from 0 over half of the run; with a schedule already, more slowly learned too."""
        if str(self.config.get("beta")).startswith("warmup"):
            return self.slower(2)
        return self.again("warm", beta="warmup:share=0.5")

    @property
    def cures(self) -> list[tuple[str, str]]:
        """Return what gives the code more to tell beside a decoder that could do without it, and was not tried: (in words, command)."""
        config = self.config
        tried = {
            "a weight of the KL that rises from 0": str(config.get("beta")).partition(":")[0] in ("warmup", "sigmoid", "cyclical"),
            "free bits": bool(config.get("free_bits") or config.get("capacity")),
            "aggressive updates of the encoder": bool(config.get("aggressive")),
            "a posterior with a least rate": config.get("posterior", "normal") != "normal",
        }
        commands = (
            lambda: self.again("warm", beta="warmup:share=0.5"),
            lambda: self.again("freebits", **{"free-bits": 0.25}),
            lambda: self.again("aggressive", aggressive=True),
            lambda: self.again("minrate", posterior="normal:min_rate=0.1"),
        )
        return [(words, make()) for (words, done), make in zip(tried.items(), commands, strict=True) if not done]

    def informed(self) -> str:
        """Give the code more to tell beside a decoder that could do without it: the first cure that was not tried."""
        return self.cures[0][1] if self.cures else ""

    def shorter_schedule(self, beta: float) -> str:
        """Reach the last weight of the KL early."""
        to = 1.0 if abs(beta - 1) < 0.2 else beta
        return self.again("warm", beta=f"warmup:to={to:g},share=0.1" if to != 1 else "warmup:share=0.1")

    def for_collapse(self, beta: float) -> str:
        """Take away what made the encoder silent: a weight above 1, its own module, a variance that leaves nothing to explain, or too
        quick a start."""
        if beta > 1:
            return self.with_beta(1.0)
        if _own(self.config.get("encoder")):
            return self.again("encoder", encoder="residual")
        if self.fixed_variance is not None:
            return self.learned_variance()
        return self.informed() if str(self.config.get("likelihood")).startswith("autoregressive") else self.warm_up()

    def for_decoder(self, beta: float) -> str:
        """Take away what made the decoder deaf: its own module, a weight below 1, or too quick a start."""
        if _own(self.config.get("decoder")) or _own(self.config.get("network")):
            return self.again("decoder", decoder="residual")
        return self.with_beta(1.0) if beta < 1 else self.warm_up()

    @property
    def fixed_variance(self) -> str | None:
        """Return the fixed variance of a Gaussian likelihood as it was written; None for others."""
        name, _, options = str(self.config.get("likelihood")).partition(":")
        values = dict(piece.partition("=")[::2] for piece in options.split(","))
        variance = values.get("variance", "auto")
        try:
            float(variance)
        except ValueError:
            return None  # a word: the variance is learned, or fitted
        return variance if name == "gaussian" else None

    def learned_variance(self) -> str:
        """Fit the variance of a Gaussian likelihood in closed form; for objectives without a closed form (all but the ELBO) learn it."""
        how = "optimal" if str(self.config.get("objective", "elbo")).startswith("elbo") else "auto"
        given = str(self.config.get("likelihood")).partition(":")[2].split(",")
        others = [o for o in given if o and not o.startswith(("variance=", "version="))]
        return self.again(how, likelihood="gaussian:" + ",".join([f"variance={how}", *others]))

    def smaller(self) -> str:
        """Train a smaller network with more weight decay."""
        return self.again("smaller", network="mlp:width=64", optimizer="adamw:weight_decay=0.3")

    def fewer_units(self, units: int) -> str:
        """Train with fewer latent units."""
        return self.again(f"latent{units}", latent=units)
