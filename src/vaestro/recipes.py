"""Named recipes: what is known under a name is a choice of options, and each function here says
which.

`vaestro train --recipe beta-tcvae:beta=6` stands for the options that the function returns; an
option that is given beside it wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Options = dict[str, Any]


def beta_vae(*, beta: float = 4.0) -> Options:
    """Weight the KL by beta (Higgins et al. 2017)."""
    return {"beta": beta}


def annealed(*, share: float = 0.3) -> Options:
    """Raise the weight of the KL linearly from 0 (Bowman et al. 2016)."""
    return {"beta": f"warmup:share={share:g}"}


def cyclical(*, cycles: int = 4, rise: float = 0.5) -> Options:
    """Raise the weight of the KL from 0 several times (Fu et al. 2019); the last tenth of the run
    stays at 1."""
    return {"beta": f"cyclical:cycles={cycles},rise={rise:g},share=0.9"}


def beta_tcvae(*, beta: float = 6.0) -> Options:
    """Penalise the total correlation of the aggregate posterior by beta - 1 (Chen et al. 2018)."""
    return {"penalty": [f"total-correlation:weight={beta - 1:g}"]}


def dip_vae_i(*, off: float = 10.0, diagonal: float = 100.0) -> Options:
    """Press the covariance of the means to the unit matrix (Kumar et al. 2018)."""
    return {"penalty": [f"dip:kind=i,off={off:g},diagonal={diagonal:g}"]}


def dip_vae_ii(*, off: float = 10.0, diagonal: float = 5.0) -> Options:
    """Press the covariance of the aggregate posterior to the unit matrix (Kumar et al. 2018)."""
    return {"penalty": [f"dip:kind=ii,off={off:g},diagonal={diagonal:g}"]}


def info_vae(*, alpha: float = 0.0, weight: float = 1000.0) -> Options:
    """Weight the KL by 1 - alpha and press the aggregate posterior to the prior by the MMD (Zhao et
    al. 2019)."""
    return {"beta": 1.0 - alpha, "penalty": [f"mmd:weight={weight - (1 - alpha):g},kernel=rbf"]}


def wae(*, weight: float = 100.0) -> Options:
    """Leave the KL out and press the aggregate posterior to the prior by the MMD (Tolstikhin et al.
    2018): its ELBO is not maximised."""
    return {"beta": 0.0, "penalty": [f"mmd:weight={weight:g},kernel=imq"]}


def sigma_vae() -> Options:
    """Set the variance of a Gaussian likelihood to its optimum (Rybkin, Daniilidis and Levine
    2021): no weight of the KL to tune."""
    return {"likelihood": "gaussian:variance=optimal"}


def free_bits(*, nats: float = 0.25) -> Options:
    """Ask nothing for the first nats of rate of each unit (Kingma et al. 2016)."""
    return {"free_bits": f"{nats:g}"}


def delta_vae(*, nats: float = 0.1) -> Options:
    """Hold the rate of each unit above a minimum by the posterior's form (Razavi et al. 2019)."""
    return {"posterior": f"normal:min_rate={nats:g}"}


def capacity(*, to: float = 25.0, gamma: float = 100.0) -> Options:
    """Press the rate to a capacity that grows over half of the run (Burgess et al. 2018)."""
    return {"capacity": f"to={to:g},gamma={gamma:g},share=0.5"}


def geco(*, target: float) -> Options:
    """Seek the least rate at which the distortion reaches a target in nats (Rezende and Viola
    2018)."""
    return {"beta": f"geco:target={target:g}"}


def lagging() -> Options:
    """Update the encoder until it has caught up before each step, while the code's information
    rises (He et al. 2019)."""
    return {"aggressive": True}


def iwae(*, k: int = 5) -> Options:
    """Maximise the importance-weighted bound (Burda et al. 2016)."""
    return {"objective": f"iwae:k={k}"}


def dreg(*, k: int = 50) -> Options:
    """Maximise the importance-weighted bound by doubly reparameterized gradients (Tucker et al.
    2019)."""
    return {"objective": f"iwae:k={k}", "gradient": "dreg"}


def stl(*, k: int = 1) -> Options:
    """Maximise the ELBO by the gradient along the path alone (Roeder et al. 2017)."""
    return {"objective": f"elbo:k={k}", "gradient": "stl"}


def vimco(*, k: int = 5) -> Options:
    """Maximise the importance-weighted bound over discrete latents by the score function with
    leave-one-out (Mnih and Rezende 2016)."""
    return {"objective": f"iwae:k={k}", "gradient": "score", "posterior": "bernoulli"}


def rloo(*, k: int = 4) -> Options:
    """Maximise the ELBO over discrete latents by the score function with leave-one-out (Kool et al.
    2019)."""
    return {"objective": f"elbo:k={k}", "gradient": "score", "posterior": "bernoulli"}


def vampprior(*, inputs: int = 500, share: float = 0.3) -> Options:
    """Learn the prior as a mixture of encoded pseudo-inputs, with a warm-up of the KL (Tomczak and
    Welling 2018)."""
    return {"prior": f"vamp:inputs={inputs}", "beta": f"warmup:share={share:g}"}


def dvae(*, codes: int = 32, temperature: float = 0.67) -> Options:
    """Learn one-hot latents by the Gumbel-softmax (Jang et al. 2017)."""
    return {
        "posterior": f"categorical:codes={codes}",
        "gradient": f"gumbel-softmax:temperature={temperature:g}",
    }


RECIPES: dict[str, Callable[..., Options]] = {
    "beta-vae": beta_vae,
    "annealed": annealed,
    "cyclical": cyclical,
    "beta-tcvae": beta_tcvae,
    "dip-vae-i": dip_vae_i,
    "dip-vae-ii": dip_vae_ii,
    "info-vae": info_vae,
    "wae": wae,
    "sigma-vae": sigma_vae,
    "free-bits": free_bits,
    "delta-vae": delta_vae,
    "capacity": capacity,
    "geco": geco,
    "lagging": lagging,
    "iwae": iwae,
    "dreg": dreg,
    "stl": stl,
    "vimco": vimco,
    "rloo": rloo,
    "vampprior": vampprior,
    "dvae": dvae,
}
