"""Models with an encoder and a decoder, such as T5, BART and Marian: a sequence is split into a source and decoder inputs.

    sequence          a b c </s> | x y </s> · ·        | begins the targets, · padding
    encoder reads     a b c </s>
    decoder reads     <start> x y                      the targets, shifted by one
    states predict    x y </s>

Padding of the source is masked; that of the decoder follows its tokens, which never look ahead. Labels of transformers are not
used: only -100 is left out of their loss, and padding would count. The encoder and the decoder are called one after the other, as
transformers' own forward calls them, without the head, which would build (S, T, V). `check_logits` compares both.

transformers 5.5 sets `tie_word_embeddings` of T5 and mT5 to true, and a config of BART that says false gives the encoder and the
decoder tables of their own. So configs say true here (`keep_tables`), whatever the head is: when transformers loads a folder, a
head that differs from the table stays untied. A model that is made from a config has a tied head until `untie`.

Shapes: S sequences of T tokens, P targets, V vocabulary, D hidden size.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_utils import load_state_dict

from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS, Outputs
from mangakd.core.spec import STACKS, ModelSpec, stack_entries, stacks
from mangakd.core.token_logits import FromStates, LmHead
from mangakd.models import hidden, language
from mangakd.models.folder import read_object, write_json
from mangakd.models.language import Same, logits_near, output_embeddings
from mangakd.models.outline import weight_files

CURE = "Give a model such as a T5, mT5, BART or Marian folder, saved from AutoModelForSeq2SeqLM."


class Split(NamedTuple):
    """ids, mask: of the source (S, Ts). decoder: its inputs (S, Td), a start token and all targets but the last.

    source, targets: where the tokens of both are in the sequence (S, T). there: where they are in `decoder`, (S, Td).
    """

    ids: Tensor
    mask: Tensor
    decoder: Tensor
    source: Tensor
    targets: Tensor
    there: Tensor

    def at_source(self, states: Tensor) -> Tensor:
        """States of the source (S, Ts, D) at its places in the sequence (S, T, D)."""
        return _spread(states, self.mask.bool(), self.source)

    def at_targets(self, states: Tensor) -> Tensor:
        """States of the decoder (S, Td, D) at the places of the targets that they predict, (S, T, D)."""
        return _spread(states, self.there, self.targets)


def split(inputs: Mapping[str, Tensor], start: int, pad: int) -> Split:
    """inputs: input_ids and attention_mask (S, T), padded on either side, and TARGETS (S, T) bool. start, pad: ids."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    targets = inputs[TARGETS].bool() & mask
    source = mask & ~targets
    read, there = _left(ids, source, pad)
    learnt, learnt_there = _left(ids, targets, pad)
    decoder = torch.cat([torch.full_like(learnt[:, :1], start), learnt[:, :-1]], 1)
    return Split(read, there.long(), decoder, source, targets, learnt_there)


def _left(ids: Tensor, chosen: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """The chosen tokens of each row from its left on, and where they are; at least one column."""
    counts = chosen.sum(1)
    places = torch.arange(max(int(counts.max()), 1), device=ids.device)
    there = places < counts[:, None]
    out = torch.full(there.shape, pad, dtype=ids.dtype, device=ids.device)
    out[there] = ids[chosen]
    return out, there


def _spread(states: Tensor, there: Tensor, places: Tensor) -> Tensor:
    return states.new_zeros(*places.shape, states.shape[-1]).masked_scatter(places[..., None], states[there])


def last_half(mask: Tensor) -> Tensor:
    """Targets (S, T) of models that are tried on texts: the second half of each. mask: (S, T), 0 for padding."""
    present = mask.bool()
    place = present.cumsum(1)
    return present & (place > (present.sum(1, keepdim=True) + 1) // 2)


def writes(model: Any) -> bool:
    """Whether a model of transformers has an encoder, a decoder and the head of a vocabulary."""
    return bool(model.config.is_encoder_decoder) and output_embeddings(model) is not None


def bodies(model: Any) -> tuple[Any, Any]:
    """Encoder and decoder of a model."""
    return model.get_encoder(), model.get_decoder()


def layers(model: Any) -> tuple[nn.ModuleList, nn.ModuleList]:
    """The layers of encoder and of decoder."""
    lists = [
        [each for each in body.children() if isinstance(each, nn.ModuleList) and len(each) == depth]
        for body, depth in zip(bodies(model), stacks(model.config), strict=True)
    ]
    return lists[0][0], lists[1][0]


def lm_head(model: Any) -> LmHead:
    """The head of the decoder with its own weights, so that gradients reach them; `final_logits_bias` is no parameter."""
    layer, config, scale = model.get_output_embeddings(), model.config, 1.0
    # T5's entry follows from what its config.json says of tied tables; uMT5 has tied tables alone.
    if getattr(config, "scale_decoder_outputs", config.model_type == "umt5"):
        scale = config.d_model**-0.5
    bias = getattr(layer, "bias", None)
    own = None if bias is None else Same.apply(bias)
    final = getattr(model, "final_logits_bias", None)
    if final is not None:
        own = final[0] if own is None else own + final[0]
    return LmHead(Same.apply(layer.weight), own, scale)


def check_config(config: Any, source: str) -> None:
    """Raises UserError for a config that is none of an encoder–decoder of text. source: `key=path`."""
    kind = config.model_type
    try:
        stack_entries(config)
    except KeyError as error:
        names = " or ".join(" and ".join(each) for each in STACKS)
        raise UserError(
            f"{source} is a {kind}, whose config.json does not say the layers of its encoder and its decoder ({names}). {CURE}"
        ) from error
    if type(config) not in AutoModelForSeq2SeqLM._model_mapping or config.get_text_config() is not config:
        raise UserError(f"{source} is a {kind}, for which transformers has no encoder–decoder of text. {CURE}")
    if not getattr(config, "share_encoder_decoder_embeddings", True):
        raise UserError(
            f"{source} is a {kind} with one vocabulary for the source and another one for the target, and a sequence has one. "
            "Give a model with share_encoder_decoder_embeddings=true."
        )


def check_start(config: Any, source: str) -> None:
    """Raises UserError for a config that does not say with which token of its vocabulary the decoder begins."""
    start = getattr(config, "decoder_start_token_id", None)
    if not isinstance(start, int) or not 0 <= start < config.vocab_size:
        what = "no decoder_start_token_id" if start is None else f"decoder_start_token_id={start}"
        raise UserError(
            f"the config of {source} has {what}, so nobody knows with which token its decoder begins. Write it there: the id of "
            f"the padding token for T5 and Marian (here {config.pad_token_id}), that of </s> for BART."
        )


def check_head(model: Any, info: dict[str, Any], source: str) -> None:
    """Raises UserError where the files lack the head, and where the config lacks the start token. info: as of transformers."""
    check_start(model.config, source)
    language.check_head(model, info, source)


def keep_tables(config: Any) -> Any:
    """The config, in place: with tied tables, as the head of this file says."""
    config.tie_word_embeddings = True
    return config


def name_tokens(config: Any, sizes: Mapping[str, Any], tokenizer: Any) -> None:
    """Complete the config of a new model, in place. sizes: the entries that a user set."""
    keep_tables(config)
    if sizes.get("decoder_start_token_id") is None:
        config.decoder_start_token_id = tokenizer.pad_token_id  # as T5 and Marian begin
    check_start(config, "student.sizes")
    if "forced_eos_token_id" not in sizes and hasattr(config, "forced_eos_token_id"):
        config.forced_eos_token_id = tokenizer.eos_token_id  # BART's default is the id in its own vocabulary
    if hasattr(config, "decoder_vocab_size"):  # Marian's
        config.decoder_vocab_size = config.vocab_size


def save_config(model: Any, folder: Path) -> None:
    """Correct the config.json of a saved model whose head is not tied, for versions of transformers that believe it.

    Only T5 and its kin: in that of BART, false would also part the tables of encoder and decoder.
    """
    if model.config.is_encoder_decoder and "t5" in model.config.model_type and not is_tied(model):
        write_json(folder / "config.json", read_object(folder, "config.json") | {"tie_word_embeddings": False})


def is_tied(model: Any) -> bool:
    """Whether the head of a model is its table of embeddings."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def untie(model: Any) -> Any:
    """The model, in place, with weights of its own in the head: random ones, whose logits begin near 1."""
    head = model.get_output_embeddings()
    if is_tied(model):
        head.weight = nn.Parameter(torch.empty_like(head.weight).normal_(std=model.config.d_model**-0.5))
    name = next(name for name, module in model.named_modules() if module is head)
    model.all_tied_weights_keys.pop(f"{name}.weight", None)  # what transformers ties again when it is asked to
    return model


def stores_head(config: Any) -> bool:
    """Whether the folder of a config holds a head beside the table; of a hub id, whether T5's config.json says so."""
    folder = Path(config.name_or_path)
    if not config.name_or_path or not folder.is_dir():
        return getattr(config, "scale_decoder_outputs", None) is False
    try:
        files = weight_files(str(folder))
    except FileNotFoundError:
        return False
    names = {name for file in files for name in load_state_dict(file, map_location="meta")}
    return any(name.endswith("lm_head.weight") for name in names) and any("shared." in name for name in names)


@torch.no_grad()
def check_logits(model: Any, source: str) -> None:
    """Compare the head's logits with the model's own on two rows of two targets, which differ in their last decoder input.

    Raises UserError where they differ, where a token's logits depend on a later token, and where the model fails.
    """
    size, device = model.config.vocab_size, next(model.parameters()).device
    ids = torch.tensor([[size // 2, size // 3, size // 5]] * 2, device=device)
    read = torch.tensor([[size // 2, size // 3], [size // 2, size // 4]], device=device)
    mask, was_training, head = torch.ones_like(ids), model.training, lm_head(model.eval())
    encode, decode = bodies(model)
    try:
        expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=read).logits.float()
        states = run(encode, decode, ids, mask, read)
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{source} is a {model.config.model_type} that cannot read three tokens: {reason}.") from error
    finally:
        model.train(was_training)
    if not expected.isfinite().all():
        return  # models/trial.py says which weight is no number
    near = logits_near(head, expected)
    if float((expected[0, 0] - expected[1, 0]).abs().max()) > near:
        raise UserError(
            f"{source} is a {model.config.model_type} whose decoder looks at the tokens that follow, so it cannot write. {CURE}"
        )
    logits = head.logits(states.flatten(0, 1)).float()
    if (apart := float((expected.flatten(0, 1) - logits).abs().max())) > near:
        raise UserError(
            f"{source} is a {model.config.model_type} whose logits cannot be computed from the states of its decoder and its "
            f"head's weights: they differ by {apart:.3g} from the model's own. {CURE}"
        )


def answer(model: Any, spec: ModelSpec, inputs: Mapping[str, Tensor], recorded: Mapping[int, Tensor]) -> Outputs:
    """States of the decoder at the targets, and those of layers at their own tokens. recorded: what `tap` fills meanwhile."""
    config = model.config
    parts = split(inputs, config.decoder_start_token_id, config.pad_token_id or 0)
    states = run(*bodies(model), parts.ids, parts.mask, parts.decoder)
    layers = {
        i: (parts.at_targets if i > spec.encoder_layers else parts.at_source)(each) for i, each in recorded.items()
    }
    tokens = FromStates(states[parts.there], lm_head(model))
    return Outputs(
        None, inputs["attention_mask"], layers, tokens=tokens, targets=parts.targets, encoder_layers=spec.encoder_layers
    )


def tap(model: Any, numbers: Collection[int], sink: dict[int, Tensor]) -> list[Any]:
    """Hooks as models/hidden sets them: layers of the encoder, then those of the decoder."""
    (encode, decode), (first, second) = bodies(model), layers(model)
    of_encoder = {i for i in numbers if i <= len(first)}
    hooks = hidden.tap(first, encode, of_encoder, sink)
    return hooks + hidden.tap(second, decode, {*numbers} - of_encoder, sink, len(first))


def run(encode: Any, decode: Any, ids: Tensor, mask: Tensor, decoder: Tensor) -> Tensor:
    """The decoder's states (S, Td, D)."""
    read = encode(input_ids=ids, attention_mask=mask).last_hidden_state
    states: Tensor = decode(
        input_ids=decoder, encoder_hidden_states=read, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    return states
