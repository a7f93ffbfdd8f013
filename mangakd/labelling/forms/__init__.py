"""What a teacher is asked for. Each form is a file of its own: what is asked, and which rows are written with the answer."""

from mangakd.labelling.forms.answers import Answers
from mangakd.labelling.forms.form import Form, Reads, Unusable
from mangakd.labelling.forms.rewrites import Rewrites, Turns

__all__ = ["Answers", "Form", "Reads", "Rewrites", "Turns", "Unusable"]
