"""Makes the fixtures of this folder: a tiny random cross-encoder of each family, saved by sentence-transformers, with the
logits that transformers gives for pairs of texts and the scores that sentence-transformers' CrossEncoder predicts.

    pip install torch==2.9.0 transformers==4.55.4 sentence-transformers==5.3.0 sentencepiece==0.2.1 pylate==1.6.0
    python make_cross_encoders.py          writes beside itself

Everything is seeded, and attention is the eager one, in float32 on the CPU. The tokenizers are those of ../families.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "families"))

import torch
import transformers as t
from sentence_transformers import CrossEncoder

from make_families import byte_pairs, modern_byte_pairs, randomise, sentence_pieces, word_pieces

QUERIES = ["What is a tor?", "where does the water go", "Où pousse la bruyère ?", "Ein Moor"]
DOCUMENTS = [
    "A tor is a rocky hill, and a fen is wet land.",
    "Weirs (low dams) hold becks and streams; see p. 12-14 of the guide!",
    "It's nowhere near the sea; the beck's end is at the weir's foot. " * 4,
    "東京は日本の首都です。",
    "",
]
SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=1)


def models():
    pieces, pairs, modern, sentences = word_pieces(), byte_pairs(), modern_byte_pairs(), sentence_pieces()
    size = lambda tokenizer: tokenizer[0].get_vocab_size(with_added_tokens=True)
    modern_ids = dict(
        pad_token_id=modern[0].token_to_id("[PAD]"), cls_token_id=modern[0].token_to_id("[CLS]"),
        sep_token_id=modern[0].token_to_id("[SEP]"), bos_token_id=None, eos_token_id=None)
    bert = t.BertConfig(vocab_size=size(pieces), max_position_embeddings=48, **SMALL)
    yield "bert", pieces, t.BertForSequenceClassification(bert), "Identity"
    yield "distilbert", pieces, t.DistilBertForSequenceClassification(t.DistilBertConfig(
        vocab_size=size(pieces), dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=48, num_labels=1)), None
    yield "electra", pieces, t.ElectraForSequenceClassification(t.ElectraConfig(
        vocab_size=size(pieces), embedding_size=12, max_position_embeddings=48, **SMALL)), None
    yield "roberta", pairs, t.RobertaForSequenceClassification(t.RobertaConfig(
        vocab_size=size(pairs), max_position_embeddings=50, type_vocab_size=1, layer_norm_eps=1e-5, **SMALL)), None
    yield "xlm-roberta", sentences, t.XLMRobertaForSequenceClassification(t.XLMRobertaConfig(
        vocab_size=size(sentences), max_position_embeddings=50, type_vocab_size=1, layer_norm_eps=1e-5, **SMALL)), "Identity"
    for pooling in ["cls", "mean"]:
        yield f"modernbert-{pooling}", modern, t.ModernBertForSequenceClassification(t.ModernBertConfig(
            vocab_size=size(modern), max_position_embeddings=48, local_attention=12, global_attn_every_n_layers=2,
            classifier_pooling=pooling, attn_implementation="eager", **modern_ids, **SMALL)), None


def typed(tokenizer):
    """BERT's own post-processor, which gives the second text the type 1."""
    from tokenizers import Tokenizer, processors

    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.post_processor = processors.BertProcessing(
        ("[SEP]", copy.token_to_id("[SEP]")), ("[CLS]", copy.token_to_id("[CLS]")))
    return copy


def main():
    for seed, (name, (tokenizer, special), model, activation) in enumerate(models()):
        torch.manual_seed(seed)
        model.config._attn_implementation = "eager"
        model = randomise(model)
        if name in ("bert", "electra"):
            tokenizer = typed(tokenizer)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        names = ["input_ids", "attention_mask"] + (["token_type_ids"] if name in ("bert", "electra") else [])
        with tempfile.TemporaryDirectory() as plain:
            model.save_pretrained(plain)
            t.PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, model_max_length=40, model_input_names=names, **special).save_pretrained(plain)
            kind = {"activation_fn": torch.nn.Identity()} if activation else {}
            CrossEncoder(plain, device="cpu", **kind).save_pretrained(str(folder))
        for file in folder.iterdir():
            if file.name == "README.md":
                file.unlink()
        encoder = CrossEncoder(str(folder), device="cpu")
        pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
        loaded = t.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
        fast = t.AutoTokenizer.from_pretrained(folder)
        logits, ids, types = [], [], []
        for query, document in pairs:
            # As lists: alone, transformers takes an empty second text for none.
            tokens = fast([query], [document], truncation=True, max_length=40, return_tensors="pt")
            ids.append(tokens["input_ids"][0].tolist())
            types.append(tokens.get("token_type_ids", torch.zeros_like(tokens["input_ids"]))[0].tolist())
            with torch.no_grad():
                logits.append(loaded(**tokens).logits[0].tolist()[0])
        expected = {
            "pairs": pairs, "ids": ids, "types": types, "logits": logits,
            "predicted": encoder.predict(pairs).tolist(), "activation": type(encoder.activation_fn).__name__,
        }
        (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")
        print(name, min(logits), max(logits), expected["activation"], expected["predicted"][:3])


if __name__ == "__main__":
    main()
