"""What was measured, with what, when: the settings of an audit as rows of a table."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from memorization.report.html.hidden import Texts
from memorization.report.html.shown import HIDDEN
from memorization.results import counted, describe_first_token

if TYPE_CHECKING:
    from memorization.auditing import Audit

__all__ = ["settings_of"]

_NOT_KNOWN = "not recorded"


def settings_of(audit: "Audit", texts: Texts) -> list[tuple[str, str]]:
    """Name and value of each setting, in the order of the questions that they answer."""
    memorization, settings = audit.memorization, audit.settings
    control = memorization.control
    rows = [
        ("date", str(settings.get("date") or _NOT_KNOWN)),
        ("command", texts.command(str(settings.get("command") or _NOT_KNOWN))),
    ]
    weights = settings.get("weights") or {}
    for role in ("target", "oracle"):
        rows += _of_model(role, getattr(memorization, role).settings, weights.get(role))
    for k, sets in enumerate(memorization.other_oracles):
        rows += _of_model(f"further oracle {k + 1}", sets[0].settings, None)
    rows += _of_set("records", memorization.target.settings["samples"])
    if control is not None:
        rows += _of_set("control", control.target.settings["samples"])
    target = memorization.target.settings
    rows += [
        ("in front of a record", describe_first_token(target["first_token"], target["samples"])),
        ("window, tokens", f"{_told(target['max_length'])}, stride {_told(target['stride'])}"),
        ("joint code", str(memorization.settings["joint"])),
        ("baseline of mem", str(memorization.settings["baseline"])),
    ]
    rows += [(name, _told(settings[name])) for name in ("level", "seed") if name in settings]
    if audit.spans is not None:
        rows.append(("spans", HIDDEN if texts.hide else _told(audit.spans.settings["spans"])))
    return rows + [(f"version of {name}", str(one)) for name, one in settings.get("versions", {}).items()]


def _of_model(role: str, record: Mapping[str, Any], weights: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    model, tokenizer = record["model"], record["tokenizer"]
    yield role, str(model["name"])
    for key, name in (
        ("class", "class"),
        ("revision", "revision"),
        ("n_params", "parameters"),
        ("dtype", "precision"),
        ("device", "device"),
        ("fingerprint", "fingerprint"),
    ):
        if model.get(key) is not None:
            yield f"{role}, {name}", _told(model[key])
    for name, digest in (weights or {}).items():
        yield f"{role}, sha256 of {name}", digest
    if tokenizer is not None:
        size = tokenizer.get("vocab_size")
        of_size = "" if size is None else f", {counted(size, 'token')}"
        yield f"{role}, tokenizer", f"{tokenizer.get('name') or tokenizer.get('class')}{of_size}"
        yield f"{role}, sha256 of the vocabulary", _told(tokenizer.get("vocab_sha256"))


def _of_set(name: str, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield name, f"{record['n_samples']:,} from {record['source']}"
    for key, words in (("texts_sha256", "sha256 of the texts"), ("ids_sha256", "sha256 of the token ids")):
        if record.get(key) is not None:
            yield f"{name}, {words}", str(record[key])
    for key, words in (("blank_skipped", "blank rows"), ("lossy_skipped", "left out, not given back by the tokenizer")):
        if record.get(key):
            yield f"{name}, {words}", f"{len(record[key]):,}"


def _told(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_told(one)}" for key, one in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
