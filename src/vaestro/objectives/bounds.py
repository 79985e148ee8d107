r"""Bounds on log p(x), as functions `Draws -> (B,)` in nats.

With log w = log p(x | z) + log p(z) - log q(z | x) at draws z ~ q(z | x),

    elbo  = mean_k log p(x | z_k) - rate          (Kingma and Welling 2014)
    iwae  = log mean_k exp(log w_k)               (Burda, Grosse and Salakhutdinov 2016)
    miwae = mean_m log mean_k exp(log w_mk)       (Rainforth et al. 2018)
    ciwae = weight elbo + (1 - weight) iwae       (Rainforth et al. 2018)

Each is a lower bound in expectation, for any number of draws, and E[exp(iwae)] = p(x). The ELBO
uses the exact rate if the KL has a closed form.

A loss may weight the rate by beta (Higgins et al. 2017). For iwae this means
log w = log p(x | z) + beta (log p(z) - log q(z | x)). `Draws.weight` is beta; it is 1 in all
results that are reported.
"""

from __future__ import annotations

from torch import Tensor

from vaestro.densities import log_mean_exp
from vaestro.gradients import Bound
from vaestro.models import Draws


def elbo(draws: Draws) -> Tensor:
    """Return the evidence lower bound of each datum, (B,), in nats, with the weight of the draws.

    >>> import torch
    >>> from vaestro.models import Draws
    >>> from vaestro.densities import Normal, StandardNormal
    >>> q, p = Normal(torch.ones(1, 2), torch.zeros(1, 2)), StandardNormal((2,), torch.zeros(()))
    >>> log_px, rate = torch.full((1, 1), -3.0), torch.tensor([[[0.5, 0.5]]])
    >>> elbo(Draws(torch.ones(1, 1, 2), log_px, rate, q, p, px=q))
    tensor([-4.])
    """
    if draws.unweighted:
        return draws.mean_log_px - draws.total_rate
    return draws.mean_log_px - draws.weight * draws.total_rate


def iwae(draws: Draws) -> Tensor:
    """Return the importance-weighted bound of each datum, (B,), in nats, with the weight of the
    draws.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> iwae(model.draw(data.valid.batch(slice(0, 4)), k=5)).shape
    torch.Size([4])
    """
    return log_mean_exp(draws.log_w)


def miwae(draws: Draws, m: int) -> Tensor:
    """Return the mean of m importance-weighted bounds with K / m draws each, (B,), in nats, with
    the weight of the draws.

    >>> import torch
    >>> from vaestro.models import Draws
    >>> from vaestro.densities import Normal, StandardNormal
    >>> q, p = Normal(torch.zeros(1, 2), torch.zeros(1, 2)), StandardNormal((2,), torch.zeros(()))
    >>> log_px = torch.tensor([[-1.0], [-1.0], [-3.0], [-3.0]])
    >>> draws = Draws(torch.zeros(4, 1, 2), log_px, torch.zeros(1, 1, 2), q, p, px=q)
    >>> miwae(draws, m=2), miwae(draws, m=4)
    (tensor([-2.]), tensor([-2.]))
    """
    return log_mean_exp(draws.log_w.unflatten(0, (m, -1)), 1).mean(0)


def ciwae(draws: Draws, weight: float) -> Tensor:
    """Return weight elbo + (1 - weight) iwae of the same draws, (B,), in nats, with the weight of
    the draws.

    >>> import vaestro as vs
    >>> data = vs.load("digits")
    >>> model = vs.build(data.space, latent=2, network="mlp:width=8")
    >>> draws = model.draw(data.valid.batch(slice(0, 4)), k=5)
    >>> bool((ciwae(draws, 1.0) == elbo(draws)).all())
    True
    """
    return weight * elbo(draws) + (1 - weight) * iwae(draws)


BOUNDS: dict[str, Bound] = {"elbo": elbo, "iwae": iwae}
