"""What decides about a language model's variant: perplexities and divergences by hand, the gate, the choice, K-quants' types."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mangakd.core.errors import UserError
from mangakd.data.chat_tokens import LEFT_OUT, Marked
from mangakd.evaluation.bootstrap import Estimate
from mangakd.evaluation.report import export as report
from mangakd.export.language.choose import Comparison, Limits, choose
from mangakd.export.language.data import LanguageSplit
from mangakd.export.language.engine import Scores
from mangakd.export.language.quality import Predictions, Quality, compare, divergences, predict
from mangakd.export.language.quantise import RECIPES, quantise, quantiser, type_of
from mangakd.export.language.speed import Speed, Times, rates

P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.7, 0.05])
LIMITS = Limits(1.02, 0.3)
GAPS = {"gguf_q8_0": 0.04, "gguf_q4_k_m": None}  # None: it ends a text where merged goes on


def scores(rows: list[np.ndarray], ids: list[int], most: int = 3) -> Scores:
    top = np.array([row.argsort()[::-1][:most] for row in rows])
    return Scores(
        np.log([row[i] for row, i in zip(rows, ids, strict=True)]),
        top,
        np.log(np.take_along_axis(np.array(rows), top, 1)),
    )


class Fixed:
    """An engine whose probabilities are the same at every place."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities, self.asked = probabilities, list[tuple[list[int], int]]()

    def score(self, ids: list[int], start: int, top: int) -> Scores:
        self.asked.append((list(ids), start))
        return scores([self.probabilities] * (len(ids) - start), list(ids)[start:], min(top, 3))


def test_a_ratio_of_perplexities_a_divergence_and_agreement_by_hand() -> None:
    """Targets 1, 0 and 0: Π p is 0.3·0.5·0.5, that of q is 0.7·0.25·0.25, each over three tokens, of which p has two right and q
    one. A question lies between the first two."""
    sequences = [Marked([9, 1, 2, 0], [0, 1, 0, 1]), Marked([9, 9, 0], [0, 0, 1])]
    merged, own = Fixed(P), Fixed(Q)
    predictions = {name: predict(engine, sequences) for name, engine in {"merged": merged, "own": own}.items()}
    assert own.asked == [([9, 1, 2, 0], 1), ([9, 9, 0], 2)]
    quality = compare(predictions["merged"], predictions, sequences, 200)["own"]
    assert quality.perplexity.value == pytest.approx((0.7 * 0.25 * 0.25) ** (-1 / 3), rel=1e-6)
    assert quality.ratio.value == pytest.approx(((0.3 * 0.5 * 0.5) / (0.7 * 0.25 * 0.25)) ** (1 / 3), rel=1e-6)
    assert quality.kl.value == pytest.approx(float((P * np.log(P / Q)).sum()), rel=1e-5)
    assert quality.right.value == pytest.approx(1 / 3) and quality.drop.value == pytest.approx(100 / 3)
    assert quality.agreement.value == 0.0  # the largest is 0 of p, and 1 of q
    same = compare(predictions["merged"], predictions, sequences, 200)["merged"]
    assert (same.ratio.value, same.kl.value, same.agreement.value) == (1.0, 0.0, 1.0)


def test_a_divergence_over_the_most_probable_tokens_is_at_most_the_whole_one() -> None:
    whole = float((P * np.log(P / Q)).sum())
    two = divergences(scores([P], [0], 2), scores([Q], [0], 2))[0]
    rest_p, rest_q = P[2], Q[2]
    by_hand = float((P[:2] * np.log(P[:2] / Q[:2])).sum() + rest_p * np.log(rest_p / rest_q))
    assert two == pytest.approx(by_hand) == pytest.approx(whole)  # one other token: nothing is put together
    one = divergences(scores([P], [0], 2), scores([np.array([0.25, 0.05, 0.7])], [0], 2))[0]
    assert 0 < one < float((P * np.log(P / np.array([0.25, 0.05, 0.7]))).sum())


def test_a_divergence_counts_what_a_sure_variant_leaves_to_others() -> None:
    """The other token has 0.2 of p and 1e-9 of q; a sum of float32 knows 1e-9 as under 1e-6, so 1e-6 stands for it."""
    sure = np.array([0.5, 0.5 - 1e-9, 1e-9])
    value = divergences(scores([P], [0], 2), scores([sure], [0], 2))[0]
    assert value == pytest.approx(0.3 * np.log(0.3 / 0.5) + 0.2 * np.log(0.2 / 1e-6), rel=1e-6)
    assert value < float((P * np.log(P / sure)).sum())


def test_what_is_not_finite_is_no_quality() -> None:
    infinite = Predictions((Scores(np.array([-np.inf]), np.array([[0]]), np.array([[0.0]])),))
    right = Predictions((Scores(np.array([-1.0]), np.array([[0]]), np.array([[0.0]])),))
    quality = compare(right, {"own": infinite}, [Marked([1, 0], [0, 1])], 50)["own"]
    assert not quality.finite and not Comparison("own", quality, None, LIMITS).passed


def comparison(
    name: str, ratio: float, ms: float, megabytes: float, drop: tuple[float, float] = (-0.1, 0.2)
) -> Comparison:
    def known(value: float, ends: tuple[float, float] | None = None) -> Estimate:
        return Estimate(value, np.linspace(*(ends or (value, value)), 1001))

    middle = sum(drop) / 2
    quality = Quality(known(10 * ratio), known(ratio), known(0.5), known(middle, drop), known(0.98), known(0.01))
    times = {"p50": ms, "p95": 500 - ms, "p99": 500.0}
    return Comparison(name, quality, Speed(megabytes, 0.1, 100, 50, 20, times, times, 128, 64), LIMITS)


def test_the_fastest_that_passes_ships_and_of_equally_fast_ones_the_smallest() -> None:
    """q6_k is within 5 % of q8_0. It loses 0.6 points [0.22, 0.98]: not above 0.3 for certain. q5_k_m does: [0.39, 2.01]."""
    rows = [
        comparison("f16", 1.0001, 100, 270), comparison("q8_0", 1.0015, 50, 140), comparison("q6_k", 1.015, 52, 110, (0.2, 1)),
        comparison("q4_k_m", 1.03, 40, 100), comparison("q5_k_m", 1.01, 30, 90, (0.35, 2.05)),
    ]  # fmt: skip
    chosen = choose(rows, LIMITS, "merged")
    assert chosen.name == "q6_k" and "Not passed: q4_k_m has 1.0300 × the perplexity" in chosen.reason
    assert (
        "q5_k_m has 1.0100 × the perplexity [1.0100, 1.0100] and -1.20 points of right tokens [-2.01, -0.39]"
        in chosen.reason
    )
    assert [each.passed for each in rows] == [True, True, True, False, False]
    none = choose(rows[3:], LIMITS, "merged")
    assert none.name == "merged" and none.reason.startswith(
        "No variant passes the limits of 1.02 × and 0.3 points: q4_k_m"
    )


def test_sequences_come_from_the_whole_split_and_fit() -> None:
    rows = [Marked([1] * 10, [0] * 5 + [1] * 5) for _ in range(40)]
    split = LanguageSplit([*rows, Marked([1] * 99, [0] + [1] * 98), Marked([1, 2], [0, 1], LEFT_OUT)], "validation=x")
    assert len(split.cut(50, 64)) == 10 and len(split.cut(10_000, 64)) == 40
    with pytest.raises(UserError, match="validation=x has no sequence of 2 to 8 tokens with an answer"):
        split.cut(50, 8)


def test_types_of_tensors_are_those_of_llama_quantize() -> None:
    """Llama 3.2 1B (16 layers, rows of 2,048, tied): its Q4_K_M holds the head and 8 layers' values and ffn_down in Q6_K."""
    recipe = RECIPES["gguf_q4_k_m"]
    more = [type_of(recipe, f"blk.{i}.ffn_down.weight", (2048, 8192), 16, True) for i in range(16)]
    assert [i for i, kind in enumerate(more) if kind == "Q6_K"] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert [type_of(recipe, f"blk.{i}.attn_v.weight", (512, 2048), 16, True) for i in (0, 2)] == ["Q6_K", "Q4_K"]
    five = RECIPES["gguf_q5_k_m"]
    assert [type_of(five, f"blk.{i}.attn_v.weight", (512, 2048), 16, True) for i in (0, 2)] == ["Q6_K", "Q5_K"]
    assert all(each.file_type == f"MOSTLY_{name.removeprefix('gguf_').upper()}" for name, each in RECIPES.items())
    assert type_of(recipe, "token_embd.weight", (128256, 2048), 16, True) == "Q6_K"
    assert type_of(recipe, "token_embd.weight", (128256, 2048), 16, False) == "Q4_K"
    assert type_of(recipe, "output.weight", (128256, 2048), 16, False) == "Q6_K"
    assert type_of(recipe, "blk.3.attn_q.weight", (2048, 2048), 16, True) == "Q4_K"
    assert type_of(recipe, "blk.3.attn_q.weight", (576, 576), 30, True) == "Q5_0"  # SmolLM2: 576 is no multiple of 256
    fallbacks = [type_of(own, "blk.0.ffn_down.weight", (576, 1440), 30, True) for own in (recipe, five)]
    assert [*fallbacks, type_of(five, "blk.3.attn_q.weight", (576, 576), 30, True)] == ["Q8_0", "Q8_0", "Q5_1"]
    assert type_of(RECIPES["gguf_q8_0"], "blk.3.attn_q.weight", (16, 16), 3, True) == "F16"
    assert type_of(recipe, "blk.3.attn_norm.weight", (2048,), 16, True) == "F32"


def test_k_quants_are_llama_cpp_s_and_round_trip() -> None:
    """gguf reads them back; the error of a weight is at most half a step: a 30th of its block's range for Q4_K, and less for
    Q6_K."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    assert quantiser() is not None
    array = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)
    errors = {}
    for kind, bits in (("Q4_K", 4.5), ("Q6_K", 6.5625)):
        done = quantise(array, kind)
        assert done.nbytes == array.size * bits / 8
        again = gguf.quants.dequantize(done, gguf.GGMLQuantizationType[kind])
        errors[kind] = np.abs(again - array).max() / np.ptp(array)
    assert errors["Q6_K"] < errors["Q4_K"] < 1 / 30
    with pytest.raises(UserError, match="a weight of 1e\\+06 does not fit into 16 bits"):
        quantise(np.full((1, 32), 1e6, np.float32), "F16")


def record(**changes: Any) -> dict[str, Any]:
    rows = [
        comparison("merged", 1.0, 100, 540),
        comparison("gguf_q8_0", 1.0015, 40, 140),
        comparison("gguf_q4_k_m", 1.05, 30, 90),
    ]
    entries = {
        each.name: {
            **each.metrics(), "backend": "transformers" if each.name == "merged" else "llama.cpp", "how": "…", "recipe": {},
            "parity": {} if each.name == "merged" else {"equal": 19, "prompts": 20, "largest_gap": GAPS[each.name]},
            "latency_ms": {"0": each.speed.answer_ms if each.speed else {}},
        }
        for each in rows
    }  # fmt: skip
    return {
        "format": 1, "kind": "language", "score": "right tokens", "score_format": "{:.1%}", "labelled": True, "dtype": "float32",
        "top": 256, "max_drop": 0.3, "max_perplexity_ratio": 1.02, "threads": 1, "context": 256, "prompt": 128, "new": 64,
        "tokens": 2000, "rows": {"calibration": 0, "validation": 40, "test": 40}, "chosen": "gguf_q8_0", "reason": "Because.",
        "pytorch": {**entries["merged"], "backend": "pytorch"}, "variants": entries, "test": entries["gguf_q8_0"], **changes,
    }  # fmt: skip


def test_the_report_has_perplexities_and_speeds(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "export.json").write_text(json.dumps(record()))
    (section,) = report.section(tmp_path)
    summary, test, quality, notes, cost, figure = section.blocks
    assert summary == "gguf_q8_0 ships. Because." and str(test).startswith(
        "On 40 test sequences, asked once, of gguf_q8_0"
    )
    assert [str(row[0]) for row in quality.rows] == ["merged, PyTorch float32", "gguf_q8_0", "gguf_q4_k_m"]
    cells = quality.rows[1]
    assert cells[3].text == "1.0015" and cells[8] == "19 of 20 (0.04)" and cells[-1] == "pass"
    assert (
        quality.rows[2][8] == "19 of 20 (∞)"
        and quality.rows[2][-1] == "FAIL"
        and "2,000 answer tokens of 40" in str(notes)
    )
    assert cost.rows[1][1].interval == "0.26 ×" and "llama.cpp" in figure.svg


def test_a_busy_machine_does_not_make_generation_endlessly_fast() -> None:
    """128 tokens in 0.02 s; 63 in 0.05 − 0.02 s, though the median of the first tokens, 0.06 s, is above that of the answers."""
    busy = Times(first=[0.06, 0.02, 0.07], whole=[0.05, 0.05, 0.07])
    assert rates(busy, 128, 64) == pytest.approx((6400, 2100))
    assert rates(Times([0.06], [0.05]), 128, 64) == pytest.approx((128 / 0.06, 1280))
