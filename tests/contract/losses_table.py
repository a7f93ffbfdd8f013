"""One row per loss class and options: what the contract tests in test_losses.py are run for.

A row's `reference` is its formula in losses_reference.py. To add a loss, add a row, and its formula there.
"""

from dataclasses import dataclass, field
from typing import Any

from losses_reference import (
    Reference,
    attention,
    by_cell,
    by_class,
    by_label,
    by_sample,
    group_heads,
    hard,
    hard_multi,
    hidden,
    kl,
    mean_heads,
    of_binary_entropy,
    of_entropy,
    output,
    output_mse,
    output_mse_multi,
    output_multi,
    relation,
)  # fmt: skip
from losses_reference_groups import binary, list_net, listwise_kl, margin_hinge, margin_mse, rank_net, score_mse
from losses_reference_tokens import compare, tokens
from losses_reference_vectors import contrastive, pair_score, similarity, vector

from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback
from mangakd.losses.binary import BinaryLoss
from mangakd.losses.contrastive import ContrastiveLoss
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.list_net import ListNetLoss
from mangakd.losses.listwise_kl import ListwiseKLLoss
from mangakd.losses.margin_hinge import MarginHingeLoss
from mangakd.losses.margin_mse import MarginMSELoss
from mangakd.losses.output import OutputLoss
from mangakd.losses.pair_score import PairScoreLoss
from mangakd.losses.rank_net import RankNetLoss
from mangakd.losses.relation import RelationLoss
from mangakd.losses.score_mse import ScoreMSELoss
from mangakd.losses.similarity import SimilarityLoss
from mangakd.losses.tokens import TokensLoss
from mangakd.losses.vector import VectorLoss

HEAD = Head.of_labels("abcde")
STUDENT = ModelSpec("student", layers=2, hidden=6, heads=2, head=HEAD, vocabulary="v1")
TEACHER = ModelSpec("teacher", layers=3, hidden=8, heads=4, head=HEAD, vocabulary="v1")  # 3 is no multiple of 2


def like(spec: ModelSpec, **changes: Any) -> ModelSpec:
    return ModelSpec(**{**vars(spec), **changes})


@dataclass(frozen=True)
class Row:
    """A loss with options, the reference it must equal, and the two models it is bound to. It is calibrated with
    VALIDATION."""

    id: str
    cls: type[LossCallback]
    reference: Reference
    options: dict[str, Any] = field(default_factory=dict)
    head: Head = HEAD  # of both models
    student: ModelSpec = STUDENT
    teacher: ModelSpec | None = TEACHER
    members: int = 0  # > 0: an ensemble of this many
    eager: bool = False  # taps that hold probabilities only
    groups: bool = False  # logits are scores of queries' documents
    widths: tuple[int, int] | None = None  # of the vectors of student and teacher
    tokens: str | None = None  # kind of answers of a language model's teacher: states | topk | draws
    scored: bool = False  # rows are pairs of texts with a score, not with a positive


# --- the table -------------------------------------------------------------------------------------------------------

UNIFORM = [(0, 0), (1, 2), (2, 3)]
QKV = ("query", "key", "value")
SAME = like(TEACHER, hidden=6)
FOUR = like(STUDENT, heads=4, hidden=8)
MULTI: dict[str, Any] = {"head": Head.of_labels("abcde", several=True)}
RANKING: dict[str, Any] = {"head": Head("score", 1), "groups": True}
GRADED = {"pairs": "graded"}
LANGUAGE: dict[str, Any] = {"head": Head("tokens", 7), "tokens": "states"}
SPREAD = {by: {"temperature_by": by} for by in ("sample", "class")}

ROWS = [
    Row("hard", HardLabelLoss, hard(), teacher=None),
    Row("hard_smooth", HardLabelLoss, hard(0.1), {"label_smoothing": 0.1}),
    Row("hard_smooth_aware", HardLabelLoss, hard(0.2, True), {"label_smoothing": 0.2, "smoothing_aware": True}),
    Row("hard_multi", HardLabelLoss, hard_multi(), **MULTI),
    Row(
        "hard_multi_smooth_aware",
        HardLabelLoss,
        hard_multi(0.2, 1.25),
        {"label_smoothing": 0.2, "smoothing_aware": True},
        **MULTI,
    ),
    Row("hard_multi_smooth", HardLabelLoss, hard_multi(0.1), {"label_smoothing": 0.1}, teacher=None, **MULTI),
    Row("forward_kl", OutputLoss, output("forward_kl")),
    Row("forward_kl_T1", OutputLoss, output("forward_kl", 1.0), {"temperature": 1.0}),
    Row("forward_kl_ensemble", OutputLoss, output("forward_kl", 3.0), {"temperature": 3.0}, members=3),
    Row("reverse_kl", OutputLoss, output("reverse_kl"), {"divergence": "reverse_kl"}),
    Row("jsd", OutputLoss, output("jsd", beta=0.3), {"divergence": "jsd", "jsd_beta": 0.3}),
    Row("dkd", OutputLoss, output("dkd", beta=8.0), {"divergence": "dkd"}),
    Row(
        "dkd_ensemble",
        OutputLoss,
        output("dkd", 2.0, alpha=0.5, beta=3.0),
        {"divergence": "dkd", "temperature": 2.0, "dkd_alpha": 0.5, "dkd_beta": 3.0},
        members=2,
    ),
    Row("output_mse", OutputLoss, output_mse, {"divergence": "mse"}),
    *(
        Row(f"{name}_multi", OutputLoss, output_multi(name), {"divergence": name}, **MULTI)
        for name in ("forward_kl", "jsd")
    ),
    Row("reverse_kl_multi", OutputLoss, output_multi("reverse_kl"), {"divergence": "reverse_kl"}, members=2, **MULTI),
    *(
        Row(f"{name}_by_{by}", OutputLoss, output(name, t(3.0)), {"divergence": name, "temperature": 3.0, **SPREAD[by]})
        for by, t in (("sample", by_sample), ("class", by_class))
        for name in ("forward_kl", "jsd")
    ),
    Row("by_sample_ensemble", OutputLoss, output("forward_kl", by_sample(4.0)), SPREAD["sample"], members=3),
    Row("dkd_by_class", OutputLoss, output("dkd", by_class(4.0), beta=8.0), {"divergence": "dkd", **SPREAD["class"]}),
    Row(
        "multi_by_sample",
        OutputLoss,
        output_multi("jsd", by_cell(4.0)),
        {"divergence": "jsd", **SPREAD["sample"]},
        **MULTI,
    ),
    Row("multi_by_class", OutputLoss, output_multi("forward_kl", by_label(4.0)), SPREAD["class"], members=2, **MULTI),
    Row("entropy", OutputLoss, output("forward_kl", of_entropy(0.6)), {"entropy": 0.6}),
    Row(
        "entropy_by_sample",
        OutputLoss,
        output("forward_kl", by_sample(of_entropy(0.4, by_sample))),
        {"entropy": 0.4, **SPREAD["sample"]},
    ),
    Row("entropy_multi", OutputLoss, output_multi("forward_kl", of_binary_entropy(0.7)), {"entropy": 0.7}, **MULTI),
    Row("output_mse_score", OutputLoss, output_mse, {"divergence": "mse"}, head=Head("score", 1)),
    Row("output_mse_multi", OutputLoss, output_mse_multi, {"divergence": "mse"}, **MULTI),
    Row("hidden", HiddenLoss, hidden(UNIFORM)),
    Row("hidden_norm", HiddenLoss, hidden([(2, 1)], norm=True), {"layer_map": [[2, 1]], "layer_norm": True}),
    Row("hidden_plain", HiddenLoss, hidden(UNIFORM), {"projection": False}, teacher=SAME),
    Row("hidden_auto", HiddenLoss, hidden([(1, 2), (2, 3)]), {"layer_map": "skip_embedding"}, teacher=SAME),
    Row("hidden_cosine", HiddenLoss, hidden([(1, 2), (2, 3)], "cosine"), {"layer_map": "last", "compare": "cosine"}),
    Row("attention_scores", AttentionLoss, attention(UNIFORM[1:], "scores"), student=FOUR),
    Row("attention_kl", AttentionLoss, attention(UNIFORM[1:], "kl"), {"compare": "kl"}, student=FOUR),
    Row(
        "attention_mse", AttentionLoss, attention([(2, 3)], "mse"), {"compare": "mse", "layer_map": "top"}, student=FOUR
    ),
    *(
        Row(
            f"attention_{compare}_{heads}",
            AttentionLoss,
            attention(UNIFORM[1:], compare, mean_heads if heads == "mean" else group_heads),
            {"compare": compare, "heads": heads},
        )
        for compare in ("scores", "kl", "mse")
        for heads in ("mean", "group")
    ),
    Row(
        "attention_kl_eager",
        AttentionLoss,
        attention([(2, 3)], "kl", group_heads),
        {"compare": "kl", "heads": "group", "layer_map": "top"},
        eager=True,
    ),
    Row("relation", RelationLoss, relation([(2, 3)], QKV, 2)),
    Row("relation_texts", RelationLoss, relation([(2, 3)], QKV, 2, by_text=True), {"average": "texts"}),
    Row(
        "relation_value",
        RelationLoss,
        relation([(1, 1), (2, 3)], ("value",), 1),
        {"relations": ["value"], "relation_heads": 1, "layer_map": {1: 1, 2: 3}},
    ),
    Row("margin_mse", MarginMSELoss, margin_mse(), **RANKING),
    Row("margin_mse_graded", MarginMSELoss, margin_mse(graded=True), GRADED, **RANKING),
    Row("margin_hinge", MarginHingeLoss, margin_hinge(), **RANKING),
    Row("margin_hinge_graded", MarginHingeLoss, margin_hinge(0.5, graded=True), {"margin": 0.5, **GRADED}, **RANKING),
    Row("listwise_kl", ListwiseKLLoss, listwise_kl(), **RANKING),
    Row("listwise_kl_T3", ListwiseKLLoss, listwise_kl(3.0), {"temperature": 3.0}, **RANKING),
    Row("list_net", ListNetLoss, list_net(), teacher=None, **RANKING),
    Row("list_net_sharp", ListNetLoss, list_net(4.0), {"sharpness": 4.0}, **RANKING),
    Row("rank_net", RankNetLoss, rank_net, teacher=None, **RANKING),
    Row("score_mse", ScoreMSELoss, score_mse, **RANKING),
    Row("binary", BinaryLoss, binary(1.0), teacher=None, **RANKING),
    Row("binary_relevant_2", BinaryLoss, binary(2.0), {"relevant": 2}, teacher=None, **RANKING),
    *(
        Row(
            f"similarity_{compare}",
            SimilarityLoss,
            similarity(compare, 0.5),
            {"compare": compare, "temperature": 0.5},
            widths=(4, 5),
        )
        for compare in ("kl", "mse")
    ),
    Row(
        "similarity_dims",
        SimilarityLoss,
        similarity("kl", 0.5, (4, 2)),
        {"temperature": 0.5, "dims": [4, 2]},
        widths=(4, 5),
    ),
    Row("contrastive", ContrastiveLoss, contrastive(0.5), {"temperature": 0.5}, teacher=None, widths=(4, 5)),
    Row(
        "contrastive_soft",
        ContrastiveLoss,
        contrastive(0.5, 0.3, 0.7, (4, 3)),
        {"temperature": 0.5, "soft": 0.3, "teacher_temperature": 0.7, "dims": [4, 3]},
        widths=(4, 5),
    ),
    Row(
        "contrastive_soft_alone",
        ContrastiveLoss,
        contrastive(0.5, 1.0),
        {"temperature": 0.5, "soft": 1.0},
        widths=(4, 5),
    ),
    Row("pair_score", PairScoreLoss, pair_score(), teacher=None, widths=(4, 5), scored=True),
    Row(
        "pair_score_dims", PairScoreLoss, pair_score((3, 1)), {"dims": [3, 1]}, teacher=None, widths=(4, 5), scored=True
    ),
    *(
        Row(f"vector_{compare}", VectorLoss, vector(compare), {"compare": compare}, widths=(5, 5))
        for compare in ("cosine", "mse")
    ),
    Row("vector_linear", VectorLoss, vector("mse", "linear"), {"compare": "mse"}, widths=(4, 5)),
    Row("vector_linear_dims", VectorLoss, vector("cosine", "linear", (4, 2)), {"dims": [4, 2]}, widths=(4, 5)),
    Row("vector_pca", VectorLoss, vector("cosine", "pca"), {"width": "pca"}, widths=(4, 5)),
    Row(
        "vector_pca_dims",
        VectorLoss,
        vector("mse", "pca", (3, 2)),
        {"compare": "mse", "width": "pca", "dims": [3, 2]},
        widths=(4, 5),
    ),
    Row("tokens", TokensLoss, tokens(compare("forward_kl"), "states", 0.9), **LANGUAGE),
    Row("tokens_alone", TokensLoss, tokens(kl, None, 0.0), {"alpha": 0.0}, teacher=None, **LANGUAGE),
    Row("tokens_draws", TokensLoss, tokens(kl, "draws", 0.7), {"alpha": 0.7}, **{**LANGUAGE, "tokens": "draws"}),
    *(
        Row(
            f"tokens_{name}_{kind}_T{t:g}",
            TokensLoss,
            tokens(compare(name, 0.3, 0.2), kind, 0.6, t),
            {"divergence": name, "alpha": 0.6, "temperature": t, "jsd_beta": 0.3, "skew": 0.2},
            **{**LANGUAGE, "tokens": kind},
        )
        for name, kind, t in (
            ("reverse_kl", "states", 1.0),
            ("skew_kl", "states", 2.0),
            ("forward_kl", "topk", 1.0),
            ("jsd", "topk", 2.0),
        )
    ),
]
