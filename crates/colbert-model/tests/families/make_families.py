"""Makes the fixtures of this folder: one tiny random model for each encoder family, with the tokens and hidden states that
transformers gives, a directory that PyLate saved, and files of torch.save.

    pip install torch==2.9.0 transformers==4.55.4 sentence-transformers==5.3.0 pylate==1.6.0 sentencepiece==0.2.1
    python make_families.py          writes beside itself

Everything is seeded, and attention is the eager one, in float32 on the CPU.
"""

import json
import os
import pickle
import shutil
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
warnings.filterwarnings("ignore")

import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import SpmConverter, XLMRobertaConverter

HERE = Path(__file__).parent
torch.set_num_threads(1)

WORDS = """A tor is a rocky hill, and a fen is wet land. What was made in Garth? In the old days the people of the town made
glass, rope, salt and bells, and sold them far away. Weirs (low dams) hold becks and streams; see p. 12-14 of the guide!
The moor is open land where heather grows. "Wet land", they said: it costs £3.50 (100% more than before) ... Where does the
water go? It's nowhere near the sea; the beck's end is at the weir's foot. Ein Moor ist naß und öde. Où pousse la bruyère?
東京は日本の首都です。Москва стоит на реке. e-mail: someone@example.org, C++/Rust #42 & more -- much more..."""

TEXTS = [
    "A tor is a rocky hill.",
    "what was made in Garth?",
    "Weirs (low dams), becks & fens: see p. 12-14; \"wet land\" -- £3.50, 100% off!",
    "Ein Moor ist naß. 東京は日本の首都です。 Москва",
    "Où la bruyère pousse-t-elle ?!... ###",
    "  two  spaces,\ttabs\nand lines\r\n",
    "naïve ﬁne ① Å ﻿zero​width \u00a0 nbsp e\u0301",
    "🧿 emoji 👩‍👩‍👧 and [MASK] <mask> <s> [SEP] typed out",
    "",
    "a word of exactly-this-kind, over and over: " * 6,
]
QUERY_LENGTH, DOC_LENGTH = 16, 40


def lines():
    return [line for line in WORDS.splitlines() for _ in range(3)]


def template(tokenizer, cls, sep):
    ids = [(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B {sep}", special_tokens=ids
    )


def word_pieces():
    """As BERT's, with the two unused tokens that it has."""
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=320, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    # BERT's vocabulary has every ASCII symbol, whether it was in the training text or not.
    missing = [c for c in map(chr, range(33, 127)) if not c.isalnum() and tokenizer.token_to_id(c) is None]
    vocabulary = tokenizer.get_vocab()
    for symbol in missing:
        vocabulary[symbol] = len(vocabulary)
    rebuilt = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    rebuilt.normalizer, rebuilt.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    rebuilt.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    rebuilt.decoder = decoders.WordPiece()
    template(rebuilt, "[CLS]", "[SEP]")
    return rebuilt, dict(pad_token="[PAD]", mask_token="[MASK]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")


def byte_pairs():
    """As RoBERTa's: no unused tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return tokenizer, dict(
        pad_token="<pad>", mask_token="<mask>", cls_token="<s>", sep_token="</s>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def modern_byte_pairs():
    """As ModernBERT's: NFC, byte pairs, BERT's names and unused tokens, at the end of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=470, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    from tokenizers import AddedToken

    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("[unused0]", normalized=True), AddedToken("[unused1]", normalized=True)])
    tokenizer.decoder = decoders.ByteLevel()
    template(tokenizer, "[CLS]", "[SEP]")
    return tokenizer, dict(pad_token="[PAD]", mask_token="[MASK]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")


def sentence_pieces():
    """As XLM-RoBERTa's: trained by sentencepiece with its normalisation, converted as transformers converts it."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        text.write_text("\n".join(lines()), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=f"{folder}/sp", vocab_size=300, character_coverage=0.995,
            normalization_rule_name="nmt_nfkc", minloglevel=2, num_threads=1, hard_vocab_limit=False,
        )
        slow = transformers.XLMRobertaTokenizer(f"{folder}/sp.model")
        converted = XLMRobertaConverter(slow).converted()
    assert issubclass(XLMRobertaConverter, SpmConverter)
    return converted, dict(
        pad_token="<pad>", mask_token="<mask>", cls_token="<s>", sep_token="</s>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)


def families():
    pieces, pairs, modern, sentences = word_pieces(), byte_pairs(), modern_byte_pairs(), sentence_pieces()
    size = lambda tokenizer: tokenizer[0].get_vocab_size(with_added_tokens=True)
    t = transformers
    yield "distilbert", pieces, t.DistilBertModel(t.DistilBertConfig(
        vocab_size=size(pieces), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64))
    yield "electra", pieces, t.ElectraModel(t.ElectraConfig(
        vocab_size=size(pieces), embedding_size=24, max_position_embeddings=64, **SMALL))
    yield "roberta", pairs, t.RobertaModel(t.RobertaConfig(
        vocab_size=size(pairs), max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5, **SMALL))
    yield "xlm-roberta", sentences, t.XLMRobertaModel(t.XLMRobertaConfig(
        vocab_size=size(sentences), max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5, **SMALL))
    yield "modernbert", modern, t.ModernBertModel(t.ModernBertConfig(
        vocab_size=size(modern), max_position_embeddings=64, local_attention=12, global_attn_every_n_layers=3,
        pad_token_id=modern[0].token_to_id("[PAD]"), cls_token_id=modern[0].token_to_id("[CLS]"),
        sep_token_id=modern[0].token_to_id("[SEP]"), bos_token_id=None, eos_token_id=None,
        attn_implementation="eager", **{**SMALL, "num_hidden_layers": 4}))


def randomise(model):
    """Norms and biases that are not ones and zeros, so that every one of them is noticed."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_norm else 0.1 * noise if parameter.dim() == 1 else 0.15 * noise)
    return model.eval()


def save(folder, tokenizer, special, model):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def hidden(model, ids, attended):
    mask = (torch.arange(len(ids)) < attended).long()[None]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0]


def main():
    torch.manual_seed(0)
    for name, (tokenizer, special), model in families():
        model.config._attn_implementation = "eager"
        model = randomise(model)
        folder = HERE / name
        fast = save(folder, tokenizer, special, model)
        sequences, tensors = [], {}
        for text in TEXTS:
            # Once with room for all, as documents; once short and filled up with masks that are not attended to, as queries.
            document = fast(text, truncation=True, max_length=DOC_LENGTH)["input_ids"]
            query = fast(text, truncation=True, max_length=QUERY_LENGTH - 1)["input_ids"]
            filled = query + [fast.mask_token_id] * (QUERY_LENGTH + 8 - len(query))
            for ids, attended in [(document, len(document)), (filled, len(query))]:
                tensors[f"hidden.{len(sequences)}"] = hidden(model, ids, attended).contiguous()
                sequences.append({"ids": ids, "attended": attended})
        symbols = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
        expected = {
            "texts": TEXTS,
            "queries": [fast(text, truncation=True, max_length=QUERY_LENGTH - 1)["input_ids"] for text in TEXTS],
            "documents": [fast(text, truncation=True, max_length=DOC_LENGTH - 1)["input_ids"] for text in TEXTS],
            "query_length": QUERY_LENGTH,
            "document_length": DOC_LENGTH,
            "sequences": sequences,
            "vocabulary": len(fast),
            # Ids of every symbol at the start of a text and behind a word.
            "symbols": {s: [fast(s, add_special_tokens=False)["input_ids"], fast("tor" + s, add_special_tokens=False)["input_ids"],
                            fast("tor " + s, add_special_tokens=False)["input_ids"]] for s in symbols},
        }
        (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file(tensors, folder / "expected.safetensors")
    pylate_directory()
    stacked_directory()
    torch_files()


def pylate_directory():
    """A tiny BERT that PyLate saved with markers, lengths and a skiplist of its own, and what PyLate makes of the texts."""
    from pylate import models as pylate

    tokenizer, special = word_pieces()
    config = transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64, **SMALL)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        save(plain, tokenizer, special, randomise(transformers.BertModel(config)))
        torch.manual_seed(3)
        model = pylate.ColBERT(
            str(plain), embedding_size=24, device="cpu", query_length=14, document_length=30,
            attend_to_expansion_tokens=True, skiplist_words=[".", ",", "the"],
        )
        save_pylate(model, HERE / "pylate")


def stacked_directory():
    """The same with a head of six Dense modules: every activation, biases, a residual with and without a matrix."""
    from pylate import models as pylate
    from sentence_transformers.models import Transformer
    from torch import nn

    tokenizer, special = word_pieces()
    config = transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64, **SMALL)
    dense = lambda inputs, outputs, activation, bias=False, residual=False: pylate.Dense(
        inputs, outputs, bias=bias, activation_function=activation, use_residual=residual)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        save(plain, tokenizer, special, randomise(transformers.BertModel(config)))
        torch.manual_seed(4)
        head = [
            dense(32, 48, nn.GELU(), bias=True, residual=True), dense(48, 48, nn.Tanh(), residual=True),
            dense(48, 40, nn.SiLU(), bias=True), dense(40, 40, nn.ReLU()), dense(40, 32, nn.Sigmoid(), bias=True),
            dense(32, 24, nn.Identity()),
        ]
        # Far from where a sigmoid is a line.
        with torch.no_grad():
            for layer in head[1:5]:
                layer.linear.weight.mul_(4)
        model = pylate.ColBERT(modules=[Transformer(str(plain)), *head], device="cpu", query_length=14, document_length=30,
                               query_prefix="[unused0]", document_prefix="[unused1]", attend_to_expansion_tokens=False)
        save_pylate(model, HERE / "stacked")


def save_pylate(model, target):
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(str(target))
    texts = [text for text in TEXTS if text.strip()]
    tensors = {}
    for side, is_query in [("query", True), ("document", False)]:
        for i, vectors in enumerate(model.encode(texts, is_query=is_query, show_progress_bar=False)):
            tensors[f"{side}.{i}"] = torch.tensor(vectors)
    save_file(tensors, target / "expected.safetensors")
    (target / "expected.json").write_text(json.dumps({"texts": texts}, ensure_ascii=False) + "\n", encoding="utf-8")
    (target / "README.md").unlink(missing_ok=True)


class Evil:
    def __reduce__(self):
        return (os.system, ("echo this must never be printed",))


def torch_files():
    folder = HERE / "torch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)
    table = torch.randn(3, 4, generator=generator)
    shared = torch.arange(12, dtype=torch.float32)
    state = {
        "whole.weight": table,
        "turned.weight": table.t(),
        "part.weight": shared[4:10].view(2, 3),
        "half.weight": table.half(),
        "bfloat.weight": table.bfloat16(),
        "double.bias": table[0].double(),
        "parameter.bias": torch.nn.Parameter(shared[:3]),
        "position_ids": torch.arange(5),
        "scalar": torch.tensor(2.5),
    }
    torch.save(state, folder / "state.bin")
    module = torch.nn.Linear(2, 2)
    save_file({name: tensor.detach().float().contiguous().clone() for name, tensor in state.items() if tensor.is_floating_point()},
              folder / "expected.safetensors")
    model = transformers.AutoModel.from_pretrained(HERE / "distilbert")
    torch.save(model.state_dict(), folder / "distilbert.bin")
    torch.save({"a.weight": table, "b": Evil()}, folder / "evil.bin")
    torch.save(module, folder / "module.bin")
    torch.save(state, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    (folder / "bare.bin").write_bytes(pickle.dumps({"a": Evil()}))


if __name__ == "__main__":
    main()
