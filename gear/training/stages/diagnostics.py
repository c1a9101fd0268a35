"""The logged figures under their published names."""

from __future__ import annotations

from torch import Tensor

from gear.readout import PosteriorStatistics, codebook_usage, posterior_statistics
from gear.tokenizers.base import Code
from gear.training.optim import Optimization
from gear.training.processes.distributed import all_gather, mean_over_processes
from gear.training.stages.stage import Logs


def codebook_logs(code: Code, temperature: float | None = None) -> Logs:
    """How the codebook is used: the natural posterior softmax(-d), and that of the soft read-out at `temperature`."""
    logs: Logs = usage_logs(code.code_ids, code.distances.num_codes)
    natural, *softer = posterior_statistics(code.distances, [1.0] if temperature is None else [1.0, temperature])
    logs |= _spread("codebook", "natural_entropy_nats", natural)
    if temperature is not None:
        (soft,) = softer
        logs |= _spread("soft", "entropy_nats", soft)
        logs["temperature"] = temperature
    return logs


def usage_logs(code_ids: Tensor, num_codes: int) -> Logs:
    """Share of the codebook that occurs among the code ids (N,) of all processes."""
    return {"codebook_usage": codebook_usage(all_gather(code_ids), num_codes)}


def _spread(prefix: str, entropy_name: str, statistics: PosteriorStatistics) -> Logs:
    """Figures over all processes: the exponential is taken after the mean."""
    entropy_nats = mean_over_processes(statistics.entropy_nats)
    return {
        f"{prefix}/{entropy_name}": entropy_nats,
        f"{prefix}/effective_size": entropy_nats.exp(),
        **{f"{prefix}/top{k}_prob": mass for k, mass in statistics.top_mass.items()},
    }


def tokenizer_logs(generator_logs: dict[str, Tensor], critic_logs: dict[str, Tensor]) -> Logs:
    """The loss head's figures; the adversarial ones under `disc/`."""
    direct = (
        "reconstruction_loss",
        "perceptual_loss",
        "vq_loss",
        "commit_loss",
        "entropy_loss",
        "sample_entropy",
        "avg_entropy",
    )
    adversarial = ("weighted_gan_loss", "gan_loss", "discriminator_factor")
    return {
        **{name: generator_logs[name] for name in direct},
        **{f"disc/{name}": generator_logs[name] for name in adversarial},
        "disc/d_loss": critic_logs["discriminator_loss"],
        "disc/logits_real": critic_logs["logits_real"],
        "disc/logits_fake": critic_logs["logits_fake"],
    }


def optimizer_logs(norms: dict[str, tuple[Optimization, Tensor | None]]) -> Logs:
    """Gradient norms before clipping, and learning rates after the schedule advanced; nothing while accumulating."""
    logs: Logs = {}
    for name, (optimization, norm) in norms.items():
        if norm is not None:
            norm_name, lr_name = _PUBLISHED_NAMES[name]
            logs[norm_name], logs[lr_name] = norm, optimization.lr
            if optimization.loss_scale is not None:
                logs[f"loss_scale/{lr_name.removeprefix('lr/')}"] = optimization.loss_scale.scale
    return logs


_PUBLISHED_NAMES = {
    "tokenizer": ("grad_norm_vq", "lr/vq"),
    "discriminator": ("disc/grad_norm", "lr/disc"),
    "ar": ("grad_norm_ar", "lr/ar"),
}
