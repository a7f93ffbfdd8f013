"""Serves an exported student: `mangakd.runtime.load("export/best").predict(["where is my order?"])`.

This package never imports torch or transformers: numpy, tokenizers, and one of onnxruntime or openvino when a model is loaded.
Of mangakd it imports mangakd.core.errors alone, so that `pip install --no-deps mangakd` is enough where a student is served.
"""

from mangakd.runtime.model import Model, load

__all__ = ["Model", "load"]
