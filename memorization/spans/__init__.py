"""memU of named parts of texts: a field, a secret, a template, each with its control."""

from memorization.spans.fields import Field
from memorization.spans.measure import measure_spans, spans_of
from memorization.spans.result import SpanMemorization, Spans

__all__ = ["Field", "SpanMemorization", "Spans", "measure_spans", "spans_of"]
