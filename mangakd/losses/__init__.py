"""The losses. base.py says what a loss is, loss_set.py how several become one, groups.py what the
ranking losses share, prefixes.py what those of vectors share."""

from mangakd.losses.attention import AttentionLoss as Attention
from mangakd.losses.base import LossCallback, LossOutput
from mangakd.losses.binary import BinaryLoss as Binary
from mangakd.losses.contrastive import ContrastiveLoss as Contrastive
from mangakd.losses.hard_label import HardLabelLoss as HardLabel
from mangakd.losses.hidden import HiddenLoss as Hidden
from mangakd.losses.list_net import ListNetLoss as ListNet
from mangakd.losses.listwise_kl import ListwiseKLLoss as ListwiseKL
from mangakd.losses.margin_hinge import MarginHingeLoss as MarginHinge
from mangakd.losses.margin_mse import MarginMSELoss as MarginMSE
from mangakd.losses.output import OutputLoss as Output
from mangakd.losses.pair_score import PairScoreLoss as PairScore
from mangakd.losses.rank_net import RankNetLoss as RankNet
from mangakd.losses.relation import RelationLoss as Relation
from mangakd.losses.score_mse import ScoreMSELoss as ScoreMSE
from mangakd.losses.similarity import SimilarityLoss as Similarity
from mangakd.losses.tokens import TokensLoss as Tokens
from mangakd.losses.vector import VectorLoss as Vector

__all__ = [
    "Attention", "Binary", "Contrastive", "HardLabel", "Hidden", "ListNet", "ListwiseKL", "LossCallback", "LossOutput",
    "MarginHinge", "MarginMSE", "Output", "PairScore", "RankNet", "Relation", "ScoreMSE", "Similarity", "Tokens", "Vector",
]  # fmt: skip
