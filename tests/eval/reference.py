#!/usr/bin/env python3
"""The scorer of the baselines once more, written for reading and not for speed: dictionaries and doubles.

    lapwing-eval observe FILE... | reference.py              how far the two are apart
    lapwing-eval observe FILE... | reference.py --scores     its own scores, one JSON object a line
    ... reference.py --without fleet                         as if that part did not exist

It reads what the scorer sees of each event and what it says. The two may differ by rounding: 0.05 bit. So close to the
edge of quarantine it learns as the scorer did, else one rounding would change all that follows. `--without`
switches off, one by one, what was added to the first design; `all` leaves the design alone:
  fresh     own counts have faded by the time they are asked, not only by the time they are next learned
  mature    peers count what a newcomer does from its fourth day on
  fleet     what is new at three identities within six hours weighs half for a day
  node      an object a kubelet may read is never rarer than one in twenty
  chernoff  the bound of the burst tail instead of the tail
  burst     a burst is added to the risk as it is, not as evidence of an ordinary request
  close     what is left of the risk when an incident closes after a day is at most four bits
  bounds    at most 256 values of a table, 64 values in quarantine, 64 different values in an hour, 48 credits
"""
import json
import math
import sys
from collections import defaultdict

HOUR = 3_600_000_000
DAY = 24 * HOUR
PARTS = ("fresh", "mature", "fleet", "node", "chernoff", "burst", "close", "bounds")

MASS = {}
for mass, actions, resources in [
    (0.07, "get list", "secrets"), (0.02, "watch", "secrets"),
    (0.03, "create", "rolebindings clusterrolebindings"), (0.02, "create", "roles clusterroles"),
    (0.005, "update patch", "rolebindings clusterrolebindings roles clusterroles"),
    (0.02, "create", "serviceaccounts secrets"), (0.03, "create", "pods"),
    (0.015, "create", "daemonsets cronjobs jobs"), (0.01, "create patch update", "deployments"),
    (0.005, "patch update", "daemonsets cronjobs"), (0.015, "create approve", "certificatesigningrequests"),
    (0.005, "create update patch", "mutatingwebhookconfigurations validatingwebhookconfigurations"),
    (0.01, "list", "pods nodes namespaces configmaps services serviceaccounts"),
    (0.005, "list", "roles rolebindings clusterroles clusterrolebindings"), (0.01, "get", "configmaps"),
]:
    for a in actions.split():
        for r in resources.split():
            MASS[a, r] = mass
ANY = {"exec": 0.04, "attach": 0.01, "debug": 0.01, "portforward": 0.02, "proxy": 0.02, "self-review": 0.035,
       "token-request": 0.03, "impersonate": 0.02, "delete": 0.003, "deletecollection": 0.003}

DISCOVERY = set("pods nodes namespaces configmaps services roles rolebindings clusterroles clusterrolebindings serviceaccounts".split())
GRANTS = {"roles", "rolebindings", "clusterroles", "clusterrolebindings"}
LASTING = set("cronjobs daemonsets deployments serviceaccounts mutatingwebhookconfigurations validatingwebhookconfigurations certificatesigningrequests".split())
LOSSES = set("pods deployments namespaces secrets configmaps persistentvolumeclaims services daemonsets".split())


def tactic(verb, resource):
    writes = verb in ("create", "update", "patch")
    if verb in ("self-review", "access-review") or verb == "list" and resource in DISCOVERY:
        return "discovery"
    if verb == "token-request" or verb in ("get", "list", "watch") and resource == "secrets":
        return "credential-access"
    if verb in ("exec", "attach", "debug", "proxy", "portforward") or verb == "create" and resource in ("pods", "jobs"):
        return "execution"
    if verb == "impersonate" or writes and resource in GRANTS:
        return "privilege-escalation"
    if verb == "approve" or writes and resource in LASTING:
        return "persistence"
    if verb in ("delete", "deletecollection", "evict") and resource in LOSSES:
        return "impact"
    return None


def faded(hours, half=14 * 24):
    return 2.0 ** (-hours / half)


class Table:
    """Decayed, saturating counts of one identity's values of one dimension in one context."""

    def __init__(self, hour):
        self.values = {}  # value: [count, hour of the count, day, increments that day, told to peers]
        self.total, self.hour, self.renewed = 0.0, hour, hour


class Principal:
    def __init__(self, o, hour, now, level):
        self.tables, self.pending, self.bursts = {}, {}, {}
        self.peers = [("class", o["class"])]
        if o["group"]:
            self.peers.append(("group", o["group"]))
        self.first, self.last, self.active, self.request = hour, hour - 1, 0.0, None
        self.risk, self.at, self.level, self.samples = 0.0, now, level, 0
        self.credits, self.tactics, self.incident = {}, {}, None


class Scorer:
    def __init__(self, without=()):
        self.on = {part: part not in without for part in PARTS}
        self.time, self.hour = 0, -1
        self.seen, self.principals, self.fleet = {}, {}, {}
        self.held = defaultdict(lambda: defaultdict(int))  # (peers, table): value: how many hold it
        self.pairs = defaultdict(int)  # (peers, table): sum of these
        self.since, self.level = {}, defaultdict(lambda: 1.0)
        self.days = defaultdict(lambda: [0.5, 1.0, 0])
        self.means = defaultdict(lambda: [1.0, 1.0])

    # ---- what is known
    def predict(self, p, dimension, context, value, symbols):
        table = (dimension, context)
        levels = [self.held.get((peers, table)) for peers in p.peers]
        pairs = [self.pairs.get((peers, table)) for peers in p.peers]
        if not pairs[0]:
            prob = 0.3 / symbols
        else:
            distinct, holders = len(levels[0]), levels[0].get(value, 0)
            prob = holders / (pairs[0] + distinct) if holders else distinct / (pairs[0] + distinct) / symbols
        if len(levels) > 1 and levels[1]:
            distinct = len(levels[1])
            prob = (levels[1].get(value, 0) + distinct * prob) / (pairs[1] + distinct)
        prob = max(prob, 1e-5)
        count = total = 0.0
        own = p.tables.get(table)
        if own and own.values:
            since = self.hour if self.on["fresh"] else own.renewed
            total = own.total * faded(max(0, since - own.hour))
            entry = own.values.get(value)
            if entry:
                count = entry[0] * faded(max(0, since - entry[1]))
            if total > 0:
                distinct = max(1, len(own.values))
                prob = max((count + distinct * prob) / (total + distinct), 1e-5)
        return prob, count, total

    def told(self, p, o):
        if not self.on["mature"]:
            return True
        return self.hour - p.first >= 72 or self.hour - self.since[o["class"]] < 72

    def terms(self, p, o, new):
        terms = []

        def weigh(dimension, context, value, prob, count, total, attack, deviates):
            bits = math.log2(1 - deviates + deviates * min(attack / prob, 1e4))
            terms.append([dimension, context, value, bits, count, total])

        verb, resource = o["verb"], o["resource"]
        mass = MASS.get((verb, resource), ANY.get(verb, 0.0))
        attack = 0.7 * mass + (0.12 if o["reads"] else 0.3) / 300
        weigh("action", "", o["action"], *self.predict(p, "action", "", o["action"], 300), attack, 0.9)
        mode = "r" if o["reads"] else "w"
        prob, count, total = self.predict(p, "namespace", mode, o["namespace"], 1)
        fresh = count <= 0
        weigh("namespace", mode, o["namespace"], prob, count, total, 0.3 if fresh else min(prob, 0.3), 0.5)
        if o["sensitive"]:
            prob, count, total = self.predict(p, "object", o["kind"], o["object"], 1)
            if self.on["node"] and o["class"] == "node" and not o["denied"]:
                prob = max(prob, 0.05)
            attack = 0.5 if count <= 0 and not fresh else prob
            weigh("object", o["kind"], o["object"], prob, count, total, attack, 0.5)
        for coarse, fine, x, y in (("client", "client version", o["client"], o["version"]),
                                   ("network", "subnet", o["network"], o["subnet"])):
            dimension, context, value = coarse, "", x
            prob, count, total = self.predict(p, coarse, "", x, 1)
            if count > 0:
                finer = self.predict(p, fine, x, y, 1)
                if finer[1] <= 0:
                    dimension, context, value = fine, x, y
                    prob, count, total = max(finer[0], 0.05), finer[1], finer[2]
            weigh(dimension, context, value, prob, count, total, 0.4 if count <= 0 else prob, 0.5)
        ended = "refused" if o["denied"] else "answered"
        prob, count, total = self.predict(p, "outcome", "", ended, 1)
        weigh("outcome", "", ended, max(prob, 2e-3), count, total, 0.3 if o["denied"] else 0.7, 0.4)
        if o["class"] == "human":
            prob, count, total = self.predict(p, "time", "", o["slot"], 12)
            weigh("time", "", o["slot"], max(prob, 2e-3), count, total, 1 / 12, 0.3)
        newcomers, days, _ = self.days[o["class"]]
        if new and days > 20:
            prob = min(1.0, max(newcomers, 0.5) / max(days, 1.0))
            weigh("principal", "", o["principal"], prob, 0, 0, 0.3, 0.5)
        best = None
        for token in o["tokens"]:
            prob, count, total = self.predict(p, "content", resource, token, 1)
            power = token.startswith(("acts as ", "grants ", "privileged", "host", "capability "))
            attack = (0.3 if power else 0.1) if count <= 0 else prob
            bits = math.log2(0.5 + 0.5 * min(attack / prob, 1e4))
            if best is None or bits >= best[3]:
                best = ["content", resource, token, bits, count, total]
        if best:
            terms.append(best)
        if self.on["fleet"]:
            for term in terms:
                key = self.fleet_key(o, term)
                if term[3] > 0 and key and len(self.fleet.get(key, (0, ()))[1]) >= 3:
                    term[3] *= 0.5
        return terms

    @staticmethod
    def fleet_key(o, term):
        dimension, context, value, _, count, total = term
        changes = dimension in ("client version", "namespace") or dimension in ("network", "subnet") and o["private"]
        if not changes or count > 0 or total <= 0:
            return None
        return o["class"], dimension, "" if dimension == "namespace" else context, value

    # ---- learning
    def gain(self, p, table, value):
        for peers in p.peers:
            self.held[peers, table][value] += 1
            self.pairs[peers, table] += 1

    def lose(self, p, table, value):
        for peers in p.peers:
            held = self.held[peers, table]
            held[value] -= 1
            self.pairs[peers, table] -= 1
            if not held[value]:
                del held[value]

    def learn_value(self, p, o, dimension, context, value, at_once):
        hour, table = self.hour, (dimension, context)
        own = p.tables.get(table)
        entry = own.values.get(value) if own else None
        if own and hour - own.renewed > 6:
            own.renewed = hour
        if entry:
            if entry[1] == hour:
                return
            if entry[2] != hour // 24:
                entry[2], entry[3] = hour // 24, 0
            counts = entry[3] < 4
            entry[0] = entry[0] * faded(hour - entry[1]) + counts
            entry[1], entry[3] = hour, entry[3] + counts
            if counts:
                own.total, own.hour = own.total * faded(max(0, hour - own.hour)) + 1, hour
            return
        if not at_once:
            day, days = p.pending.get((table, value), (None, 0))
            days += day != hour // 24
            if days == 1 and self.on["bounds"] and len(p.pending) >= 64 and (table, value) not in p.pending:
                del p.pending[next(iter(p.pending))]
            p.pending[table, value] = hour // 24, days
            if days < 3:
                return
            del p.pending[table, value]
        if not own:
            own = p.tables[table] = Table(hour)
        told = self.told(p, o)
        own.total, own.hour = own.total * faded(max(0, hour - own.hour)) + 1, hour
        if self.on["bounds"] and len(own.values) >= 256:
            now = {v: entry[0] * faded(hour - entry[1]) for v, entry in own.values.items()}
            least = min(now, key=now.get)
            own.total -= now[least]
            if own.values.pop(least)[4]:
                self.lose(p, table, least)
        own.values[value] = [1.0, hour, hour // 24, 1, told]
        if told:
            self.gain(p, table, value)

    def learn(self, p, o, at_once):
        mode = "r" if o["reads"] else "w"
        values = [("action", "", o["action"]), ("namespace", mode, o["namespace"])]
        if o["sensitive"]:
            values.append(("object", o["kind"], o["object"]))
        values += [("client", "", o["client"]), ("client version", o["client"], o["version"]),
                   ("network", "", o["network"]), ("subnet", o["network"], o["subnet"]),
                   ("outcome", "", "refused" if o["denied"] else "answered")]
        for value in values:
            self.learn_value(p, o, *value, at_once)
        if o["class"] == "human":
            self.learn_value(p, o, "time", "", o["slot"], True)
        for token in o["tokens"]:
            self.learn_value(p, o, "content", o["resource"], token, at_once)

    def touch(self, p, o):
        hour, new = self.hour, p.first // 24 == self.hour // 24
        if p.last >= hour:
            return new
        if p.last // 24 != hour // 24 or p.active == 0:
            for table, own in list(p.tables.items()):
                for value, entry in list(own.values.items()):
                    if entry[0] * faded(hour - entry[1]) < 0.03:
                        del own.values[value]
                        if entry[4]:
                            self.lose(p, table, value)
                if not own.values:
                    del p.tables[table]
            p.pending = {k: v for k, v in p.pending.items() if hour // 24 - v[0] <= 30}
            if not new and self.told(p, o):
                for table, own in p.tables.items():
                    for value, entry in own.values.items():
                        if not entry[4]:
                            entry[4] = True
                            self.gain(p, table, value)
        p.active = p.active * faded(hour - p.last) + 1
        p.last = hour
        return new

    # ---- bursts
    def burst(self, p, o):
        verb, again = o["verb"], p.request == o["id"]
        p.request = o["id"]
        channels = []
        if o["denied"]:
            channels.append(("refused requests", None))
        if not o["denied"] and o["reads"] and o["resource"] == "secrets":
            channels.append(("different secrets", o["object"]))
        if verb in ("delete", "deletecollection", "evict"):
            channels.append(("deletions", None))
        if verb in ("exec", "attach", "debug") or verb == "proxy" and o["sensitive"]:
            channels.append(("sessions in pods", None))
        channels.append(("different namespaces", o["namespace"]))
        best = (0.0, None)
        for name, value in channels:
            if value is None and again:
                continue
            b = p.bursts.get(name)
            if b is None:
                b = p.bursts[name] = dict(hour=self.hour, count=0.0, values=set(), sum=0.0, squares=0.0, hours=0.0, told=0.0)
            mean = self.means[o["class"], name]
            if b["hour"] != self.hour:
                gap, y = self.hour - b["hour"], b["count"]
                mean[0], mean[1] = mean[0] * 0.9995 + min(y, 50), mean[1] * 0.9995 + gap
                if b["told"] > 0:
                    y = min(y, 3 * (b["sum"] + 1) / (b["hours"] + 1) + 2)
                left = faded(gap)
                b.update(sum=b["sum"] * left + y, squares=b["squares"] * left + y * y, hours=b["hours"] * left + gap,
                         hour=self.hour, count=0.0, values=set(), told=0.0)
            if value is not None:
                if value in b["values"]:
                    continue
                if len(b["values"]) < 64 or not self.on["bounds"]:
                    b["values"].add(value)
            b["count"] += 1
            y = b["count"]
            if y < 4:
                continue
            of_class, hours = mean[0] / mean[1], b["hours"] + 24
            mu = (b["sum"] + 24 * of_class) / hours + 0.02
            square = (b["squares"] + 24 * (of_class * of_class + 2 * of_class)) / hours
            if y < 2 * mu + 2:
                continue
            rise = self.tail(y, mu, max(square - mu * mu, mu * 1.3)) - b["told"]
            if rise > 1:
                b["told"] += rise
                best = max(best, (rise, name))
        return best

    def tail(self, y, mu, var):
        r = min(max(mu * mu / (var - mu), 0.05), 50)
        if self.on["chernoff"]:
            nats = y * math.log(y / mu) - (r + y) * math.log((r + y) / (r + mu))
        else:
            q = mu / (mu + r)
            log = math.lgamma(y + r) - math.lgamma(r) - math.lgamma(y + 1) + r * math.log(1 - q) + y * math.log(q)
            ratio = q * (y + r) / (y + 1)
            nats = -(log - math.log(max(1e-3, 1 - ratio)) if ratio < 1 else log)
        return min(max(nats / math.log(2) - 8, 0.0), 25.0)

    # ---- risk
    def add_risk(self, p, o, terms, burst):
        now, (more, channel) = self.time, burst
        self.pass_time(p)
        evidence = sum(t[3] for t in terms if t[3] <= 0 or (t[0], t[2]) not in p.credits)
        if not self.on["burst"] and ("burst", channel) not in p.credits:
            evidence += more
        credits = [((t[0], t[2]), t[3]) for t in sorted(terms, key=lambda t: -t[3]) if t[3] > 1]
        if more > 0:
            credits.append((("burst", channel), more))
        for key, bits in credits:
            if key not in p.credits:
                if len(p.credits) >= 48 and self.on["bounds"]:
                    del p.credits[min(p.credits, key=lambda k: p.credits[k][1])]
                p.credits[key] = now, bits
        evidence = min(max(evidence, -4.0), 20.0)
        excess = evidence - (1 + 2 * p.level)
        novelty = min(max(evidence, 0.0), 6.0)
        p.level += (novelty - p.level) * max(1 / (p.samples + 50), 0.01)
        p.samples += 1
        self.level[o["class"]] = self.level[o["class"]] * 0.999 + 0.001 * novelty
        step = max(excess, -0.5)
        if excess > 0:
            name = tactic(o["verb"], o["resource"])
            if name and evidence > 2:
                p.tactics[name] = now
            step *= self.progression(p)
        p.risk = max(0.0, p.risk + step)
        if self.on["burst"]:
            p.risk += more * self.progression(p)

    def risk_now(self, p):
        left = p.risk * faded((self.time - p.at) / 1e6, 86400)
        closed = self.on["close"] and p.incident and self.time - p.incident[0] >= DAY
        return min(left, 4.0) if closed else left

    def pass_time(self, p):
        if self.time > p.at:
            p.risk, p.at = self.risk_now(p), self.time
            p.credits = {k: v for k, v in p.credits.items() if self.time - v[0] <= DAY}
            if p.incident and self.time - p.incident[0] >= DAY:
                p.incident = None

    def tell(self, p, score, before, said):
        """Opens an incident at 8 bits of surprise or 10 of risk; 12 where little is known, 20 on the first day of a class.
        At the edge as the scorer."""
        least = 20 if self.hour - self.since[p.peers[0][1]] < 24 else 12 if p.active < 20 else 0
        over = max(score - max(8, least) if score is not None else -99.0,
                   self.risk_now(p) - max(10, least) if self.risk_now(p) > before + 0.5 else -99.0)
        if abs(over) < 0.05:
            over = said
        if over >= 0:
            self.pass_time(p)
            if not p.incident:
                p.incident = (self.time,)

    def progression(self, p):
        many = sum(1 for at in p.tactics.values() if self.time - at < 3 * DAY)
        return 1 + 0.25 * max(0, many - 1)

    # ---- one event
    def score(self, o):
        self.time = max(self.time, o["time"])
        hour = self.time // HOUR
        if hour != self.hour:
            self.hour = hour
            self.seen.clear()
            self.fleet = {k: v for k, v in self.fleet.items() if hour - v[0] <= (24 if len(v[1]) >= 3 else 6)}
        before = self.seen.get(o["key"])
        if before is not None and not (o["denied"] or o["verb"] in ("delete", "deletecollection", "evict", "exec", "attach", "debug")
                                       or o["verb"] == "proxy" and o["sensitive"]):
            return before, 0.0
        p = self.principals.get(o["principal"])
        if p is None:
            self.since.setdefault(o["class"], hour)
            p = self.principals[o["principal"]] = Principal(o, hour, self.time, self.level[o["class"]])
        first_of_day = p.active == 0 or p.last // 24 != hour // 24
        new = self.touch(p, o)
        risk = self.risk_now(p)
        burst = self.burst(p, o)
        score, terms = before, []
        if before is None:
            terms = self.terms(p, o, new)
            bits = min(sum(t[3] for t in terms), 60)
            score = self.seen[o["key"]] = math.log2(0.5 + 0.5 * 2.0 ** bits)
        if first_of_day:
            state = self.days[o["class"]]
            if state[2] == 0:
                state[2] = hour
            elif hour - state[2] > 24:
                left = faded(hour - state[2])
                state[:] = state[0] * left, state[1] * left, hour
            state[0] += new and p.active <= 1
            state[1] += 1
        if burst[0] > 0:
            score = max(score, 0) + burst[0]
        if before is None or burst[0] > 0:
            self.add_risk(p, o, terms, burst)
        if before is None:
            for term in terms:
                key = self.fleet_key(o, term)
                if key:
                    _, who = self.fleet.setdefault(key, (hour, set()))
                    if len(who) < 3:
                        who.add(o["principal"])
            edge = abs(score - 6) < 0.05
            self.learn(p, o, o["surprise"] < 6 if edge else score < 6)
        self.tell(p, score if before is None or burst[0] > 0 else None, risk, o["over"])
        return score, p.risk


def main(args):
    without = args[args.index("--without") + 1].split(",") if "--without" in args else []
    if without == ["all"]:
        without = PARTS
    scorer, apart, worst, n = Scorer(without), [0, 0], [(0.0, ""), (0.0, "")], 0
    for line in sys.stdin:
        o = json.loads(line)
        scores = scorer.score(o)
        n += 1
        if "--scores" in args:
            print(json.dumps({"surprise": round(scores[0], 3), "risk": round(scores[1], 3)}))
            continue
        for i, said in enumerate((o["surprise"], o["risk"])):
            by = abs(scores[i] - said)
            apart[i] += by > 0.05
            worst[i] = max(worst[i], (by, f"event {n}, {o['id']}: {scores[i]:.3f} here, {said:.3f} there"))
    if "--scores" in args:
        return 0
    for name, count, (by, where) in zip(("surprise", "risk"), apart, worst):
        print(f"{name}: {count} of {n} events differ by more than 0.05 bit; most: {by:.3f} bit, {where}")
    return 1 if apart[0] or apart[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
