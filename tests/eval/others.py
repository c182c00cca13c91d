#!/usr/bin/env python3
"""Isolation forest and half-space trees on the same streams, from their public packages.

    pip install scikit-learn river
    lapwing-eval simulate 1 > month.jsonl && lapwing-eval observe month.jsonl > seen.jsonl
    others.py month.jsonl seen.jsonl 14 21 28 5

Days: calibration from, judged from, judged to; then the incidents a day to calibrate to (recordings: 14 17.5 21 2).
The forest is fitted on the events before calibration, the trees learn as they go. Both get numbers: how rare each of
five properties is among all events and for the identity, in bits, and whether the request was refused.
"""
import json
import math
import sys
from collections import Counter, defaultdict

import numpy as np
from river.anomaly import HalfSpaceTrees
from river.preprocessing import MinMaxScaler
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score

START, DAY, HOUR = 1_780_272_000_000_000, 86_400_000_000, 3_600_000_000
PARTS = ("action", "namespace", "object", "client", "network")


def features(seen):
    everyone, own, totals = Counter(), Counter(), Counter()
    for n, o in enumerate(seen, 1):
        who, row = o["principal"], []
        totals[who] += 1
        for part in PARTS:
            everyone[part, o[part]] += 1
            own[who, part, o[part]] += 1
            row.append(math.log2(n / everyone[part, o[part]]))
            row.append(math.log2(totals[who] / own[who, part, o[part]]))
        yield row + [float(o["denied"])]


def main(events, observations, calibrate, judge, end, budget):
    marks = {}
    for line in open(events):
        event = json.loads(line)
        marks[event["auditID"]] = event["evaluation"]
    seen = [json.loads(line) for line in open(observations)]
    at = np.array([o["time"] - START for o in seen])
    x = np.array(list(features(seen)))
    forest = IsolationForest(random_state=1).fit(x[at < calibrate * DAY])
    scaler, trees, stream = MinMaxScaler(), HalfSpaceTrees(seed=1), []
    for row in x:
        point = dict(enumerate(row))
        scaler.learn_one(point)
        point = scaler.transform_one(point)
        stream.append(trees.score_one(point))
        trees.learn_one(point)
    who = [(o["principal"], o["network"] if o["class"] == "anonymous" else "") for o in seen]
    for name, scores in (("isolation forest", -forest.score_samples(x)), ("half-space trees", np.array(stream))):
        report(name, scores, at, who, [marks[o["id"]] for o in seen], calibrate, judge, end, budget)


def incidents(scores, at, who, marks, threshold, begin, end):
    opened, found = {}, []
    for i in np.nonzero((scores >= threshold) & (at >= begin * DAY) & (at < end * DAY))[0]:
        if marks[i] != "setup" and at[i] - opened.get(who[i], -DAY) >= DAY:
            opened[who[i]] = at[i]
            found.append(i)
    return found


def report(name, scores, at, who, marks, calibrate, judge, end, budget):
    candidates = np.unique(scores[(at >= calibrate * DAY) & (at < judge * DAY)])
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        many = len(incidents(scores, at, who, marks, candidates[middle], calibrate, judge))
        low, high = (low, middle) if many <= budget * (judge - calibrate) else (middle + 1, high)
    threshold = candidates[high]
    runs, attacks, units = {}, defaultdict(list), {}
    for i, mark in enumerate(marks):
        if mark and mark != "setup":
            runs[mark] = runs.get(mark, False) or scores[i] >= threshold
            if scores[i] >= threshold:
                attacks[who[i]].append(at[i])
        if mark != "setup" and judge * DAY <= at[i] < end * DAY:
            score, attacked = units.get((who[i], at[i] // HOUR), (-math.inf, False))
            units[who[i], at[i] // HOUR] = max(score, scores[i]), attacked or bool(mark)
    found = incidents(scores, at, who, marks, threshold, judge, end)
    good = sum(any(at[i] <= t < at[i] + DAY for t in attacks[who[i]]) for i in found)
    values = np.array(list(units.values()), dtype=float)
    print(f"{name}: recall {sum(runs.values()) / len(runs):.2f}, precision {good / max(1, len(found)):.2f}, "
          f"{(len(found) - good) / (end - judge):.1f} false alerts a day, "
          f"AP {average_precision_score(values[:, 1], values[:, 0]):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(float, sys.argv[3:7]))
