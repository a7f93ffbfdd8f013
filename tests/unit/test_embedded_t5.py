"""The tiny encoder–decoder that is made on the spot: its tokenizer, and the circuit that copies."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from mangakd.models import embedded_t5
from mangakd.models.location import locate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANGAKD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(locate("embedded_t5"))


@pytest.mark.parametrize("text", ["is Naruto volume 12 in stock?", "écran 漫画\tA  b ", "order MA-20417", "</s> ?"])
def test_the_tokenizer_reads_any_text_as_t5s_does(text: str, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id == 1 and tokenizer.pad_token_id == 0 and tokenizer.unk_token_id == 2
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) == text


def test_random_weights_copy_what_followed_a_token(folder: Path) -> None:
    """The first decoder layer's attention, for a decoder that has written the first tokens of the source: on the next token."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert model.config.decoder_start_token_id == 0 and model.config.tie_word_embeddings
    words = model.config.vocab_size - 3
    source = torch.randperm(words, generator=torch.Generator().manual_seed(0))[None, :20] + 3
    with torch.no_grad():
        seen = model(input_ids=source, decoder_input_ids=source[:, :19], output_attentions=True).cross_attentions[0]
    assert (seen[0, 0].argmax(-1) == torch.arange(1, 20)).float().mean() > 0.9
    assert seen[0, 1:].diagonal(1, -2, -1).mean() < 0.3 < 0.6 < seen[0, 0].diagonal(1, -2, -1).mean()


def test_the_same_texts_give_the_same_weights(tmp_path: Path) -> None:
    one, other = (embedded_t5.folder(["who wrote Nana?"], tmp_path / name) for name in "ab")
    assert one.name == other.name
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert embedded_t5.folder(["who wrote Mao?"], tmp_path / "a") != one
