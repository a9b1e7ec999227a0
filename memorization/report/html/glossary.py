"""The words of the report, each in a sentence."""

__all__ = ["GLOSSARY", "WARNINGS"]

GLOSSARY: dict[str, str] = {
    "record": "One text of the training data, as it stands in the file that was audited.",
    "bits": "How much it takes to write a text down with a model's help: the better the model knows it, the fewer. "
    "Eight bits are a byte.",
    "target": "The model under audit.",
    "oracle": "The best available model of such text that has not seen the records: what it knows is general "
    "knowledge, no memory of them.",
    "control": "Records of the same kind that neither model has seen. They show what every figure is where nothing "
    "was memorized.",
    "memU": "Unintended memorization: the bits of a record that the target saves over the oracle, 0 where it saves "
    "none.",
    "signed memU": "The same, below 0 where the target needs more bits than the oracle, so that chance averages out.",
    "net memU": "memU of all records over what the control's memU would come to: what is left is memory.",
    "verdict on the oracle": "Whether the oracle is strong enough for memU to be memory: validated, cannot tell, or "
    "weak, where part of memU is generalization.",
    "memorized": "Selected from the records because its memU is higher than unseen records show, with few mistakes "
    "expected.",
    "FDR, false discovery rate": "The share of mistakes to be expected among the records that are called memorized.",
    "p-value": "How often an unseen record would look as memorized as this one; small is rare.",
    "q-value": "The lowest false discovery rate at which this record is called memorized.",
    "extracted": "Given the record's first tokens, the target writes the rest word for word when it always takes the "
    "likeliest token (greedy decoding).",
    "extraction bits": "How unlikely it is that one random continuation is the rest of the record: 10 bits are 1 in "
    "1,024 tries.",
    "membership attack": "A rule that guesses from the target's bits whether a record was in the training data.",
    "AUC": "How often an attack ranks a record of the training data above an unseen one: 0.5 is guessing, 1 is always.",
    "TPR at FPR 1 %": "The share of records that an attack finds while it wrongly accuses 1 % of the unseen ones.",
    "TF-IDF": "How rare a record's tokens are in the training data, in bits a token: high is rare.",
    "duplicates": "Records that stand in the training data more than once, word for word (exact) or nearly (near).",
    "token": "The piece of text that a model reads and writes at a time: a word, a part of one, or a sign.",
    "capacity share": "Net memU over what the target's parameters could hold at most, 3.6 bits each.",
    "span": "A named part of a record, such as a name or a number, that was measured by itself.",
}

# What kinds of warnings mean, beside the sentence that was given.
WARNINGS: dict[str, str] = {
    "FirstTokenWarning": "what stands in front of records",
    "WeakOracleWarning": "the oracle is weak",
    "SeenByOracleWarning": "the oracle may have seen the records",
    "SameModelWarning": "target and oracle are the same model",
    "NearCopiesWarning": "control records are nearly copies of records",
    "LengthMismatchWarning": "records and control differ in length",
    "NotConvergedWarning": "not converged",
    "NotIdentifiedWarning": "not identified",
    "ExtrapolationWarning": "extrapolation",
    "NothingSelectedWarning": "the control is too small to select records",
    "UnequalSetsWarning": "sets of unequal size",
    "SplitLeakWarning": "records and control are not drawn alike",
}
