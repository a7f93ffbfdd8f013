"""Layer maps: which student layer learns from which teacher layer, for any two depths.

Index 0 is the embedding output, 1…L are the layers. Depths need not divide each other (6 → 4 works). An explicit map is
checked against both depths: a published map of 0,1,2,3 → 0,2,4,6 with one added to each index reads layer 7 of 6.
"""

from collections.abc import Iterable, Mapping

from mangakd.core.errors import UserError, near
from mangakd.core.spec import ModelSpec

LayerMap = str | Mapping[int, int] | Iterable[Iterable[int]]
Pairs = tuple[tuple[int, int], ...]


def _uniform(student: int, teacher: int) -> Pairs:
    # Integer arithmetic rounds halves up. Python's round() rounds halves to even numbers and would skip layers unevenly.
    return tuple((m, (2 * m * teacher + student) // (2 * student)) for m in range(student + 1))


def _last(student: int, teacher: int) -> Pairs:
    return tuple((m, teacher - student + m) for m in range(1, student + 1))


NAMED = {
    "uniform": _uniform,
    "skip_embedding": lambda s, t: tuple(pair for pair in _uniform(s, t) if min(pair) >= 1),
    "last": _last,
    "top": lambda s, t: ((s, t),),
}


def resolve(layer_map: LayerMap, student: int, teacher: int, *, lowest: int = 0, key: str = "layer_map") -> Pairs:
    """Pairs (student layer, teacher layer) for depths `student` and `teacher`.

    layer_map: `uniform` (0→0, m→m·L_t/L_s rounded half up), `skip_embedding` (uniform from 1), `last` (the teacher's
    last L_s layers), `top` (last to last), or explicit: {student: teacher} or [[student, teacher], …].
    lowest: 1 for attention, because the embedding output has no attention; named maps then drop layer 0.
    Raises UserError naming `key` and printing both depths.
    """
    depths = f"the student has layers {lowest}…{student} and the teacher {lowest}…{teacher} (0 is the embedding output)"
    if isinstance(layer_map, str):
        if layer_map not in NAMED:
            names = ", ".join(NAMED)
            hint = near(layer_map, NAMED)
            raise UserError(f"{key}={layer_map!r} is no layer map{hint} Known: {names}, or pairs [[1,2],[2,4]].")
        if layer_map == "last" and teacher < student:
            raise UserError(f"{key}=last needs a teacher at least as deep as the student; {depths}.")
        # Check both layers of a pair: a student over twice as deep as its teacher has the pair (1, 0), and 0 has no attention.
        return tuple(pair for pair in NAMED[layer_map](student, teacher) if min(pair) >= lowest)
    return _explicit(layer_map, student, teacher, lowest, key, depths)


def between(layer_map: LayerMap, student: ModelSpec, teacher: ModelSpec, *, key: str = "layer_map") -> Pairs:
    """Pairs of layers of two models, layer 0 included.

    Layers of an encoder learn from an encoder's, those of a decoder from a decoder's: a named map holds for each stack, where the
    embedding output is the encoder's. Raises UserError for pairs of different stacks, and as `resolve`.
    """
    own, taught = student.encoder_layers, teacher.encoder_layers
    if bool(own) != bool(taught):
        one, two = (student, teacher) if own else (teacher, student)
        raise UserError(
            f"{key} compares layers, and {one.name} has an encoder and a decoder, {two.name} one stack of layers. Leave this "
            "loss out, or give both models of one kind."
        )
    if not own:
        return resolve(layer_map, student.layers, teacher.layers, key=key)
    if isinstance(layer_map, str):
        first = resolve(layer_map, own, taught, key=key)
        second = resolve(layer_map, student.layers - own, teacher.layers - taught, lowest=1, key=key)
        return (*first, *((s + own, t + taught) for s, t in second))
    pairs = resolve(layer_map, student.layers, teacher.layers, key=key)
    if mixed := [pair for pair in pairs if (pair[0] > own) != (pair[1] > taught)]:
        raise UserError(
            f"{key} joins layers of an encoder with layers of a decoder: {mixed}. The encoder has 0…{own} of the student's "
            f"layers and 0…{taught} of the teacher's; those from {own + 1} and {taught + 1} on are the decoder's."
        )
    return pairs


def _explicit(layer_map: LayerMap, student: int, teacher: int, lowest: int, key: str, depths: str) -> Pairs:
    items = layer_map.items() if isinstance(layer_map, Mapping) else layer_map
    pairs = []
    for item in items:
        pair = tuple(item) if isinstance(item, Iterable) else (item,)
        if len(pair) != 2 or not all(isinstance(layer, int) for layer in pair):
            raise UserError(f"{key} must be pairs [student layer, teacher layer]; found {item!r}.")
        pairs.append((int(pair[0]), int(pair[1])))
    if not pairs:
        raise UserError(f"{key} is empty; {depths}. Give pairs such as [[1,2]] or one of {', '.join(NAMED)}.")
    wrong = [pair for pair in pairs if not (lowest <= pair[0] <= student and lowest <= pair[1] <= teacher)]
    if wrong:
        raise UserError(f"{key} names layers that do not exist: {wrong}; {depths}.")
    if len(set(pairs)) < len(pairs):
        raise UserError(f"{key} names a pair twice: {pairs}; give each pair once (the loss's weight scales it).")
    return tuple(pairs)
