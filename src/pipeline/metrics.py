"""What is measured: the name of each metric, which way is better, what kind of figure it is, where it stands in tables.

Whatever depends on a metric's meaning (which epoch is best, what a sweep looks for, who beats whom, what a table shows
first) asks here, so that all of it agrees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pipeline.config.nearest import suggest
from pipeline.errors import UserError

Direction = Literal["max", "min"]
Kind = Literal["share", "score", "error", "loss", "cost"]


@dataclass(frozen=True)
class Metric:
    """What is known of a metric.

    Args:
        name: Name that it is recorded under, without the split (``accuracy`` for ``val/accuracy``).
        direction: Whether more (``max``) or less (``min``) of it is better; None where neither is.
        kind: ``share`` (of what is right or found, shown in percent), ``score`` (a number of its own scale), ``error``
            (a distance between what was said and what is true), ``loss`` or ``cost`` (what a run takes, instead of what
            it reaches).
        unit: Unit that it is counted in; ``target`` is the unit of what is predicted, empty is none.
        also: Other names that people log it by.
        per_prediction: Whether it is a mean over predictions, so that two models can be compared one by one.
        headline: Whether it is shown where there is room for few.
    """

    name: str
    direction: Direction | None
    kind: Kind
    unit: str = ""
    also: tuple[str, ...] = ()
    per_prediction: bool = False
    headline: bool = False


_OURS = (
    # What a model is judged by is the first of them that is not the loss.
    Metric("loss", "min", "loss", also=("losses", "cost"), headline=True),
    Metric("hit_rate", "max", "share", also=("hit_ratio", "hits"), per_prediction=True, headline=True),
    Metric("bits_per_char", "min", "loss", "bits per character", per_prediction=True, headline=True),
    Metric("accuracy", "max", "share", also=("acc", "accuracies"), per_prediction=True, headline=True),
    Metric("mae", "min", "error", "target", ("mean_absolute_error",), per_prediction=True, headline=True),
    Metric("mse", "min", "error", "target²", ("mean_squared_error",)),
    Metric("rmse", "min", "error", "target", ("root_mean_squared_error",)),
    Metric("r2", "max", "score", also=("r2_score", "r_squared")),
    Metric(
        "f1", "max", "share", also=("f1_score", "f_score", "f_measure", "fmeasure", "f_beta_score", "fbeta")
    ),
    Metric("roc_auc", "max", "share", also=("auroc", "auc", "auc_roc", "rocauc")),
    Metric("average_precision", "max", "share", also=("ap", "map", "mar", "auprc", "pr_auc", "auc_pr")),
    Metric("balanced_accuracy", "max", "share", also=("balanced_acc", "balanced_accuracy_score")),
    Metric("log_loss", "min", "loss", also=("logloss",)),
    Metric("median_absolute_error", "min", "error", "target", ("medae",)),
    Metric("mape", "min", "error", also=("mean_absolute_percentage_error",)),
    # Whether intervals hold as often as they say: more is not better.
    Metric("coverage", None, "share"),
)
_WELL_KNOWN: tuple[tuple[Direction | None, Kind, str], ...] = (
    # A line is a metric, its own name before the others.
    (
        "max",
        "share",
        """
        precision prec ppv positive_predictive_value
        recall sensitivity tpr true_positive_rate
        specificity tnr true_negative_rate
        npv negative_predictive_value
        iou miou io_u jaccard jaccard_index intersection_over_union
        dice dsc dice_coef
        exact_match em
        success_rate win_rate
        panoptic_quality pq
        """,
    ),
    (
        "max",
        "score",
        """
        explained_variance
        d2_score d2_brier_score d2_log_loss_score
        mcc matthews_corrcoef matthews_corr_coef
        kappa cohen_kappa qwk
        pearson pearsonr
        spearman spearmanr
        kendall kendalltau kendall_tau
        correlation corr corrcoef corr_coef rank_corr_coef
        concordance c_index ccc
        contingency_coefficient cramers_v tschuprows_t theils_u
        similarity cosine_similarity
        ndcg dcg normalized_dcg
        mrr mean_reciprocal_rank
        positive_likelihood_ratio
        rand_index rand ari
        mutual_info nmi ami
        silhouette
        dunn_index
        v_measure homogeneity completeness
        fowlkes_mallows_index
        critical_success_index
        bleu sacrebleu
        rouge rougel rougelsum rouge_l rouge_lsum
        meteor chrf cider squad
        word_info_preserved wip
        psnr
        ssim structural_similarity_index_measure
        fidelity vif
        quality speech_quality quality_assessment image_quality_index
        intelligibility stoi
        pesq
        mean_opinion_score mos
        snr si_snr signal_noise_ratio
        sdr si_sdr signal_distortion_ratio
        likelihood log_likelihood elbo
        score scores
        reward rewards return returns
        """,
    ),
    (
        "min",
        "loss",
        """
        nll negative_log_likelihood neg_log_likelihood
        cross_entropy crossentropy ce bce
        hinge
        huber smooth_l1
        pinball quantile_loss
        kl kld kl_divergence
        divergence jsd mmd
        deviance deviance_score
        perplexity ppl
        bits_per_byte bpb bits_per_dim bpd bpc
        crps continuous_ranked_probability_score
        regret
        """,
    ),
    (
        "min",
        "error",
        """
        error errors err error_rate mistakes miss_rate
        smape wmape
        mase
        msle rmsle mean_squared_log_error
        nrmse
        sse rss
        residual residuals
        deviation
        cer char_error_rate
        wer word_error_rate
        mer ter edit_rate
        word_info_lost wil
        brier brier_score
        ece calibration_error mce
        eer
        fpr false_positive_rate fall_out
        fnr false_negative_rate
        fdr false_discovery_rate
        negative_likelihood_ratio
        distance hamming hausdorff hd95 levenshtein l1 l2
        fid kid
        lpips patch_similarity texture_similarity perceptual_path_length
        distortion distortion_index spectral_angle_mapper dimensionless_synthesis
        total_variation
        disparity
        davies_bouldin davies_bouldin_score
        """,
    ),
    ("min", "cost", "parameters\n seconds time duration latency\n flops macs"),
    ("max", "cost", "samples_per_second throughput fps"),
    (None, "cost", "lr learning_rate"),
)
REGISTRY: tuple[Metric, ...] = _OURS + tuple(
    Metric(line.split()[0], direction, kind, also=tuple(line.split()[1:]))
    for direction, kind, lines in _WELL_KNOWN
    for line in lines.strip().splitlines()
)
"""Every metric that is known, in the order of tables."""

_SPLIT = re.compile(r"(train|val|valid|validation|test)[_/.](.+?)(?:_epoch)?")

_QUALIFIER = re.compile(
    # Which split, which of several values, averaged how, over what: none of it says what is measured.
    r"train|training|val|valid|validation|test|testing|dev|eval|evaluation|holdout|best|baseline|last|final"
    r"|step|epoch|batch|fold|total|overall|mean|avg|average|std|median|min|max|low|high|smooth|ema|raw"
    r"|macro|micro|weighted|samples|ovr|ovo|class|label|dataloader|idx|at|top|k|\d+k?|top\d+"
)


def with_slash(name: str) -> str:
    """A metric's name in this project's form: ``val_loss`` and ``valid/loss_epoch`` become ``val/loss``."""
    found = _SPLIT.fullmatch(name)
    if found is None:
        return name
    return f"{'val' if found[1].startswith('val') else found[1]}/{found[2]}"


def find(name: str) -> Metric | None:
    """The metric that a name as it is logged speaks of, None where the name says nothing that is known.

    The split, averages, numbers and the like are left out (``val/acc_best``, ``valid_f1_macro``, ``hit_rate_at_5``,
    ``train_loss_epoch``). Of what is left the end decides, as it does in speech: ``pixel_accuracy`` is an accuracy,
    ``reconstruction_loss`` a loss, but of ``loss_weight`` nothing is known.
    """
    return _read(name)[0]


def direction(name: str) -> Direction:
    """Whether more (``max``) or less (``min``) of what is logged as ``name`` is better.

    Of a standard deviation less is better, whatever it is that deviates; an error with ``neg`` before it is as
    scikit-learn scores it: more is better.

    Raises:
        UserError: The direction is not known; the nearest names are part of the message.

    Example:
        >>> direction("val/acc_best")
        'max'
    """
    if way := _direction(name):
        return way
    near = suggest(name.rpartition("/")[2], [metric.name for metric in REGISTRY if metric.direction])
    near = f" {near}" if near.startswith("Did") else ""
    raise UserError(
        f"it is not known whether more or less of {name} is better.{near} Name a metric that is known (accuracy, f1, "
        "roc_auc, mae, rmse, loss, …), or set objective.direction=maximize|minimize"
    )


def higher_is_better(name: str) -> bool:
    """Whether more of what is logged as ``name`` is better.

    Raises:
        UserError: The direction is not known.
    """
    return direction(name) == "max"


def contradiction(name: str, direction: str) -> str:
    """A word of warning where a direction goes against what a metric means; empty elsewhere.

    Args:
        name: Name of the metric.
        direction: ``maximize`` or ``minimize``.
    """
    way = _direction(name)
    if way is None or direction.startswith(way):
        return ""
    more = "more" if way == "max" else "less"
    return f"{direction} is asked for, but {more} of {name} is better: the worst is looked for"


def in_order(names: Iterable[str]) -> list[str]:
    """The names as a table shows them: the loss, what a model is judged by, the rest, at the end what is not known."""
    return sorted(names, key=lambda name: (_place(name), name))


def judged_by(names: Iterable[str]) -> str | None:
    """The one of the names that a model is judged by: the first in order, the loss only where there is nothing else.

    None where it is not known of any of them which way is better.
    """
    known = [name for name in in_order(names) if _direction(name)]
    return next((name for name in known if _place(name) > 0), known[0] if known else None)


def headline(names: Iterable[str]) -> list[str]:
    """Those of the names that are shown where there is room for few, in order.

    Where the usual ones are missing, the first of the others takes their place.
    """
    names = in_order(name for name in without_deviations(names) if not is_cost(name))
    shown = [name for name in names if (found := find(name)) and found.headline]
    if all(_place(name) == 0 for name in shown):
        others = [name for name in names if name not in shown]
        shown += [
            name for name in others if name == others[0] or (find(name) and find(name) == find(others[0]))
        ]
    return shown


def in_words(name: str, value: float) -> str:
    """A metric's value as one says it: shares in percent, anything else to three digits, or all before the point."""
    if _is_share(name):
        return f"{100 * value:.1f} %"
    return f"{value:.3g}" if abs(value) < 1e3 else four_digits(value)


def unit_of(name: str, of_target: str = "") -> str:
    """What a metric is counted in, empty where it has no unit.

    Args:
        name: Name of the metric.
        of_target: Unit of what is predicted.
    """
    found = find(name)
    unit = "" if found is None else found.unit
    return unit.replace("target", of_target) if of_target or "target" not in unit else ""


def difference_in_words(name: str, value: float) -> str:
    """A difference of two of a metric's values as one says it: that of shares in percentage points."""
    return f"{100 * value:.1f} points" if _is_share(name) else four_digits(value)


def four_places(value: float, sign: str = "") -> str:
    """A figure with four digits behind the point, as a table has it; of a large one, what counts: 14,536.

    Args:
        value: The figure.
        sign: ``+`` shows the sign of what is above 0 too.
    """
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        return f"{value:{sign}.4g}"
    places = 0 if size >= 1e4 else 1 if size >= 1e3 else 4
    return f"{value:{sign},.{places}f}"


def four_digits(value: float) -> str:
    """A figure in the four digits that count, and all before the point: 83,630 rather than 8.363e+04."""
    size = abs(value)
    if not 1e-3 <= size < 1e9:
        return f"{value:.4g}"
    text = f"{value:,.{max(0, 3 - math.floor(math.log10(size)))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def without_deviations(names: Iterable[str]) -> list[str]:
    """The names without those (``mae_std``) of the standard deviation of another one."""
    known = list(names)
    return [name for name in known if not (name.endswith("_std") and name.removesuffix("_std") in known)]


def is_cost(name: str) -> bool:
    """Whether the name is that of what a run takes (time, rates), which says nothing of how good a model is."""
    found = find(name)
    return found is not None and found.kind == "cost"


def _direction(name: str) -> Direction | None:
    found, before = _read(name)
    if found is None or found.direction is None:
        return None
    if _words(name)[-1] == "std":
        return "min"
    if "neg" not in before:
        return found.direction
    # neg_recall may be the recall of what is negative, neg_loss the loss of negative pairs.
    return "max" if found.direction == "min" and found.name != "loss" else None


def _is_share(name: str) -> bool:
    found = find(name)
    return found is not None and found.kind == "share"


@cache
def _read(name: str) -> tuple[Metric | None, tuple[str, ...]]:
    """The metric of a name, and the words before it."""
    # The second reading is that of a class: MulticlassF1Score, BLEUScore.
    for text in (name, re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)):
        words = _words(text)
        for end in range(len(words), 0, -1):
            for start in range(end):
                if found := _called("_".join(words[start:end])):
                    return found, tuple(words[:start])
            if not _QUALIFIER.fullmatch(words[end - 1]):
                break
    return None, ()


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _called(name: str) -> Metric | None:
    """The metric of just that name; a number at its end does not count: acc1, rouge2, ndcg10."""
    return _BY_NAME.get(name) or _BY_NAME.get(name.rstrip("0123456789"))


def _place(name: str) -> int:
    found = find(name)
    return len(REGISTRY) if found is None else _PLACES[found.name]


_BY_NAME = {name: metric for metric in reversed(REGISTRY) for name in (metric.name, *metric.also)}
_PLACES = {metric.name: place for place, metric in enumerate(REGISTRY)}
