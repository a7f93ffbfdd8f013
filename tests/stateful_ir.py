"""A stateful IR that is a language model by hand: the sum of the embeddings so far predicts the next token.

    logits_i = E W Σ_{j ≤ i} E[ids_j]         E: (V, D), W: (D, D)

It has the inputs, the variable and the names of what optimum-intel exports, so that the engine and NNCF can be tested without it.
"""

from pathlib import Path

import numpy as np
from chat_samples import chat_tokenizer

D = 48


def weights(vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """E and W in fp32."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((vocabulary, D)).astype(np.float32), rng.standard_normal((D, D)).astype(np.float32) / 7


def expected_logits(ids: list[int], vocabulary: int) -> np.ndarray:
    """(T, V) in float64, all at once."""
    embeddings, matrix = (each.astype(np.float64) for each in weights(vocabulary))
    return np.cumsum(embeddings[ids], axis=0) @ matrix.T @ embeddings.T


def save_ir(folder: Path, vocabulary: int) -> Path:
    """openvino_model.xml."""
    import openvino as ov
    from openvino import opset13 as op
    from openvino.op import util

    embeddings, matrix = weights(vocabulary)
    ids, mask, positions = (
        op.parameter([-1, -1], np.int64, name=each) for each in ("input_ids", "attention_mask", "position_ids")
    )
    beam = op.parameter([-1], np.int32, name="beam_idx")
    for each in (ids, mask, positions, beam):
        each.output(0).get_tensor().set_names({each.friendly_name})
    zero, one = np.int64(0), np.int64(1)
    table = op.constant(embeddings)
    batch = op.gather(op.shape_of(ids), op.constant([0]), zero)
    start = op.broadcast(op.constant(np.float32(0)), op.concat([batch, op.constant([1]), op.constant([D])], 0))
    about = util.VariableInfo()
    about.data_shape, about.data_type, about.variable_id = ov.PartialShape([-1, 1, D]), ov.Type.f32, "sum"
    variable = util.Variable(about)
    before = op.gather(op.read_value(start, variable), beam, zero)
    sums = op.add(op.cum_sum(op.gather(table, ids, zero), one), before)
    sink = op.assign(op.slice(sums, [-1], [np.iinfo(np.int64).max], [1], [1]), variable)
    states = op.matmul(sums, op.constant(matrix), False, True)
    logits = op.matmul(states, table, False, True)
    logits.output(0).get_tensor().set_names({"logits"})
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "openvino_model.xml"
    ov.save_model(
        ov.Model([op.result(logits)], [sink], [ids, mask, positions, beam], "sums"), file, compress_to_fp16=False
    )
    return file


def save_folder(folder: Path, kind: str = "chatml") -> int:
    """IR and tokenizer, which reads names of special tokens as these tokens, as that of a merged folder; returns V."""
    tokenizer = chat_tokenizer(kind)
    save_ir(folder, len(tokenizer))
    tokenizer.split_special_tokens = False
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
