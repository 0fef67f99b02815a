"""The text prompts that describe a normal and an anomalous object.

Every object name gives the same 16 prompts: each phrase of a state is put into each template. The tables are part of
the recipe, trained weights depend on them word by word.
"""

NORMAL_STATE = 0
ANOMALOUS_STATE = 1

# Phrases of each state, normal (0) first.
STATES = {
    NORMAL_STATE: ("{}", "a {}", "the {}"),
    ANOMALOUS_STATE: (
        "a damaged {}",
        "a broken {}",
        "a {} with flaw",
        "a {} with defect",
        "a {} with damage",
    ),
}

TEMPLATES = ("{}.", "a photo of {}.")

# What an object without a name is called.
GENERIC_OBJECT_NAME = "object"


def build_prompts(object_name: str) -> tuple[list[str], list[int]]:
    """Writes the prompts of one object: 6 normal ones, then 10 anomalous ones.

    Args:
        object_name (`str`):
            The object's name as it should stand in a sentence, such as `"metal nut"`. Blanks around it are dropped.

    Returns:
        `tuple(list[str], list[int])`: the 16 prompts, state by state and phrase by phrase with the templates
        innermost, and the state of each: 0 normal, 1 anomalous.

    Raises:
        ValueError: If `object_name` is not a string or has no visible character.
    """
    if not isinstance(object_name, str):
        raise ValueError(f"`object_names` must be strings, got {object_name!r} ({type(object_name).__name__}).")
    name = object_name.strip()
    if not name:
        raise ValueError(
            f"`object_names` holds an empty name ({object_name!r}): name the object, or write {GENERIC_OBJECT_NAME!r}."
        )
    prompts, states = [], []
    for state, phrases in STATES.items():
        for phrase in phrases:
            for template in TEMPLATES:
                prompts.append(template.format(phrase.format(name)))
                states.append(state)
    return prompts, states


__all__ = ["ANOMALOUS_STATE", "GENERIC_OBJECT_NAME", "NORMAL_STATE", "STATES", "TEMPLATES", "build_prompts"]
