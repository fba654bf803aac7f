"""Makes the fixtures of the families that need a newer transformers than make_families.py names: one tiny random model
for each, with the tokens and hidden states that transformers gives.

    pip install torch==2.9.0 transformers==5.24.0
    python make_newer_families.py [NAME ...]         writes beside itself

Everything is seeded, and attention is the eager one, in float32 on the CPU.
"""

import json
import sys
import types
from pathlib import Path

import torch
import transformers as t

# Of the older script only the texts and tokenizers are taken: its own imports are another transformers'.
for name in ["sentencepiece", "transformers.convert_slow_tokenizer"]:
    module = types.ModuleType(name)
    module.SpmConverter = module.XLMRobertaConverter = object
    sys.modules[name] = module

import make_families as older
from make_families import DOC_LENGTH, QUERY_LENGTH, SMALL, TEXTS, lines, modern_byte_pairs, template, word_pieces
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
SPECIAL = dict(pad_token="[PAD]", mask_token="[MASK]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")


def gemma_pairs():
    """As Gemma 2's, which mmBERT has: spaces as a sign, bytes for what is unknown, and names of its own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    # Gemma's vocabulary has every symbol as a token, and merges no words with symbols; only this trainer needs a split.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\u2581", "merged_with_next"), pre_tokenizers.Punctuation()])
    alphabet = [c for c in map(chr, range(33, 127)) if not c.isalnum()]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    special = names + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    # The trainer marks the bytes as added tokens; in Gemma's file only the named ones are.
    text = json.loads(tokenizer.to_str())
    text["added_tokens"] = [token for token in text["added_tokens"] if token["content"] in names]
    tokenizer = Tokenizer.from_str(json.dumps(text))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    template(tokenizer, "<bos>", "<eos>")
    return tokenizer, dict(
        pad_token="<pad>", mask_token="<mask>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        cls_token="<bos>", sep_token="<eos>",
    )


def byte_level(special, around):
    """Byte pairs with special tokens behind the vocabulary, as Llama's and Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=470, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    tokenizer.decoder = decoders.ByteLevel()
    before, behind = around
    pieces = ([before] if before else []) + ["$A"] + ([behind] if behind else [])
    ids = [(name, tokenizer.token_to_id(name)) for name in around if name]
    tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(pieces), special_tokens=ids)
    return tokenizer


def llama_pairs():
    """As EuroBERT's: Llama 3's, with a mask, and the end of a text as padding."""
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    return byte_level([begin, end, "<|mask|>"], (begin, end)), dict(
        bos_token=begin, eos_token=end, pad_token=end, mask_token="<|mask|>")


def qwen_pairs():
    """As Qwen3-Embedding's: no mask, nothing before a text."""
    end = "<|endoftext|>"
    return byte_level([end, "<|im_start|>", "<|im_end|>"], ("", end)), dict(eos_token="<|im_end|>", pad_token=end)


def mpnet_pieces():
    """As MPNet's: WordPiece with RoBERTa's names."""
    names = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Every ASCII symbol, whether it is in the training text or not.
    alphabet = [c for c in map(chr, range(33, 127)) if not c.isupper()]
    trainer = trainers.WordPieceTrainer(
        vocab_size=340, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True,
                                                            add_prefix_space=False)
    return tokenizer, dict(
        pad_token="<pad>", mask_token="<mask>", cls_token="<s>", sep_token="</s>", unk_token="[UNK]", bos_token="<s>",
        eos_token="</s>")


def deberta_pieces():
    """As DeBERTa-v3's: SentencePiece's unigrams, BERT's names at the beginning, and the mask behind the vocabulary."""
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    alphabet = [c for c in map(chr, range(33, 127)) if not c.isalnum()]
    trainer = trainers.UnigramTrainer(
        vocab_size=330, special_tokens=names, unk_token="[UNK]", initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.add_special_tokens([AddedToken("[MASK]", special=True)])
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    template(tokenizer, "[CLS]", "[SEP]")
    return tokenizer, dict(SPECIAL, bos_token="[CLS]", eos_token="[SEP]")


def families():
    size = lambda tokenizer: tokenizer[0].get_vocab_size(with_added_tokens=True)
    ids = lambda tokenizer: {f"{key}_id": tokenizer[0].token_to_id(tokenizer[1][key])
                             for key in ["pad_token", "bos_token", "eos_token"] if key in tokenizer[1]}
    pieces, gemma, llama, qwen, mpnet = word_pieces(), gemma_pairs(), llama_pairs(), qwen_pairs(), mpnet_pieces()
    deberta = deberta_pieces()
    yield "mmbert", gemma, t.ModernBertModel(t.ModernBertConfig(
        vocab_size=size(gemma), max_position_embeddings=64, local_attention=12, global_attn_every_n_layers=3,
        pad_token_id=0, bos_token_id=2, eos_token_id=1, cls_token_id=1, sep_token_id=1,
        rope_parameters={kind: {"rope_type": "default", "rope_theta": 160000.0}
                         for kind in ["full_attention", "sliding_attention"]},
        **{**SMALL, "num_hidden_layers": 4})), {}
    nomic = t.NomicBertModel(t.NomicBertConfig(vocab_size=size(pieces), max_position_embeddings=64, **SMALL))
    yield "nomic_bert", pieces, nomic, {}
    # The same with the names that transformers has in memory.
    yield "nomic_bert-5", pieces, nomic, {"save_original_format": False}
    yield "gte", pieces, t.GteModel(t.GteConfig(
        vocab_size=size(pieces), max_position_embeddings=64, pad_token_id=0, hidden_dropout_prob=0.0, **SMALL)), {}
    yield "eurobert", llama, t.EuroBertModel(t.EuroBertConfig(
        vocab_size=size(llama), max_position_embeddings=64, num_key_value_heads=2, mask_token_id=llama[0].token_to_id(
            "<|mask|>"), rope_parameters={"rope_type": "default", "rope_theta": 250000.0}, **ids(llama),
        **{**SMALL, "num_attention_heads": 4})), {}
    yield "qwen3", qwen, t.Qwen3Model(t.Qwen3Config(
        vocab_size=size(qwen), max_position_embeddings=64, num_key_value_heads=2, head_dim=16, **ids(qwen),
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        **{**SMALL, "num_attention_heads": 4})), {}
    both = t.Qwen3Config(
        vocab_size=size(qwen), max_position_embeddings=64, num_key_value_heads=2, head_dim=16, **ids(qwen),
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        **{**SMALL, "num_attention_heads": 4})
    both.is_causal = False
    yield "qwen3-both", qwen, t.Qwen3Model(both), {}
    yield "mpnet", mpnet, t.MPNetModel(t.MPNetConfig(
        vocab_size=size(mpnet), max_position_embeddings=66, layer_norm_eps=1e-5, **SMALL)), {}
    # As DeBERTa-v3's configuration, with so few buckets that most distances of these texts share one.
    yield "deberta-v2", deberta, t.DebertaV2Model(t.DebertaV2Config(
        vocab_size=size(deberta), max_position_embeddings=64, relative_attention=True, position_buckets=8,
        max_relative_positions=-1, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p",
        position_biased_input=False, type_vocab_size=0, layer_norm_eps=1e-7, pad_token_id=0, **SMALL)), {}


def gradients(model, sequences):
    """Of the sum of the cubes of all hidden states. (The sum of them alone is the same for all weights.)"""
    model.zero_grad()
    for sequence in sequences:
        ids = torch.tensor([sequence["ids"]])
        mask = torch.tensor([[int(place < sequence["attended"]) for place in range(ids.shape[1])]])
        model(input_ids=ids, attention_mask=mask).last_hidden_state.pow(3).sum().backward()
    return {f"gradient.{name}": tensor.grad.contiguous() for name, tensor in model.named_parameters()}


def places_of_distances():
    """The rows of DeBERTa-v3's table of places: 256 buckets, 512 positions, distances from -511 on."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    bucket = make_log_bucket_position(torch.arange(-511, 512), 256, 512).long()
    return torch.clamp(bucket + 256, 0, 511).tolist()


def main(names):
    torch.manual_seed(0)
    for name, (tokenizer, special), model, how in families():
        if names and name not in names:
            continue
        model.config._attn_implementation = "eager"
        model = older.randomise(model)
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        model.save_pretrained(folder, **how)
        t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
        fast = t.PreTrainedTokenizerFast.from_pretrained(folder)
        # Without a mask token a query is not filled up; here any token stands for what nobody looks at.
        filler = fast.mask_token_id if fast.mask_token_id is not None else fast.pad_token_id
        sequences, tensors = [], {}
        for text in TEXTS:
            document = fast(text, truncation=True, max_length=DOC_LENGTH)["input_ids"]
            query = fast(text, truncation=True, max_length=QUERY_LENGTH - 1)["input_ids"]
            filled = query + [filler] * (QUERY_LENGTH + 8 - len(query))
            for ids, attended in [(document, len(document)), (filled, len(query))]:
                tensors[f"hidden.{len(sequences)}"] = older.hidden(model, ids, attended).contiguous()
                sequences.append({"ids": ids, "attended": attended})
        symbols = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
        bare = lambda text: fast(text, add_special_tokens=False)["input_ids"]
        expected = {
            "texts": TEXTS,
            "queries": [fast(text, truncation=True, max_length=QUERY_LENGTH - 1)["input_ids"] for text in TEXTS],
            "documents": [fast(text, truncation=True, max_length=DOC_LENGTH - 1)["input_ids"] for text in TEXTS],
            "query_length": QUERY_LENGTH,
            "document_length": DOC_LENGTH,
            "sequences": sequences,
            "vocabulary": len(fast),
            "symbols": {s: [bare(s), bare("tor" + s), bare("tor " + s)] for s in symbols},
        }
        if name == "deberta-v2":
            expected["places"] = places_of_distances()
            tensors |= gradients(model, sequences)
        (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file(tensors, folder / "expected.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
