import copy
import json
import pickle
import signal
import sqlite3
import threading
import time
import traceback
import warnings
from collections import deque
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, quote_plus

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import Judge, JudgeConfig, JudgeUsage, evaluate, score_batch
from textgym.scorers.learned.judge import question_key
from textgym.testing import check_scorer

NAN = float("nan")
KEY = "sk-secret-key"


class FakeServer(ThreadingHTTPServer):
    """A chat server on the loopback that runs the handlers of ``script``, then ``answer``."""

    daemon_threads = True
    request_queue_size = 64  # with fewer, a burst of connections waits a second

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = deque()
        self.answer = lambda body: say("Score: 10")
        self.requests = []
        self.at_once = self.most_at_once = self.patient_clients = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Log nothing: clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((self.path, dict(self.headers), body))
            behaviour = server.script.popleft() if server.script else server.answer(body)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        behaviour(self)
        with server.lock:
            server.at_once -= 1

    def log_message(self, *_):
        pass


def raw(payload, status=200, headers=None, length=None):
    def behave(handler):
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(payload) if length is None else length))
        handler.end_headers()
        handler.wfile.write(payload)

    return behave


def say(text, usage=7):
    reply = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return raw(json.dumps(reply | ({} if usage is None else {"usage": {"total_tokens": usage}})).encode())


def fail(status, text="broken", **headers):
    return raw(text.encode(), status, {name.replace("_", "-"): value for name, value in headers.items()})


def drop(handler):
    handler.close_connection = True


def hang(handler):
    handler.server.released.wait(10)


@pytest.fixture
def server():
    with FakeServer() as fake:
        thread = threading.Thread(target=fake.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield fake
        fake.released.set()
        fake.shutdown()
        thread.join()


async def no_wait(seconds):
    pass


def noting(waits):
    async def sleep(seconds):
        waits.append(seconds)

    return sleep


def judge_of(server, sleep=no_wait, clock=time.monotonic, **options):
    return Judge("judge-model", server.url, JudgeConfig(**options), clock=clock, sleep=sleep)


def batch_of(*completions, **columns):
    return TextBatch.from_texts(list(completions), **columns)


# Questions


def test_each_episode_is_judged_and_the_scale_is_mapped_to_0_to_1(server):
    server.answer = lambda body: say(f"Fine. Score: {len(asked(body)) % 10 + 1}")
    judge = judge_of(server, template="{completion}")
    assert judge(batch_of("", "a" * 4, "a" * 9)).tolist() == pytest.approx([0.0, 4 / 9, 1.0])
    assert judge.usage == JudgeUsage(requests=3, tokens=21)


def asked(body):
    return body["messages"][-1]["content"]


def test_the_request_follows_the_api(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge = judge_of(
        server,
        api_key_env="JUDGE_KEY",
        system="Be strict.",
        template="{low} to {high}: {prompt}|{completion}|{reference}|{other} {}",
        parameters={"temperature": 0.5, "seed": 3},
    )
    judge(batch_of("{prompt} \ud800\0", prompts=["Q"], references=[["R", "S"]]))
    [(path, headers, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"
    assert body == {
        "model": "judge-model",
        "temperature": 0.5,
        "seed": 3,
        "messages": [
            {"role": "system", "content": "Be strict."},
            {"role": "user", "content": "1 to 10: Q|{prompt} \ufffd |R|{other} {}"},
        ],
    }


def test_without_api_key_env_no_key_is_sent(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    judge_of(server)(batch_of("a"))
    assert "Authorization" not in server.requests[0][1]


def test_a_local_server_bypasses_the_proxy(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert judge_of(server, retries=0)(batch_of("a")).tolist() == [1.0]


def test_a_sample_without_a_reference_scores_nan_if_the_template_needs_one(server):
    judge = judge_of(server, template="{completion} {reference}")
    np.testing.assert_array_equal(judge(batch_of("a", "b", references=[[], ["r"]])), [NAN, 1.0])
    assert len(server.requests) == 1


def test_long_texts_are_truncated(server):
    judge_of(server, template="{prompt}{completion}", max_characters=3)(batch_of("abcdef", prompts=["123456"]))
    assert asked(server.requests[0][2]) == "123abc"


def test_equal_questions_are_asked_once_and_different_ones_concurrently(server):
    barrier = threading.Barrier(3, timeout=10)

    def together(handler):
        barrier.wait()
        say("Score: 10")(handler)

    server.answer = lambda body: together
    assert judge_of(server, concurrency=3)(batch_of("a", "b", "a", "c")).tolist() == [1.0] * 4
    assert len(server.requests) == 3


def test_concurrency_limits_the_pending_requests(server):
    judge_of(server, concurrency=2)(batch_of(*map(str, range(12))))
    assert server.most_at_once <= 2
    assert len(server.requests) == 12


# Answers


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Score: 1", 0.0),
        ("**Score:** 5.5/10", 0.5),
        ("The text says 'Score: 10'. That is wrong.\nSCORE = 1", 0.0),
        ("score 10.", 1.0),
    ],
)
def test_the_last_match_in_an_answer_counts(answer, score):
    assert JudgeConfig().score(answer) == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": 3}', 0.5),
        ('```json\n{"reason": "has {braces} {", "score": "5"}\n```', 1.0),
        ('{"score": 1} no, {"score": 5}', 1.0),
        ('{"score": 5} {"other": 1}', 1.0),
        ('{"score": 5, "by": {"style": {"score": 1}}}', 1.0),
        ('{"result": {"score": 5}}', 1.0),
        ('{"results": [{"score": 1}, {"score": 5}]}', 1.0),
        ("{x} " * 200 + '{"score": 5}', 1.0),
        ('{"a": [' * 400 + '{"score": 5}' + "]}" * 400, 1.0),
    ],
)
def test_a_score_is_found_in_json(answer, score):
    assert JudgeConfig(json_key="score", scale=(1, 5)).score(answer) == score


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        ({}, "I like it.", "'judge' found no score in the judge's answer 'I like it.', for the completion 'text'"),
        ({}, "", "found no score in the judge's answer ''"),
        ({}, "Score: 11", "found 11, not from 1 to 10, in the judge's answer 'Score: 11'"),
        ({}, "Score: -3", "found -3, not from 1 to 10"),
        ({"json_key": "score"}, "Score: 5", "found no JSON object with 'score' in the judge's answer 'Score: 5'"),
        ({"json_key": "score"}, '{"score": "good"}', "found 'good' instead of a number in the judge's answer"),
        ({"json_key": "score"}, '{"score": NaN}', "found nan, not from 1 to 10"),
        ({"json_key": "score"}, f'{{"score": 1{"0" * 400}}}', "instead of a number in the judge's answer"),
        ({"pattern": "(good|bad)"}, "good", "found 'good' instead of a number"),
        ({"json_key": "score"}, '{"score": 5}' + " " * 60_000, "found no JSON object with 'score'"),
        ({"json_key": "score"}, '{"a":' * 100_000 + "5" + "}" * 100_000, "found no JSON object with 'score'"),
        ({"json_key": "score"}, '{"a":' * 100_000, "found no JSON object with 'score'"),
    ],
)
def test_an_answer_without_a_score_is_an_error_that_shows_it(server, options, answer, message):
    server.answer = lambda body: say(answer)
    assert message in score_batch(judge_of(server, **options), batch_of("text")).error


def test_an_answer_without_a_score_fails_its_episode_alone(server):
    server.answer = lambda body: say("Hm." if asked(body) == "b" else "Score: 10")
    scores = score_batch(judge_of(server, template="{completion}"), batch_of("a", "b", "c"))
    np.testing.assert_array_equal(scores.total, [1.0, NAN, 1.0])
    assert scores.failed.tolist() == [False, True, False]


# Faults


@pytest.mark.parametrize("fault", [fail(500), fail(503), fail(429, Retry_After="0"), drop, raw(b"{", length=99)])
def test_temporary_faults_are_retried(server, fault):
    server.script.extend([fault, fault])
    waits = []
    judge = judge_of(server, noting(waits), retries=2)
    assert judge(batch_of("a")).tolist() == [1.0]
    assert judge.usage.requests == len(server.requests) == 3
    assert len(waits) == 2


def test_a_silent_server_is_retried(server):
    server.script.append(hang)
    judge = judge_of(server, request_timeout=0.1)
    assert judge(batch_of("a")).tolist() == [1.0]
    assert judge.usage.requests == 2


ANSWER = b'{"choices": [{"message": {"content": "Score: 10"}}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(ANSWER)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def drip(before, drop, after):
    """Send ``before``, then ``drop`` repeatedly until the client disconnects, finally ``after``.

    A client that has not gone after ten seconds gets its answer, and is counted.
    """

    def behave(handler):
        handler.close_connection = True
        handler.wfile.write(before)
        for _ in range(500):
            handler.wfile.write(drop)
            handler.wfile.flush()
            if handler.server.released.wait(0.02):
                return
        handler.server.patient_clients += 1
        handler.wfile.write(after)

    return behave


DRIPS = {
    "status line": drip(b"HTTP/1.1 200 ", b"O", b"\r\n" + LENGTH + ANSWER),
    "headers": drip(HEAD, b"X-Drop: 1\r\n", LENGTH + ANSWER),
    "a header": drip(HEAD + b"X-Drop: ", b"1", b"\r\n" + LENGTH + ANSWER),
    "continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + LENGTH + ANSWER),
    "early hints": drip(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", HEAD + LENGTH + ANSWER),
    "body": drip(HEAD + b"Content-Length: %d\r\n\r\n" % (500 + len(ANSWER)), b" ", ANSWER),
    "chunks": drip(CHUNKED, b"1\r\n \r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER)),
    "a chunk's size": drip(CHUNKED, b"0", b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER)),
    "a chunk's extension": drip(CHUNKED + b"1;", b"x", b"\r\n \r\n0\r\n\r\n"),
    "trailers": drip(CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(ANSWER), ANSWER), b"X-Drop: 1\r\n", b"\r\n"),
}


@pytest.mark.parametrize("drips", DRIPS)
def test_a_request_has_one_deadline_even_if_the_server_drips(server, drips):
    server.answer = lambda body: DRIPS[drips]
    scores = score_batch(judge_of(server, request_timeout=0.4, retries=1), batch_of("a"))
    assert scores.error is not None
    assert "took longer than 0.4 s" in scores.error or "RemoteProtocolError" in scores.error
    assert len(server.requests) == 2
    assert server.patient_clients == 0


def test_an_interrupt_does_not_wait_for_retries_or_answers(server):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs pytest in the background ignores it
    main, interrupted = threading.main_thread().ident, threading.Event()

    def interrupt(handler):
        fail(503, Retry_After="2")(handler)
        handler.wfile.flush()
        time.sleep(0.3)  # for the client to read it
        if not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(main, signal.SIGINT)

    server.answer = lambda body: interrupt if asked(body) == "a" else hang
    judge = Judge("m", server.url, JudgeConfig(template="{completion}"))
    with pytest.raises(KeyboardInterrupt):
        judge(batch_of("a", "b", "c"))
    assert len(server.requests) == 3  # none was asked again
    assert not server.released.is_set()
    assert server.at_once >= 2  # the hanging requests are still open
    server.answer = lambda body: say("Score: 10")
    assert judge(batch_of("a")).tolist() == [1.0]


def test_waits_follow_retry_after_or_double(server):
    soon = format_datetime(datetime.now(timezone.utc) - timedelta(hours=1), usegmt=True)
    server.script.extend([fail(429, Retry_After="7"), fail(429, Retry_After=soon), *[fail(500)] * 9])
    waits = []
    judge_of(server, noting(waits), retries=11)(batch_of("a"))
    assert waits[:2] == [7.0, 0.0]
    for attempt, wait in enumerate(waits[2:], start=2):
        longest = min(60.0, 0.5 * 2**attempt)
        assert longest / 2 <= wait <= longest
    assert len(set(waits[2:])) == 9


def test_a_wait_that_is_too_long_is_an_error(server):
    server.script.append(fail(429, Retry_After="3600"))
    scores = score_batch(judge_of(server), batch_of("a"))
    assert "answered 429 Too Many Requests: broken; it asks to wait 3600 s, which is too long" in scores.error


def test_a_server_that_stays_broken_fails_its_episode_alone(server):
    server.answer = lambda body: fail(500) if asked(body) == "a" else say("Score: 10")
    scores = score_batch(judge_of(server, template="{completion}", retries=1), batch_of("a", "b"))
    np.testing.assert_array_equal(scores.total, [NAN, 1.0])
    assert scores.failed.tolist() == [True, False]
    assert "answered 500 Internal Server Error: broken (asked 2 times), for the completion 'a'" in scores.error
    with pytest.raises(ScorerError, match="asked 2 times"):
        judge_of(server, template="{completion}", retries=1)(batch_of("a"))


def test_a_client_error_is_not_retried_and_does_not_show_the_key(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.answer = lambda body: fail(401, f"wrong key {KEY}")
    error = score_batch(judge_of(server, api_key_env="JUDGE_KEY"), batch_of("a")).error
    assert "answered 401 Unauthorized: wrong key ***" in error
    assert len(server.requests) == 1


def answered(status, reason):
    def behave(handler):
        handler.send_response(status, reason)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def echoing(before, after=b""):
    """Write the authorization that was received between two pieces of an answer."""

    def behave(handler):
        handler.close_connection = True
        handler.wfile.write(before + handler.headers["Authorization"].encode() + after)

    return behave


ECHOES = {
    "answer": raw(f"you sent {KEY}".encode()),
    "end of an error": fail(400, "x" * 490 + KEY),
    "reason": answered(401, f"wrong: {KEY}"),
    "capitals": fail(400, KEY.upper()),
    "status line": echoing(b"HTTP/1.1 9 ", b"\r\n\r\n"),
    "no status line": echoing(b""),
    "header name": echoing(b"HTTP/1.1 200 OK\r\n", b": 1\r\n\r\n"),
    "header": echoing(b"HTTP/1.1 200 OK\r\nContent-Length: ", b"\r\n\r\n"),
    "retry after": echoing(b"HTTP/1.1 503 Busy\r\nRetry-After: ", b"\r\n\r\n"),
    "chunk": echoing(CHUNKED, b"\r\n"),
    "text without a score": lambda handler: say(f"I was sent {KEY}.")(handler),
    "JSON in a text": lambda handler: say(json.dumps({"score": KEY}))(handler),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_a_key_that_the_server_repeats_is_shown_nowhere(server, monkeypatch, echo):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.answer = lambda body: ECHOES[echo]
    scores = score_batch(judge_of(server, api_key_env="JUDGE_KEY", retries=1), batch_of("a"))
    assert scores.error is not None
    shown = "".join(traceback.format_exception(scores.cause)) + repr(chain_of(scores.cause)) + scores.error
    assert KEY[:6] not in shown.lower()


def chain_of(error):
    """Return an exception with its causes and contexts, as a debugger shows them."""
    return [] if error is None else [error, *chain_of(error.__cause__), *chain_of(error.__context__)]


def test_a_key_that_an_answer_repeats_is_not_cached(server, monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.answer = lambda body: say(f"{KEY} Score: 10")
    judge = judge_of(server, api_key_env="JUDGE_KEY", cache=tmp_path / "answers.sqlite")
    assert judge(batch_of("a")).tolist() == [1.0]
    assert KEY.encode() not in (tmp_path / "answers.sqlite").read_bytes()


@pytest.mark.parametrize("key", ["sk-a/b+c=d&e", 'sk-"quoted"\\key'])
@pytest.mark.parametrize(
    "escaped",
    [
        lambda key: json.dumps(key)[1:-1],
        lambda key: json.dumps(key)[1:-1].replace("/", r"\/"),
        lambda key: quote(key),
        lambda key: quote(key, safe=""),
        quote_plus,
    ],
)
def test_an_escaped_key_is_not_shown_either(server, monkeypatch, key, escaped):
    monkeypatch.setenv("JUDGE_KEY", key)
    server.answer = lambda body: say(f"I was sent {escaped(key)}, and that is all.")
    error = score_batch(judge_of(server, api_key_env="JUDGE_KEY"), batch_of("a")).error
    assert "I was sent ***, and that is all." in error


def test_a_key_too_short_to_be_secret_changes_no_message(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "local")
    server.answer = lambda body: fail(400)
    judge = judge_of(server, api_key_env="JUDGE_KEY")
    judge._client.url = judge._client.url.replace("127.0.0.1", "localhost")
    error = score_batch(judge, batch_of("a")).error
    assert "***" not in error
    assert "localhost" in error


# Faults that affect one episode only


@pytest.mark.parametrize(
    "seconds",
    [
        "1e999",
        "-1e999",
        "nan",
        "9" * 5_000,
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "Mon, 31 Feb 2026 25:61:61 +9999",
        "\u0661",
        "",
    ],
)
def test_an_invalid_retry_after_fails_at_most_its_episode(server, seconds):
    server.answer = lambda body: (
        fail(503, Retry_After=seconds.encode().decode("latin-1")) if asked(body) == "b" else say("Score: 10")
    )
    scores = score_batch(judge_of(server, template="{completion}", retries=1), batch_of("a", "b", "c"))
    np.testing.assert_array_equal(scores.total, [1.0, NAN, 1.0])
    assert "answered 503" in scores.error


@pytest.mark.parametrize("cached", [True, False])
def test_a_lone_surrogate_in_an_answer_is_not_an_error(server, tmp_path, cached):
    server.answer = lambda body: say("\ud83d Score: 10" if asked(body) == "b" else "Score: 1")
    judge = judge_of(server, template="{completion}", cache=tmp_path / "answers.sqlite" if cached else None)
    for _ in range(2):
        assert judge(batch_of("a", "b", "c")).tolist() == [0.0, 1.0, 0.0]
    assert len(server.requests) == (3 if cached else 6)


def test_malformed_usage_does_not_lose_the_answer(server):
    for usage in (5, [], "many", {"total_tokens": "7"}, {"total_tokens": None}, {"total_tokens": -7}, None):
        reply = {"choices": [{"message": {"content": "Score: 10"}}], "usage": usage}
        server.script.append(raw(json.dumps(reply).encode()))
    judge = judge_of(server, template="{completion}")
    assert judge(batch_of(*"abcdefg")).tolist() == [1.0] * 7
    assert judge.usage.tokens == 0


def test_a_cache_that_cannot_be_written_is_a_warning_and_the_scores_are_returned(server, tmp_path):
    path = tmp_path / "answers.sqlite"
    judge = judge_of(server, template="{completion}", cache=path)
    with sqlite3.connect(path) as connection:  # raises the error of a full disk
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
    connection.close()
    with pytest.warns(RuntimeWarning, match="cannot use .* as a cache: database or disk is full"):
        assert judge(batch_of("a", "b", "c")).tolist() == [1.0] * 3
    assert len(server.requests) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert judge(batch_of("d")).tolist() == [1.0]
        with pytest.raises(RuntimeWarning, match="disk is full"):
            judge(batch_of("e"))
        assert len(server.requests) == 4


def test_white_space_around_the_key_is_not_sent(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    judge_of(server, api_key_env="JUDGE_KEY")(batch_of("a"))
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk-se\u201dcret", " "])
def test_an_invalid_key_is_rejected_and_not_shown(server, monkeypatch, key):
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(ValueError, match="JUDGE_KEY") as caught:
        judge_of(server, api_key_env="JUDGE_KEY")
    assert "sk-se" not in str(caught.value)


def test_a_key_removed_from_the_environment_fails_the_episode(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge = judge_of(server, api_key_env="JUDGE_KEY")
    monkeypatch.delenv("JUDGE_KEY")
    assert isinstance(score_batch(judge, batch_of("a")).cause, ScorerError)
    assert server.requests == []


def stalls_while_it_complains(handler):
    handler.send_response(500)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.flush()
    hang(handler)


def breaks_off_its_complaint(handler):
    handler.send_response(500)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"none\r\n")


@pytest.mark.parametrize("fault", [stalls_while_it_complains, breaks_off_its_complaint])
def test_an_error_reply_that_cannot_be_read_is_retried(server, fault):
    server.script.append(fault)
    assert judge_of(server, request_timeout=0.2)(batch_of("a")).tolist() == [1.0]


def test_tokens_of_an_answer_without_text_are_counted(server):
    reply = {"choices": [{"message": {"content": None}}], "usage": {"total_tokens": 512}}
    server.script.append(raw(json.dumps(reply).encode()))
    judge = judge_of(server, max_total_tokens=512)
    assert "not a chat completion" in score_batch(judge, batch_of("a")).error
    assert judge.usage.tokens == 512
    assert "is spent" in score_batch(judge, batch_of("b")).error


def test_a_redirect_is_not_followed(server):
    server.answer = lambda body: fail(302, Location=f"{server.url}/elsewhere")
    assert "answered 302" in score_batch(judge_of(server), batch_of("a")).error
    assert len(server.requests) == 1


def test_a_reply_nested_too_deeply_is_not_a_chat_completion(server):
    server.answer = lambda body: raw(b"[" * 100_000)
    assert "not a chat completion" in score_batch(judge_of(server), batch_of("a")).error


@pytest.mark.parametrize(
    "payload", [b"<html>hello</html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}']
)
def test_a_reply_that_is_not_a_chat_completion_is_an_error_that_shows_it(server, payload):
    server.answer = lambda body: raw(payload)
    error = score_batch(judge_of(server), batch_of("a")).error
    assert f"answered something that is not a chat completion: {payload.decode()!r}" in error
    assert len(server.requests) == 1


def test_an_unreachable_server_is_an_error(server):
    judge = Judge("m", "http://127.0.0.1:9/v1", JudgeConfig(retries=1), sleep=no_wait)
    assert "did not answer" in score_batch(judge, batch_of("a")).error


# Budgets and rates


def test_the_budget_of_requests_is_an_error_when_it_is_spent(server):
    judge = judge_of(server, max_requests=2, concurrency=1)
    scores = evaluate(judge, batch_of("a", "b", "c"), on_error="invalid")
    assert np.isfinite(scores.total).tolist() == [True, True, False]
    assert "'judge' the budget of max_requests=2 is spent" in scores.error
    assert len(server.requests) == 2


def test_retries_count_against_the_budget(server):
    server.answer = lambda body: fail(500)
    assert "max_requests=2 is spent" in score_batch(judge_of(server, max_requests=2), batch_of("a")).error
    assert len(server.requests) == 2


def test_the_budget_of_tokens_is_an_error_when_it_is_spent(server):
    server.answer = lambda body: say("Score: 10", usage=60)
    judge = judge_of(server, max_total_tokens=100, concurrency=1)
    assert judge(batch_of("a", "b")).tolist() == [1.0, 1.0]
    assert "max_total_tokens=100 is spent: 120" in score_batch(judge, batch_of("c")).error
    server.answer = lambda body: say("Score: 10", usage=None)
    assert "reports no usage" in score_batch(judge_of(server, max_total_tokens=100), batch_of("a")).error
    assert judge_of(server)(batch_of("a")).tolist() == [1.0]


def test_requests_respect_the_rate_limit(server):
    now = [100.0]
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    judge = judge_of(server, sleep, lambda: now[0], requests_per_minute=20, concurrency=1)
    judge(batch_of("a", "b", "c"))
    now[0] += 2
    judge(batch_of("d"))
    now[0] += 10
    judge(batch_of("e"))
    assert waits == [3.0, 3.0, 1.0]


# The cache


def test_a_question_is_asked_once_by_all_judges_that_share_the_cache(server, tmp_path):
    server.answer = lambda body: say(f"Score: {len(server.requests)}")
    path = tmp_path / "answers.sqlite"
    judge = judge_of(server, cache=path, concurrency=1)
    assert judge.deterministic
    first = judge(batch_of("a", "b", "a"))
    assert judge.usage == JudgeUsage(requests=2, tokens=14, cache_hits=0)
    assert judge(batch_of("b", "a", "a")).tolist() == [first[1], first[0], first[0]]
    assert judge.usage == JudgeUsage(requests=2, tokens=14, cache_hits=3)
    assert judge_of(server, cache=str(path))(batch_of("a")).tolist() == [first[0]]
    assert len(server.requests) == 2


@pytest.mark.parametrize("other", [{"parameters": {"temperature": 1.0}}, {"template": "Say {completion}"}])
def test_questions_with_other_parameters_or_messages_are_cached_separately(server, tmp_path, other):
    for options in ({}, other):
        judge_of(server, cache=tmp_path / "answers.sqlite", **options)(batch_of("a"))
    Judge("other-model", server.url, JudgeConfig(cache=tmp_path / "answers.sqlite"))(batch_of("a"))
    assert len(server.requests) == 3


def test_an_answer_without_a_score_is_not_cached(server, tmp_path):
    server.script.append(say("Hm."))
    judge = judge_of(server, cache=tmp_path / "answers.sqlite")
    assert score_batch(judge, batch_of("a")).error is not None
    assert judge(batch_of("a")).tolist() == [1.0]
    assert len(server.requests) == 2


def test_answers_before_a_failure_are_cached(server, tmp_path):
    judge = judge_of(server, cache=tmp_path / "answers.sqlite", max_requests=2, concurrency=1)
    scores = score_batch(judge, batch_of("a", "b", "c"))
    assert scores.failed.tolist() == [False, False, True]
    assert judge(batch_of("a", "b")).tolist() == [1.0, 1.0]


def test_a_cache_holds_more_questions_than_one_query_may_name(server, tmp_path):
    judge = judge_of(server, cache=tmp_path / "answers.sqlite", template="{completion}")
    judge(batch_of("a"))
    body = {**judge.config.parameters, "model": "judge-model"}
    with sqlite3.connect(tmp_path / "answers.sqlite") as connection:
        rows = [
            (question_key({**body, "messages": judge.config.messages("", str(i), "")}), "Score: 1")
            for i in range(1_200)
        ]
        connection.executemany("INSERT INTO answers VALUES (?, ?)", rows)
    connection.close()
    assert judge(batch_of(*map(str, range(1_200)))).tolist() == [0.0] * 1_200
    assert len(server.requests) == 1


def test_a_file_that_is_not_a_cache_is_rejected(tmp_path):
    path = tmp_path / "text"
    path.write_text("this is no database, but it is long enough to look like one" * 20)
    for cache in (path, tmp_path / "nowhere" / "answers.sqlite"):
        with pytest.raises(ValueError, match=r"cannot use .* as a cache"):
            Judge("m", "http://127.0.0.1:9", JudgeConfig(cache=cache))


def test_a_cache_damaged_later_fails_the_episodes_with_its_path(server, tmp_path):
    judge = judge_of(server, cache=tmp_path / "answers.sqlite")
    judge(batch_of("a"))
    (tmp_path / "answers.sqlite").write_bytes(b"no database" * 1_000)
    scores = score_batch(judge, batch_of("a"))
    assert isinstance(scores.cause, ScorerError)
    assert "cannot use" in scores.error


# Copies and invalid arguments


def test_a_custom_name_is_copied_and_shown_in_errors(server):
    judge = judge_of(server, retries=0)
    judge.name = "style"
    server.answer = lambda body: fail(400)
    copied = pickle.loads(pickle.dumps(judge))
    assert copied.name == "style"
    assert score_batch(copied, batch_of("a")).error.startswith("scorer 'style' ")


def test_a_copy_sends_the_same_requests_and_contains_no_key(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge = Judge("m", server.url, JudgeConfig(api_key_env="JUDGE_KEY"))
    assert judge(batch_of("a")).tolist() == [1.0]
    assert KEY.encode() not in pickle.dumps(judge)
    for copied in (pickle.loads(pickle.dumps(judge)), copy.deepcopy(judge)):
        assert copied(batch_of("a")).tolist() == [1.0]
        assert copied.config == judge.config


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Judge("m", "localhost:8000"), ValueError, "expected base_url as 'http://host:port/v1'"),
        (lambda: Judge("m", "file:///etc/passwd"), ValueError, "expected base_url"),
        (lambda: Judge("m", "http://me:secret@host/v1"), ValueError, "without a user or a query, got one of 'host'$"),
        (lambda: Judge("m", "http://host/v1?key=secret"), ValueError, "without a user or a query, got one of 'host'$"),
        (
            lambda: Judge("m", "http://h", JudgeConfig(api_key_env="NO_SUCH_KEY")),
            ValueError,
            "'NO_SUCH_KEY', .* not set",
        ),
        (lambda: JudgeConfig(template="{prompt}"), ValueError, "template must contain {completion}"),
        (lambda: JudgeConfig(pattern="("), ValueError, "pattern is not a regular expression"),
        (lambda: JudgeConfig(pattern=r"\d"), ValueError, "pattern must have one group"),
        (lambda: JudgeConfig(scale=(5, 1)), ValueError, "scale must be"),
        (lambda: JudgeConfig(scale=5), TypeError, r"scale is 5, expected two numbers, \(worst, best\)"),
        (lambda: JudgeConfig(scale="15"), TypeError, "scale is '15', expected two numbers"),
        (lambda: JudgeConfig(scale=("1", "5")), TypeError, r"scale is \('1', '5'\), expected two numbers"),
        (
            lambda: Judge("m", "http://h", {"scale": (1, 5)}),
            TypeError,
            r"config is {'scale': \(1, 5\)} of type dict; expected JudgeConfig\(\.\.\.\)",
        ),
        (lambda: JudgeConfig(scale=(0, float("inf"))), ValueError, "scale must be"),
        (lambda: JudgeConfig(parameters={"n": 2}), ValueError, "may not contain 'n'"),
        (lambda: JudgeConfig(parameters={"stop": object()}), TypeError, "cannot be sent as JSON"),
        (lambda: JudgeConfig(concurrency=0), ValueError, "concurrency is 0, expected an integer >= 1"),
        (lambda: JudgeConfig(retries=-1), ValueError, "retries is -1, expected an integer >= 0"),
        (lambda: JudgeConfig(max_characters=1.5), ValueError, "max_characters is 1.5, expected an integer"),
        (lambda: JudgeConfig(request_timeout=0), ValueError, "request_timeout must be positive, got 0"),
        (lambda: JudgeConfig(max_requests=0), ValueError, "max_requests must be positive, got 0"),
        (lambda: JudgeConfig(requests_per_minute=NAN), ValueError, "requests_per_minute must be positive"),
    ],
)
def test_invalid_judges_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_judge_without_a_cache_is_not_deterministic(server):
    assert not judge_of(server).deterministic


def test_the_judge_follows_the_scorer_contract(server, tmp_path):
    server.answer = lambda body: say(f"Score: {len(asked(body)) % 10 + 1}")
    check_scorer(Judge("m", server.url, JudgeConfig(cache=tmp_path / "answers.sqlite")))
    server.answer = lambda body: say("Score: 3")
    check_scorer(Judge("m", server.url))


@given(st.text(max_size=80))
def test_any_answer_is_a_score_in_range_or_an_error(answer):
    for config in (JudgeConfig(), JudgeConfig(json_key="score"), JudgeConfig(pattern=r"(\S+)", scale=(0, 1))):
        with suppress(ScorerError):
            assert 0.0 <= config.score(answer) <= 1.0
