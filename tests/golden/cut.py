"""Cuts the compact goldens of the tests from the full outputs of the reference implementations.

    python tests/golden/cut.py FOLDER_OF_FULL_OUTPUTS FOLDER_OF_KEY_LISTS

The full outputs were made by running MMagic 1.2.0 (torch 2.13), the authors' TF1 graph
(tensorflow 2.21, compat.v1) and nipponjo/deepfillv2-pytorch @4899fd3 (torch 2.13) on seeded weights
and inputs. Arrays stay float32 and NCHW, as the references wrote them. See README.md beside this
file.
"""

import ast
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

CUTS = {
    # Generator outputs; nipponjo's with two evaluations of the discriminator.
    "gen_g22_b2_72x72": ["masked", "mask", "stage1", "stage2", "att_argmax"],
    "tf_gen_g22_b1_64x64": ["image", "mask", "stage1", "stage2"],
    "tf_gen_g22_b1_72x72": ["image", "mask", "stage1", "stage2"],
    "nipponjo_g22_b1_72x72": ["image", "mask", "nipponjo/", "nipponjo_tf/"],
    # Parts.
    "gatedconv": ["k3s2/", "k3s2_odd/", "k3d16/", "k3out/", "k3zeros/"],
    "disc_b2_72": ["image", "mask", "out_train", "out_eval_after2", "sigma_1", "sigma_2", "u_1/"],
    "tf_disc_b2_64": ["image", "mask", "out_1", "out_2"],
    # Training. The three steps' pictures are 0..255.
    "losses_grads_g22_b2_72x72": ["image", "mask", "grad_names", "grad_norm_f64", "loss_"],
    "trainstep_g22_b2_72x72": ["gt255", "mask", "log_"],
}
# Attention: cases a..o but the two largest; both references where both ran.
LARGE = ("f_", "g_")


def cut(source: Path, keys: Path) -> None:
    """Writes every compact file, and the references' tensor names and shapes."""
    for name, prefixes in CUTS.items():
        with np.load(source / f"{name}.npz") as full:
            kept = {k: full[k] for k in full if k.startswith(tuple(prefixes))}
        np.savez_compressed(HERE / f"{name}.npz", **kept)
    with np.load(source / "ca.npz") as mmagic, np.load(source / "tf_ca.npz") as tf:
        kept = {
            key: mmagic[key]
            for key in mmagic
            if not key.startswith(LARGE) and not key.endswith(("/score", "/scoremax"))
        }
        kept |= {
            key.replace("/out", "/tf_out"): tf[key]
            for key in tf
            if not key.startswith(LARGE) and key.endswith("/out")
        }
    np.savez_compressed(HERE / "attention.npz", **{k: v for k, v in kept.items() if _small(k)})
    cut_metrics(source)
    names = ("mmagic", "tf", "nipponjo", "nipponjo_tf")
    shapes = {name: _read_keys(keys / f"{name}_keys.txt") for name in names}
    (HERE / "keys.json").write_text(json.dumps(shapes) + "\n")


def cut_metrics(source: Path) -> None:
    """Writes two scored pairs, NHWC: uint8 image and mask, completed uint8 ("u8") or float32."""
    with np.load(source / "metrics.npz") as full:
        picture = {key: full[key].transpose(1, 2, 0)[np.newaxis] for key in full if full[key].ndim}
        kept = {"image": picture["u8/gt"].astype(np.uint8)}
        kept["mask"] = picture["u8/mask"].astype(np.uint8)
        for pair, dtype in (("u8", np.uint8), ("float", np.float32)):
            kept[f"{pair}/completed"] = picture[f"{pair}/pred"].astype(dtype)
            for ours, theirs in (("l1_hole", "MAE_mask_x100"), ("psnr", "PSNR"), ("ssim", "SSIM")):
                kept[f"{pair}/{ours}"] = full[f"{pair}/{theirs}"]
    np.savez_compressed(HERE / "metrics.npz", **kept)


def _small(key: str) -> bool:
    """Drops the intermediate score matrices of case c."""
    return not key.endswith(("/corr", "/fused", "/maskadd", "/overlap"))


def _read_keys(path: Path) -> dict[str, list[int]]:
    """Reads lines of "name TAB (shape) ..."."""
    lines = [line.split("\t") for line in path.read_text().splitlines() if "\t" in line]
    return {line[0].strip(): list(ast.literal_eval(line[1])) for line in lines}


if __name__ == "__main__":
    cut(*map(Path, sys.argv[1:]))
