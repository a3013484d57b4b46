"""Libraries that compute something of the same name; run by metrics.py in an environment of their own."""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    from nltk.translate.nist_score import corpus_nist
    from rouge_score.rouge_scorer import RougeScorer

    asked: dict[str, Any] = json.load(sys.stdin)
    scorer = RougeScorer(["rougeL"])
    found = {}
    for system, answers in asked["answers"].items():
        likes = [
            max(scorer.score(text, answer)["rougeL"].fmeasure for text in texts)
            for answer, texts in zip(answers, asked["references"], strict=True)
        ]
        found[system] = {
            "nltk_nist": corpus_nist(asked["reference_tokens"], asked["answer_tokens"][system]),
            "google_rouge_l": sum(likes) / len(likes),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
