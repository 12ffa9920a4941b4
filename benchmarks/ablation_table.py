"""Markdown table of the results of ablations.py."""

import statistics

HEADER = """# Ablations

`python benchmarks/ablations.py --tables docs/ablations.md` generates this page.
With `--photos FOLDER --workdir RUNS`, the command first trains the rows that have no stored result.

"base" is an initial guess of a recipe for a few hours on two CPU cores at 64 px; each other row changes one choice.
[`configs/best.py`](../configs/best.py), "best", is "base" with the batch size, L1 terms and learning rate that scored best.
"published" is the complete recipe of the paper's authors.
The data set is CelebA's aligned faces.
Rows with the same number of seconds on two CPU cores have the same cost, but not the same number of steps.
All runs are short: they show what makes training fast, and say little about the result after weeks of training.
A discriminator, for instance, does not aim at a lower L1.
The "tuned" rows train a run of "best" for as many seconds again, with the losses of [`configs/sharp.py`](../configs/sharp.py) or some of them; their LPIPS loss uses VGG16, the score AlexNet.
Scores are means over the seeds and {pictures} held-out faces with MMagic's irregular masks.
Differences between two seeds of a row are chance; a row with one seed does not show how large they are.

"""  # noqa: E501


def table(results):
    """Yields the lines: means over the seeds, best first, and the figures of each seed.

    Args:
        results: The results that ablations.py stores.
    """
    kept = {}
    for result in results:
        kept.setdefault((result["seconds"], result["row"]), []).append(result)

    def mean(results, metric):
        return statistics.mean(result["metrics"][metric] for result in results)

    yield "| recipe | seconds | steps | hole L1 | of each seed | PSNR | SSIM | LPIPS of each seed |"
    yield "|---|---|---|---|---|---|---|---|"
    best_first = sorted(kept, key=lambda key: (key[0], mean(kept[key], "l1_hole")))
    for seconds, row in best_first:
        results = kept[seconds, row]
        seeds = ", ".join(f"{result['metrics']['l1_hole']:.2f}" for result in results)
        lpips = [result["metrics"].get("lpips") for result in results]
        lpips = ", ".join(f"{value:.3f}" for value in lpips if value is not None) or "–"
        yield (
            f"| {row} | {seconds} | {results[0]['steps']} | {mean(results, 'l1_hole'):.2f} "
            f"| {seeds} | {mean(results, 'psnr'):.2f} | {mean(results, 'ssim'):.4f} "
            f"| {lpips} |"
        )
