"""Rules on the curves of a run: reconstruction, KL, and the weight of the KL.

Training lines are of the current weights, averaged over an epoch. Validation lines are of the
averaged weights. The two are not compared. Rules here use only `metrics.jsonl`, so they also run at
each validation during training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from vaestro.diagnosis.continuation import Continuation
from vaestro.diagnosis.records import Finding
from vaestro.diagnosis.remedies import Remedies
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import plus_minus

ENOUGH = 3  # validations after the first step
# nats of signal of all units together, below which the encoder's output hardly depends on its input
SMALL_SIGNAL = 0.05
SMALL_RATE = 0.1  # nats
WAITED = 0.1  # of the time


@final
class Curves:
    """Hold the lines of metrics.jsonl as arrays.

    Args:
        lines: as `Run.metrics` returns them.
        steps: planned steps of the run.
        finished: whether it went to its end.
        stderr: of a validation bound, for lines that do not say theirs.
    """

    def __init__(
        self,
        lines: Sequence[Mapping[str, Any]],
        steps: int,
        finished: bool = True,
        stderr: float = 0.0,
    ) -> None:
        self.steps, self.finished, self.stderr = steps, finished, stderr
        self.lines = [line for line in lines if isinstance(line.get("step"), int)]
        self.valid = [line for line in self.lines if line.get("split") == "valid"]
        self.train = [line for line in self.lines if line.get("split") == "train"]

    @property
    def last(self) -> int:
        """Return the last step that was logged."""
        return max((int(line["step"]) for line in self.lines), default=0)

    @property
    def beta(self) -> float:
        """Return the last weight of the KL."""
        return _number(self.lines[-1], "beta") if self.lines else math.nan

    def after_start(self) -> list[Mapping[str, Any]]:
        """Return the validations after the first step."""
        return [line for line in self.valid if line["step"] > 0]

    def column(self, name: str) -> np.ndarray:
        """Return numbers of the validations after the first step; NaN for what is not there."""
        return np.array([_number(line, name) for line in self.after_start()])

    def error(self) -> float:
        """Return the standard error of the last validation bound."""
        logged = self.column("stderr")
        return float(logged[-1]) if len(logged) and math.isfinite(logged[-1]) else self.stderr

    def settled_from(self) -> int | None:
        """Return the first logged step from which the weight of the KL was what it is at the end;
        None where it still moved."""
        betas = [(int(line["step"]), _number(line, "beta")) for line in self.lines]
        if not betas:
            return None
        at = [
            step
            for step, beta in betas
            if not math.isclose(beta, betas[-1][1], rel_tol=1e-6, abs_tol=1e-9)
        ]
        if not at:
            return 0
        later = sorted({step for step, _ in betas if step > at[-1]})
        return later[0] if len(later) > 1 else None

    def ends(self, remedy: Remedies) -> tuple[float, float, float] | None:
        """Return the validation loss before the first step and at the end, and the error of their
        difference, as if unpaired.

        Both at the weights that hold at the end. None where it was not logged, or where the run
        started from another's weights.
        """
        if (
            not self.valid
            or self.valid[0]["step"] != 0
            or len(self.valid) < 2
            or remedy.config.get("init")
        ):
            return None
        first, last = self.valid[0], self.valid[-1]
        if not math.isfinite(_number(last, "objective")) and any(
            remedy.config.get(k) for k in ("capacity", "free_bits", "penalty")
        ):
            return None  # an older log, which does not hold all terms of the loss
        start, end = _loss(first, last), _loss(last, last)
        error = math.hypot(
            *(x if math.isfinite(x := _number(line, "stderr")) else 0.0 for line in (first, last))
        )
        return (start, end, error) if math.isfinite(start) and math.isfinite(end) else None

    def silent_from(self) -> int | None:
        """Return the step from which the KL was below a tenth of a nat up to the end; None where it
        is not."""
        steps, rates = [int(line["step"]) for line in self.after_start()], self.column("rate")
        loud = np.flatnonzero(~(rates < SMALL_RATE))
        first = int(loud[-1]) + 1 if len(loud) else 0
        return steps[first] if first < len(steps) else None


def _loss(line: Mapping[str, Any], last: Mapping[str, Any]) -> float:
    """Return the loss of a line at the weights of the last one."""
    logged = _number(line, "objective")
    return (
        logged
        if math.isfinite(logged)
        else _number(line, "distortion") + _number(last, "beta") * _number(line, "rate")
    )


def _number(line: Mapping[str, Any], name: str) -> float:
    value = line.get(name)
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else math.nan
    )


def divergence(
    curves: Curves,
    remedy: Remedies,
    failure: str | None = None,
    worsened: Paired | None = None,
    size: float = 0.0,
) -> Finding | None:
    """Find a run that ended in numbers that are not finite, or with a loss above that before the
    first step.

    Args:
        curves, remedy: of the run.
        failure: why it ended, if it did not end by itself.
        worsened: what the objective of the same training data lost from before the first step to
            the end; None where that is not known: then the log decides, by the loss of the
            validation data at both ends and the training loss at the end.
        size: nats, up to which a loss is no divergence.
    """
    slower = remedy.slower(3)
    if failure:
        return Finding("divergence", "error", failure.partition(" (try")[0], slower, "curves")
    if curves.valid and not math.isfinite(_number(curves.valid[-1], "bound")):
        return Finding(
            "divergence",
            "error",
            f"the validation bound at step {curves.last:,} is not a finite number",
            slower,
            "curves",
        )
    ends = curves.ends(remedy)
    if ends is None or ends[1] - ends[0] <= size:
        return None
    start, end, error = ends
    if worsened is None:
        # A run that overfits also ends above its start on validation data, but not on training
        # data.
        trained = _loss(curves.train[-1], curves.valid[-1]) if curves.train else math.nan
        if not (end > start + 3 * error and trained > start + 3 * error):
            return None
        said = (
            f"the validation loss is {end:.2f} nats at the end and was {start:.2f} before the "
            f"first step (error {error:.2g})"
        )
        return Finding("divergence", "error", said, slower, "curves", {"start": start, "end": end})
    if not (worsened.low > size and worsened.median_low > 0):
        return None
    said = (
        f"the loss of the same {worsened.n:,} training data is "
        f"{plus_minus((worsened.mean, worsened.stderr))} nats higher at the end than "
        f"before the first step, and higher for {worsened.positive:.0%} of them"
    )
    return Finding(
        "divergence",
        "error",
        said,
        slower,
        "curves",
        {"start": start, "end": end, "worse": worsened.mean},
    )


def skipped_steps(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find steps that were skipped because loss or gradient were not finite."""
    skipped = max((int(line.get("skipped") or 0) for line in curves.lines), default=0)
    if not skipped:
        return None
    said = (
        f"loss or gradient were not finite in {skipped:,} of {curves.last:,} steps, which "
        f"were skipped"
    )
    return Finding(
        "steps skipped",
        "warning",
        said,
        remedy.slower(2),
        "curves",
        {"skipped": skipped, "steps": curves.last},
    )


def slow_data(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find streamed data that are decoded more slowly than they are trained on."""
    waited = [share for line in curves.train if math.isfinite(share := _number(line, "waited"))]
    if not waited or waited[-1] < WAITED:
        return None
    said = (
        f"training waited for data in {waited[-1]:.0%} of its time: reading and decoding the "
        f"shards is slower than the model"
    )
    return Finding(
        "slow data", "warning", said, remedy.faster_data(), "curves", {"waited": waited[-1]}
    )


def not_converged(
    curves: Curves,
    remedy: Remedies,
    continued: Continuation | None = None,
    size: float = 0.0,
    unfitted: str = "",
) -> Finding | None:
    """Find a run that was too short.

    It stopped before its end; hardly any validations were made; further steps at a constant rate
    raise the objective of the validation data; or its bound still rose over the last tenth of the
    run.

    Args:
        curves, remedy: of the run.
        continued: what further steps gained.
        size: nats, up to which a rise is too small to be worth more training.
        unfitted: says which parameter has not reached its optimum, which is known in closed form.

    A run whose validation loss has risen since its best is not too short: what further steps gain
    there is what overfitting has lost.
    """
    if falling_bound(curves, remedy) is not None:
        continued, unfitted = None, ""
    bounds, name, said = curves.column("bound"), "not converged", []
    numbers: dict[str, Any] = {"step": curves.last, "steps": curves.steps, "size": size}
    if not curves.finished:
        lr = _number(curves.lines[-1], "lr") if curves.lines else math.nan
        said.append(
            f"the run stopped at step {curves.last:,} of {curves.steps:,}, before the end of its "
            f"schedule (learning rate {lr:.2g})"
        )
    if curves.valid and len(bounds) < ENOUGH:
        many = f"{len(bounds)} validation{'s' if len(bounds) != 1 else ''}"
        said.append(
            f"convergence cannot be judged from {many} after the first step; it needs {ENOUGH}"
        )
    elif curves.valid:
        steps = np.array([line["step"] for line in curves.after_start()], float)
        rise, error = float(bounds[-1] - np.interp(0.9 * steps[-1], steps, bounds)), curves.error()
        numbers |= {"rise": rise, "error": error}
        if rise > max(error, size):
            said.append(
                f"over the last tenth of the run the validation bound still rose by {rise:.2f} "
                f"nats, more than its error of {error:.2f}"
            )
    if continued is not None:
        numbers["continuation"] = continued.line()
        if continued.gain.low > 0 and continued.gain.mean > size:
            said.append(
                f"{continued.words()}, more than the limit of {size:.2g}: twice as many steps "
                f"gain more"
            )
    if unfitted:
        said.append(unfitted)
    if not said:
        return None
    schedule = rising_schedule(curves, remedy)  # more steps would only stretch it
    command = remedy.longer(curves.last) if schedule is None else schedule.remedy
    return Finding(name, "warning", "; ".join(said), command, "curves", numbers)


def no_validation(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a run without validation."""
    if curves.valid or not curves.train:
        return None
    return Finding(
        "no validation",
        "warning",
        "there are no validation data: neither convergence nor overfitting can be judged",
        "",
        "curves",
    )


def rising_schedule(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a weight of the KL that was still moving in the last tenth of the run."""
    settled = curves.settled_from()
    if remedy.name("beta") == "geco":
        return None  # it follows the distortion for as long as there is training
    enough = (
        curves.finished
        and math.isfinite(curves.beta)
        and len({line["step"] for line in curves.lines}) > ENOUGH
    )
    if not enough or (settled is not None and settled <= 0.9 * curves.last):
        return None
    when = (
        "was still moving at the end"
        if settled is None
        else f"reached its last value only at step {settled:,}"
    )
    said = (
        f"the weight of the KL {when} (step {curves.last:,}: {curves.beta:.3g}): too few "
        f"steps remained at this weight"
    )
    return Finding(
        "schedule too long",
        "warning",
        said,
        remedy.shorter_schedule(curves.beta),
        "curves",
        {"settled": settled},
    )


def stagnation(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a KL that falls at a constant weight while reconstruction does not improve: the decoder
    uses the latent less and less."""
    settled = curves.settled_from()
    after = [
        line for line in curves.after_start() if settled is not None and line["step"] >= settled
    ]
    if len(after) < 2 * ENOUGH:
        return None
    half = after[len(after) // 2 :]
    rate, distortion = (
        np.array([_number(line, name) for line in half]) for name in ("rate", "distortion")
    )
    fell, improved = float(rate[0] - rate[-1]), float(distortion[0] - distortion[-1])
    if not (fell > max(0.5, 0.1 * rate[0]) and improved < 0.1 * fell):
        return None
    said = (
        f"since step {half[0]['step']:,} the KL fell from {rate[0]:.2f} to {rate[-1]:.2f} nats, "
        f"and reconstruction went from "
        f"{distortion[0]:.2f} to {distortion[-1]:.2f}"
    )
    return Finding(
        "reconstruction stagnates while the KL falls",
        "warning",
        said,
        remedy.warm_up(),
        "curves",
        {"fell": fell, "improved": improved},
    )


def falling_bound(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a validation loss that has risen since its best: from there on the run only overfitted
    its training data.

    It is judged by the objective that was asked for, at the end of its schedules, as the weights
    are selected. Lines of older versions have the unweighted bound alone, which training raises
    only at a weight of 1.
    """
    lines = [line for line in curves.after_start() if line.get("settled") is not False]
    loss, error = np.array([_number(line, "objective") for line in lines]), curves.error()
    what = "validation loss"
    if not np.isfinite(loss).any() and math.isclose(curves.beta, 1, rel_tol=1e-6):
        loss, what = -np.array([_number(line, "bound") for line in lines]), "validation bound"
    # With geco each loss has a weight of its own; with a capacity it follows the noise of |rate -
    # C|, multiplied by gamma.
    adaptive = remedy.name("beta") == "geco" or any("capacity" in line for line in lines)
    if len(loss) < ENOUGH + 1 or not np.isfinite(loss).any() or adaptive:
        return None
    best = int(np.nanargmin(loss))
    rose = float(loss[-1] - loss[best])
    if best > len(loss) - ENOUGH or not rose > 2 * error:
        return None
    step = lines[best]["step"]
    in_use = ", whose weights are in use" if remedy.config.get("keep") != "last" else ""
    said = (
        f"the {what} was best at step {step:,}{in_use}, and is {rose:.2f} nats worse at step "
        f"{curves.last:,}"
    )
    return Finding(
        "validation bound falls",
        "warning",
        said,
        remedy.patient(),
        "curves",
        {"best_step": step, "fell": rose},
    )


def silent_code(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find an encoder whose output does not depend on its input, by the logged signal; never by the
    KL alone.

    The log does not show whether the data have structure, so this is a warning that refers to the
    whole diagnosis.
    """
    after, signal = curves.after_start(), curves.column("signal")
    if len(after) < 2 or not (signal[-2:] < SMALL_SIGNAL).all():
        return None
    rate, silent = _number(after[-1], "rate"), curves.silent_from()
    kl = (
        f"the KL has been below {SMALL_RATE} nats since step {silent:,}"
        if silent is not None
        else f"the KL is {rate:.2f} nats, but q(z | x) is nearly the same for every x"
    )
    said = (
        f"the encoder's output hardly depends on its input so far: the signal of all units "
        f"together is {signal[-1]:.2g} nats on validation "
        f"data; {kl}. Diagnose the run after training for the cause: there may also be nothing "
        f"to encode"
    )
    command = remedy.with_beta(1.0) if curves.beta > 1 else remedy.diagnose()
    return Finding("posterior collapse", "warning", said, command, "curves")


def weight_of_kl(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a weight of the KL that is not 1 at the end."""
    beta = curves.beta
    if not math.isfinite(beta) or math.isclose(beta, 1, rel_tol=1e-6):
        return None
    said = (
        f"the KL has weight {beta:.4g} at the end. The reported bound is unweighted; training "
        f"did not maximise it"
    )
    return Finding(
        "weight of the KL", "note", said, remedy.with_beta(1.0), "curves", {"beta": beta}
    )


LIVE = (silent_code, stagnation, falling_bound)
AT_ONCE = (skipped_steps, slow_data)  # reported from the first validation on


@final
class Watcher:
    """Apply the live rules at each validation, and report each finding once, when it first holds.

    Args:
        steps: planned steps.
        remedy: command lines for this run.
        settle: the share of a run in which the code is not judged, since a healthy KL often rises
            from near zero.
        reads_latent: whether the decoder has z as an input; if not, its code is not judged.
    """

    def __init__(
        self, steps: int, remedy: Remedies, settle: float = 0.2, reads_latent: bool = True
    ) -> None:
        self.steps, self.remedy, self.settle = steps, remedy, settle
        self.live = (
            LIVE if reads_latent else tuple(rule for rule in LIVE if rule is not silent_code)
        )
        self._lines: list[Mapping[str, Any]] = []
        self._said: set[str] = set()

    def see(self, lines: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """Take what was logged with a step, and return what is new."""
        self._lines += lines
        if not any(line["split"] == "valid" for line in lines):
            return []
        curves = Curves(self._lines, self.steps)
        rules = (*(self.live if lines[-1]["step"] >= self.settle * self.steps else ()), *AT_ONCE)
        found = [
            f
            for f in (rule(curves, self.remedy) for rule in rules)
            if f is not None and f.name not in self._said
        ]
        self._said |= {f.name for f in found}
        return found
