#!/usr/bin/env python3
"""Cut the quickstart's data: whole subjects of MedQuAD, in BEIR layout.

    python make_data.py SOURCE OUT

SOURCE  BEIR folder of MedQuAD (corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv; ids q-SITE-ARTICLE-NUMBER and
        a-SITE-ARTICLE-NUMBER)
OUT     folder to write: the same files and a README.md

A subject is a disease: all the articles that share a question about it. Subjects stay whole, so each passage has its
rivals beside it, and keep the split they have in SOURCE, so no disease is both trained on and tested. Taken are
subjects of 3 to 12 passages, none longer than 250 words, in a seeded order, until each split has its number of
questions. No question or passage is left out of a subject that is taken, and none is chosen by how any retriever does on
it. Lines are copied as they are, in SOURCE's order. Same input, same bytes. Only the standard library is needed.
"""

import argparse
import hashlib
import json
from collections import defaultdict
from pathlib import Path

SEED = 7
QUERIES = {"train": 2_400, "dev": 130, "test": 260}
PASSAGES = range(3, 13)
LONGEST = 250  # words

README = """# MedQuAD, a slice for the quickstart

Questions about diseases and the passages that answer them, from web sites of the US National Institutes of Health.
Questions follow templates over the name of a disease ("What are the symptoms of X?"). The hard part: each disease has
3 to 12 passages here (symptoms, causes, treatments, outlook, ...), all of them about it, of which one or two answer.

- Source: MedQuAD (github abachaa/MedQuAD, commit 577bd37b96c02d1833b2c9eed2de9f96964e96cb), Asma Ben Abacha and Dina
  Demner-Fushman, "A Question-Entailment Approach to Question Answering", BMC Bioinformatics 20:511, 2019.
- Licence: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). This folder is under that licence, not under the
  licence of the code around it.
- Changes by the conversion to BEIR layout: "What is (are) X ?" became "What is X?"; left out are the three MedlinePlus
  subsets that have no answers, answers of over 350 or under 15 words, boilerplate answers, and answers that never name
  their subject.
- Changes by this slice, made by `../make_data.py` (seed {seed}): {subjects} of the {all_subjects:,} subjects, each of them whole,
  with 3 to 12 passages of at most 250 words. Lines are copied as they are.
- Splits are by subject: no disease is in two of them. The corpus holds the passages of all three.

| split | subjects | queries | judgements | passages |
|---|---|---|---|---|
{table}
| all | {subjects} | {queries:,} | {judgements:,} | {passages:,} |
"""


class Groups:
    """Disjoint sets of articles (union-find)."""

    def __init__(self):
        self.parent = {}

    def find(self, item):
        self.parent.setdefault(item, item)
        while self.parent[item] != item:
            item = self.parent[item]
        return item

    def join(self, one, other):
        one, other = sorted((self.find(one), self.find(other)))
        self.parent[other] = one


def article(text_id):
    """q-2-0000476-1054 -> 2-0000476"""
    return text_id.split("-", 1)[1].rsplit("-", 1)[0]


def read_lines(path):
    """Lines of a JSONL file by id, each with its text."""
    with open(path, encoding="utf-8") as lines:
        records = ((json.loads(line), line) for line in lines)
        return {record["_id"]: (record["text"], line) for record, line in records}


def read_qrels(path):
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return header, [(*line.split("\t")[:2], line) for line in lines]


def seeded_order(subjects):
    return sorted(subjects, key=lambda subject: hashlib.sha256(f"{SEED} {subject}".encode()).hexdigest())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()

    corpus = read_lines(options.source / "corpus.jsonl")
    queries = read_lines(options.source / "queries.jsonl")
    qrels = {split: read_qrels(options.source / "qrels" / f"{split}.tsv") for split in QUERIES}

    groups = Groups()
    for text_id in (*corpus, *queries):
        groups.find(article(text_id))
    for _, judgements in qrels.values():
        for query, passage, _ in judgements:
            groups.join(article(query), article(passage))
    subject = {text_id: groups.find(article(text_id)) for text_id in (*corpus, *queries)}

    passages, questions, splits = defaultdict(set), defaultdict(set), defaultdict(set)
    for text_id in corpus:
        passages[subject[text_id]].add(text_id)
    for text_id in queries:
        questions[subject[text_id]].add(text_id)
    for split, (_, judgements) in qrels.items():
        for query, _, _ in judgements:
            splits[subject[query]].add(split)

    def fits(group):
        longest = max((len(corpus[text_id][0].split()) for text_id in passages[group]), default=0)
        return len(passages[group]) in PASSAGES and longest <= LONGEST and len(splits[group]) == 1

    chosen = {split: [] for split in QUERIES}
    for group in seeded_order(set(filter(fits, splits))):
        (split,) = splits[group]
        if sum(len(questions[other]) for other in chosen[split]) < QUERIES[split]:
            chosen[split].append(group)

    taken = {group for part in chosen.values() for group in part}
    (options.out / "qrels").mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        lines = (line for text_id, (_, line) in texts.items() if subject[text_id] in taken)
        (options.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    rows = []
    for split, (header, judgements) in qrels.items():
        lines = [line for query, _, line in judgements if subject[query] in taken]
        (options.out / "qrels" / f"{split}.tsv").write_text(header + "".join(lines), encoding="utf-8", newline="\n")
        rows.append([len(chosen[split]), *(sum(len(part[group]) for group in chosen[split]) for part in (questions, passages)), len(lines)])
    table = "\n".join(f"| {split} | {s} | {q:,} | {j:,} | {p:,} |" for split, (s, q, p, j) in zip(QUERIES, rows))
    total = [sum(column) for column in zip(*rows)]
    readme = README.format(
        seed=SEED, all_subjects=len(splits), table=table, subjects=total[0], queries=total[1], passages=total[2], judgements=total[3]
    )
    (options.out / "README.md").write_text(readme, encoding="utf-8", newline="\n")
    print(table)
    print(f"folder: {sum(file.stat().st_size for file in options.out.rglob('*') if file.is_file()):,} bytes")


if __name__ == "__main__":
    main()
