"""The losses. base.py says what a loss is, loss_set.py how several become one."""

from mangakd.losses.attention import AttentionLoss as Attention
from mangakd.losses.base import LossCallback, LossOutput
from mangakd.losses.hard_label import HardLabelLoss as HardLabel
from mangakd.losses.hidden import HiddenLoss as Hidden
from mangakd.losses.output import OutputLoss as Output
from mangakd.losses.relation import RelationLoss as Relation

__all__ = ["Attention", "HardLabel", "Hidden", "LossCallback", "LossOutput", "Output", "Relation"]
