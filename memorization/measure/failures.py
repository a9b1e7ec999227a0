"""Why a model or a tokenizer could not be loaded, in words that say what to do."""

from pathlib import Path


def load_failure(name: str, reason: str) -> str:
    """What to say where the parts of `name` could not be loaded for this reason."""
    line = first_line(reason)
    if "trust_remote_code" in reason:
        return f"{name} brings its own Python code, which is not run unless you pass trust_remote_code=True after reading it"
    if "safetensors" in reason:
        return (
            f"{name} has no safetensors weights. Pickled weights can run code when they are loaded, so they are refused; if you trust "
            f"their source pass allow_pickle=True. ({line})"
        )
    if not Path(name).exists():
        return (
            f"{name!r} is neither a folder here nor a model that the hub delivered: check the spelling and the network, or download it "
            f"elsewhere and pass the folder. ({line})"
        )
    return f"{name} could not be loaded: {line}"


def first_line(error: object) -> str:
    """The first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
