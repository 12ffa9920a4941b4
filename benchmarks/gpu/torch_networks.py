"""The networks of `mmagic` as plain PyTorch functions of images and masks, [B, C, H, W]."""

import torch
import torch.nn.functional as F

from deepfill_jax.models import attention, discriminator
from deepfill_jax.models import generator as tables


def pad(x, reach):
    return F.pad(x, (reach,) * 4, mode="reflect")


def gated(x, params, stride=1, dilation=1, activation=F.elu):
    kernel, bias = params["kernel"], params["bias"]
    x = pad(x, dilation * (kernel.shape[-1] - 1) // 2)
    value, gate = F.conv2d(x, kernel, bias, stride, dilation=dilation).chunk(2, dim=1)
    return activation(value) * torch.sigmoid(gate)


def encode(x, params, table):
    for index, (_, stride, _) in enumerate(table, start=1):
        x = gated(x, params[f"encode{index}"], stride)
    return x


def dilate(x, params):
    for dilation in tables.DILATIONS:
        x = gated(x, params[f"dilate{dilation}"], dilation=dilation)
    return x


def decode(x, params):
    for index, (upsampled2x, _) in enumerate(tables.DECODER, start=1):
        x = F.interpolate(x, scale_factor=2) if upsampled2x else x
        x = gated(x, params[f"decode{index}"])
    return torch.tanh(gated(x, params["to_rgb"], activation=lambda value: value).float())


def fuse(scores, rows, columns):
    """Sums neighbours along the diagonals of [B, Q, K], in row-major, then column-major order."""
    diagonal = torch.eye(3, dtype=scores.dtype, device=scores.device)[None, None]
    for first, second in ((rows, columns), (columns, rows)):
        scores = F.conv2d(scores[:, None], diagonal, padding=1)
        scores = scores.reshape(-1, first, second, first, second).permute(0, 2, 1, 4, 3)
        scores = scores.reshape(-1, rows * columns, rows * columns)
    return scores


def attend(x, mask):
    small, small_mask = x[..., ::2, ::2], mask[..., ::2, ::2]
    queries = F.unfold(small, 3, padding=1)  # [B, C * 9, Q]
    lengths = queries.float().square().sum(1, keepdim=True)
    keys = queries / lengths.clamp(min=attention.NORM_FLOOR**2).sqrt().to(queries.dtype)
    scores = fuse(queries.transpose(1, 2) @ keys, *small.shape[2:])
    available = 1 - F.unfold(small_mask, 3, padding=1).amax(1)[:, None]  # [B, 1, K]
    logits = attention.SOFTMAX_SCALE * scores * available
    logits = logits.masked_fill(available == 0, attention.EXCLUDED_LOGIT)
    weights = logits.softmax(-1) * available
    values = F.unfold(x, 4, stride=2, padding=1)
    copied = values @ weights.to(values.dtype).transpose(1, 2)
    lay = {"output_size": x.shape[2:], "kernel_size": 4, "stride": 2, "padding": 1}
    counts = F.fold(torch.ones_like(copied[:1, :16]), **lay)
    return F.fold(copied, **lay) / counts


def generate(params, masked, mask):
    """Runs the generator of `mmagic`; returns the coarse, refined and completed images."""

    def with_mask(x):
        return torch.cat([x, torch.ones_like(mask), mask], dim=1)

    x = encode(with_mask(masked), params["coarse"], tables.COARSE_ENCODER)
    coarse = decode(dilate(x, params["coarse"]), params["coarse"]["decoder"])
    x = with_mask(torch.where(mask > 0.5, coarse, masked))
    refine = params["refine"]
    imagined = encode(x, refine["conv_branch"], tables.CONV_ENCODER)
    imagined = dilate(imagined, refine["conv_branch"])
    branch = refine["attention_branch"]
    copied = attend(encode(x, branch, tables.ATTENTION_ENCODER), mask[..., ::4, ::4])
    copied = gated(gated(copied, branch["attended1"]), branch["attended2"])
    refined = decode(torch.cat([imagined, copied], dim=1), refine["decoder"])
    return coarse, refined, torch.where(mask > 0.5, refined, masked)


def score(params, spectral, image, mask):
    """Runs the discriminator after one power iteration."""
    x = torch.cat([image, mask], dim=1)
    for index in range(1, len(discriminator.MULTIPLES) + 1):
        name = f"patch{index}"
        kernel = params[name]["kernel"]
        matrix = kernel.reshape(len(kernel), -1)
        with torch.autocast(x.device.type, enabled=False):
            with torch.no_grad():
                v = F.normalize(spectral[name] @ matrix, dim=0)
                spectral[name] = F.normalize(matrix @ v, dim=0)
            kernel = kernel / (spectral[name] @ matrix @ v)
        x = F.leaky_relu(F.conv2d(x, kernel, params[name]["bias"], 2, padding=2), 0.2)
    return x.float()
