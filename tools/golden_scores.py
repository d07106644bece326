"""Record what the embedded model scores on fixed pairs, for the test that holds it to them.

python -m tools.golden_scores

English, Chinese, mixed and long. Run it after the embedded model was changed on purpose, and read
the difference before you commit it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer

GOLDEN = Path(__file__).parents[1] / "tests" / "rerank_core" / "scorers" / "golden_scores.json"
CONFIG = ScorerConfig(model="embedded", device="cpu")

_FILLER = (
    "The committee met again in the autumn and went through the budget line by line. Most of the "
    "afternoon was spent on travel costs, which had risen for the third year in a row. "
)
_FILLER_ZH = "会议在下午继续进行,与会者逐项讨论了明年的预算,并对差旅费用的增长表示关注。"
TEXTS: dict[str, tuple[str, ...]] = {
    "What is the capital of China?": (
        "Beijing is the capital of China and home to more than twenty million people.",
        "Shanghai is the largest city in China and its financial centre.",
        "北京是中华人民共和国的首都。",
        "Bananas are yellow and rich in potassium.",
    ),
    "how do I read a file line by line in Python": (
        "Open the file with open() and iterate over it: each iteration yields one line.",
        "The readlines() method returns a list of all lines; the whole file must fit in memory.",
        "The write() method returns the number of characters written.",
        "Pythons are non-venomous snakes found in Africa, Asia and Australia.",
    ),
    "side effects of ibuprofen": (
        "Common side effects of ibuprofen include stomach pain, heartburn and nausea.",
        "Ibuprofen is a nonsteroidal anti-inflammatory drug used for pain and fever.",
        "Paracetamol should not be combined with alcohol.",
        "The side door of the pharmacy closes at six.",
    ),
    "why was the bridge closed in 1932": (
        "In 1932 the bridge was closed for four months because ice had damaged two of its piers.",
        "The bridge was opened by the mayor in 1932 after six years of work.",
        "Card games such as bridge became popular in the 1930s.",
        "",
    ),
    "中国的首都是哪里?": (
        "北京是中国的首都,也是全国的政治和文化中心。",
        "上海是中国最大的城市,经济发达。",
        "Beijing has been the capital of China for most of the last eight centuries.",
        "苹果是一种水果,富含维生素。",
    ),
    "如何申请护照": (
        "申请普通护照须携带身份证和照片,到出入境管理机构填写申请表。",
        "护照的有效期为十年,未满十六周岁的为五年。",
        "签证由目的地国家的使领馆签发。",
        "这家餐厅的招牌菜是红烧鱼。",
    ),
    "感冒了吃什么药好": (
        "感冒多由病毒引起,一般对症用药即可,发热时可以服用对乙酰氨基酚。",
        "多喝水、多休息有助于感冒的恢复。",
        "感冒药应放在儿童接触不到的地方。",
        "今年的雪比往年来得更早。",
    ),
    "Python 怎么解析 JSON?": (
        "使用标准库的 json 模块:json.loads() 把字符串解析成 Python 对象。",
        "json.dumps() serialises a Python object to a JSON formatted string.",
        "YAML 是一种便于阅读的数据格式。",
        "蟒蛇是无毒的蛇类。",
    ),
    "deadline for the annual report": (
        "The annual report must be handed in by the thirty-first of March.",
        _FILLER * 40 + "The annual report must be handed in by the thirty-first of March.",
        "The annual report must be handed in by the thirty-first of March. " + _FILLER * 40,
        _FILLER * 40,
    ),
    "年度报告的截止日期是什么时候": (
        "年度报告必须在三月三十一日之前提交。",
        _FILLER_ZH * 30 + "年度报告必须在三月三十一日之前提交。",
        "年度报告必须在三月三十一日之前提交。" + _FILLER_ZH * 30,
        _FILLER_ZH * 30,
    ),
}


def pairs() -> list[QueryDocumentPair]:
    """Return the pairs, in the order of the file."""
    return [QueryDocumentPair(query, text) for query, texts in TEXTS.items() for text in texts]


def main() -> None:
    """Score the pairs and write the file."""
    scorer = load_scorer(CONFIG)
    scores = scorer.score(pairs())
    golden = {
        "fingerprint": scorer.info.fingerprint,
        "raw": [round(float(score), 6) for score in scores.raw],
        "tokens": scores.tokens.tolist(),
        "truncated": scores.truncated.tolist(),
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{GOLDEN}: {len(scores)} scores of {scorer.info.fingerprint}\n")


if __name__ == "__main__":
    main()
