"""64 clients, each with a connection and a token of its own, ask for overlapping slots. Part of hub.sh."""

import http.client
import json
import os
import threading
import time
from urllib.parse import urlparse

URL, ADMIN, PID = urlparse(os.environ["URL"]), os.environ["TOKEN"], os.environ["PID"]
CLIENTS, ROUNDS = 64, int(os.environ.get("ROUNDS", "1000"))
LAYOUT = "1x4c12g"


def call(link, method, path, token, body=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    link.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = link.getresponse()
    return answer.status, json.loads(answer.read() or "null")


def connect():
    return http.client.HTTPConnection(URL.hostname, URL.port)


link = connect()
tokens = []
for n in range(1, CLIENTS + 1):
    _, made = call(link, "POST", f"/api/v1/people/p{n}/link", ADMIN, {})
    _, made = call(link, "POST", "/api/v1/sign-in/link", None, {"link": made["token"]})
    tokens.append(made["token"])

first = (int(time.time()) // 3600 + 2) * 3600
times, statuses, winners, lost = [], {}, {}, 0
lock, gate = threading.Lock(), threading.Barrier(CLIENTS)


def work(token):
    global lost
    own = connect()
    gate.wait()
    for round_ in range(ROUNDS):
        starts = first + (round_ % 500) * 3600
        body = {"server": "one", "layout": LAYOUT, "window": {"starts": starts, "ends": starts + 1800}}
        began = time.perf_counter()
        try:
            status, _ = call(own, "POST", "/api/v1/bookings", token, body)
        except OSError:
            own, status = connect(), 0
        took = time.perf_counter() - began
        with lock:
            times.append(took)
            statuses[status] = statuses.get(status, 0) + 1
            lost += status == 0
            if status == 201:
                winners[starts] = winners.get(starts, 0) + 1


threads = [threading.Thread(target=work, args=(t,)) for t in tokens]
began = time.perf_counter()
[t.start() for t in threads]
[t.join() for t in threads]
took = time.perf_counter() - began
times.sort()
rss = next(int(line.split()[1]) for line in open(f"/proc/{PID}/status") if line.startswith("VmRSS"))
print(json.dumps({
    "requests": len(times), "per_second": round(len(times) / took), "statuses": statuses, "lost": lost,
    "most_winners": max(winners.values(), default=0), "windows_won": len(winners),
    "p50_ms": round(times[len(times) // 2] * 1000, 1), "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
    "hub_mib": round(rss / 1024, 1),
}))
